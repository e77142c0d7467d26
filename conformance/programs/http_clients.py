# /// script
# dependencies = ["requests", "httpx", "urllib3", "cryptography"]
# [tool.strongroom]
# memory = "96M"
# threads = 12
# network = true
# ///
"""requests, httpx (also asynchronous) and urllib3 against an https server on loopback."""

import asyncio
import datetime
import http.server
import os
import ssl
import tempfile
import threading

import httpx
import requests
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])

    def log_message(self, *_):
        pass


key = ec.generate_private_key(ec.SECP256R1())
name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
now = datetime.datetime.now(datetime.UTC)
certificate = (
    x509.CertificateBuilder()
    .subject_name(name)
    .issuer_name(name)
    .public_key(key.public_key())
    .serial_number(1000)
    .not_valid_before(now - datetime.timedelta(days=1))
    .not_valid_after(now + datetime.timedelta(days=1))
    .add_extension(x509.BasicConstraints(True, None), critical=True)
    .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    .sign(key, hashes.SHA256())
)
folder = tempfile.mkdtemp()
pem = serialization.Encoding.PEM
private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
path = os.path.join(folder, "server.pem")
with open(path, "wb") as file:
    file.write(private + certificate.public_bytes(pem))
ca = os.path.join(folder, "ca.pem")
with open(ca, "wb") as file:
    file.write(certificate.public_bytes(pem))
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(path)
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"https://localhost:{server.server_port}/"
trusted = ssl.create_default_context(cafile=ca)
body = bytes(range(256)) * 1000

with requests.Session() as session:
    print("requests", [session.post(url, body, verify=ca).content == body[::-1] for _ in range(3)])
try:
    requests.post(url, body)
except requests.exceptions.SSLError as error:
    print("untrusted", "self-signed certificate" in str(error))
with urllib3.PoolManager(ca_certs=ca) as pool:
    print("urllib3", pool.request("POST", url, body=body).data == body[::-1])
with httpx.Client(verify=trusted) as client:
    print("httpx", client.post(url, content=body).content == body[::-1])


async def many():
    async with httpx.AsyncClient(verify=trusted) as client:
        answers = await asyncio.gather(*(client.post(url, content=bytes([n])) for n in range(3)))
    return [one.content[0] for one in answers]


print("asynchronous", asyncio.run(many()))
server.shutdown()
