# /// script
# dependencies = ["gevent"]
# [tool.strongroom]
# memory = "64M"
# threads = 16
# network = true
# ///
"""Greenlets, which switch stacks; monkey-patched sockets on libev."""

from gevent import monkey

monkey.patch_all()

import socket  # noqa: E402

import gevent  # noqa: E402
from gevent.pool import Pool  # noqa: E402
from gevent.server import StreamServer  # noqa: E402


def echo(connection, _):
    connection.sendall(connection.recv(100).upper())


server = StreamServer(("127.0.0.1", 0), echo)
server.start()


def ask(number):
    with socket.create_connection(("127.0.0.1", server.server_port)) as client:
        client.sendall(b"call %d" % number)
        return client.recv(100)


print(sorted(Pool(20).imap_unordered(ask, range(40)))[::10])
print(gevent.get_hub().threadpool.apply(sum, ([1, 2],)))
server.stop()
