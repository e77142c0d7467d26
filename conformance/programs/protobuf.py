# /// script
# dependencies = ["protobuf"]
# ///
"""A message type made at run time, in the C implementation (upb)."""

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, timestamp_pb2
from google.protobuf.internal import api_implementation

file = descriptor_pb2.FileDescriptorProto(name="records.proto", package="records", syntax="proto3")
message = file.message_type.add(name="Record")
for number, (name, kind) in enumerate([("patient", 9), ("age", 5)], 1):
    message.field.add(name=name, number=number, type=kind, label=1)
message.field.add(name="values", number=3, type=1, label=3)
pool = descriptor_pool.DescriptorPool()
pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
Record = message_factory.GetMessageClass(pool.FindMessageTypeByName("records.Record"))
record = Record(patient="Ada", age=36, values=[1.5, 2])
print(record.SerializeToString().hex(), Record.FromString(record.SerializeToString()) == record)
print(json_format.MessageToJson(record, indent=None), api_implementation.Type())
print(timestamp_pb2.Timestamp(seconds=1_700_000_000).ToJsonString())
