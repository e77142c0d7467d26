# /// script
# dependencies = ["onnxruntime"]
# [tool.strongroom]
# memory = "256M"
# threads = 12
# [tool.strongroom.env]
# HOME = "/tmp"
# [tool.conformance]
# note = "without HOME it warns that it cannot keep an identifier"
# ///
"""A model made by hand (ONNX is protobuf: written here byte by byte), run by the CPU provider."""

import struct

import numpy as np
import onnxruntime


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name, values, *shape):
    data = struct.pack(f"<{len(values)}f", *values)
    return b"".join(field(1, one) for one in shape) + field(2, 1) + field(8, name) + field(9, data)


def value(name, *shape):
    dimensions = b"".join(field(1, field(1, one)) for one in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dimensions)))


def node(kind, inputs, output):
    return b"".join(field(1, one) for one in inputs) + field(2, output) + field(4, kind)


weights = [n / 10 for n in range(12)]
graph = (
    field(1, node("MatMul", ["x", "w"], "h"))
    + field(1, node("Relu", ["h"], "r"))
    + field(1, node("Softmax", ["r"], "y"))
    + field(2, "score")
    + field(5, tensor("w", weights, 3, 4))
    + field(11, value("x", 2, 3))
    + field(12, value("y", 2, 4))
)
model = field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
print([one.name for one in session.get_inputs()], session.get_providers())
result = session.run(None, {"x": np.array([[1, 2, 3], [-1, 0, 1]], np.float32)})[0]
print(np.round(result, 4).tolist())
