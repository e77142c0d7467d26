# /// script
# dependencies = ["msgpack"]
# ///
"""Round trips, a stream, extension types."""

import datetime
import io

import msgpack

record = {
    "id": 7,
    "values": [1.5, -2, 2**40],
    "raw": b"\x00\xff",
    "when": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
}
packed = msgpack.packb(record, datetime=True)
print(packed.hex())
print(msgpack.unpackb(packed, timestamp=3) == record, msgpack.Packer.__module__)
print(sum(1 for _ in msgpack.Unpacker(io.BytesIO(msgpack.packb([1, 2]) * 1000))))
