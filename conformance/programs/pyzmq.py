# /// script
# dependencies = ["pyzmq"]
# [tool.strongroom]
# memory = "64M"
# threads = 8
# network = true
# ///
"""Sockets between threads and over loopback, encrypted by CURVE."""

import threading

import zmq

context = zmq.Context()
public, secret = zmq.curve_keypair()
server = context.socket(zmq.REP)
server.curve_server = True
server.curve_secretkey = secret
port = server.bind_to_random_port("tcp://127.0.0.1")


def serve():
    while (message := server.recv()) != b"end":
        server.send(message[::-1])
    server.send(b"bye")


thread = threading.Thread(target=serve)
thread.start()
client = context.socket(zmq.REQ)
client.curve_serverkey = public
client.curve_publickey, client.curve_secretkey = zmq.curve_keypair()
client.connect(f"tcp://127.0.0.1:{port}")
answers = []
for message in [b"abc", bytes(100_000), b"end"]:
    client.send(message)
    answers.append(len(client.recv()))
print(answers)
thread.join()
one, two = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
one.bind("inproc://x")
two.connect("inproc://x")
two.send(b"inside")
print(one.recv())
context.destroy()
