# /// script
# dependencies = ["grpcio"]
# [tool.strongroom]
# memory = "128M"
# threads = 24
# network = true
# ///
"""A server and a client on loopback: a call, a stream, an error."""

from concurrent.futures import ThreadPoolExecutor

import grpc


def score(request, context):
    if not request:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "empty")
    return request[::-1]


def count(request, context):
    yield from (bytes([n]) for n in range(request[0]))


handlers = {
    "Score": grpc.unary_unary_rpc_method_handler(score),
    "Count": grpc.unary_stream_rpc_method_handler(count),
}
server = grpc.server(ThreadPoolExecutor(2))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("records.Scorer", handlers)])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    call = channel.unary_unary("/records.Scorer/Score")
    print(call(b"abc", timeout=20), call(bytes(100_000), timeout=20) == bytes(100_000))
    print(sum(one[0] for one in channel.unary_stream("/records.Scorer/Count")(bytes([100]), timeout=20)))
    try:
        call(b"", timeout=20)
    except grpc.RpcError as error:
        print(error.code(), error.details())
server.stop(0).wait()
print("stopped")
