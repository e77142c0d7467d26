# /// script
# dependencies = ["cryptography"]
# [tool.strongroom]
# memory = "64M"
# ///
"""A certificate authority, a leaf, and a TLS 1.3 connection between the two sides of a socket pair."""

import datetime
import os
import socket
import ssl
import tempfile
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509.verification import PolicyBuilder, Store

now = datetime.datetime.now(datetime.UTC)


def make(name, issuer=None, issuer_key=None):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    ca = issuer is None
    usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key((issuer_key or key).public_key()),
            critical=False,
        )
        .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    return key, builder.sign(issuer_key or key, hashes.SHA256())


ca_key, ca = make("authority.test")
key, leaf = make("server.test", ca, ca_key)
verifier = PolicyBuilder().store(Store([ca])).build_server_verifier(x509.DNSName("server.test"))
print("chain", len(verifier.verify(leaf, [])))

pem = serialization.Encoding.PEM
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "server.pem")
    with open(path, "wb") as file:
        private = serialization.PrivateFormat.PKCS8
        file.write(key.private_bytes(pem, private, serialization.NoEncryption()) + leaf.public_bytes(pem))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(path)
client = ssl.create_default_context(cadata=ca.public_bytes(pem).decode())
near, far = socket.socketpair()


def serve():
    with server.wrap_socket(far, server_side=True) as one:
        one.sendall(one.recv(100).upper())


thread = threading.Thread(target=serve)
thread.start()
with client.wrap_socket(near, server_hostname="server.test") as one:
    one.sendall(b"records")
    print(one.version(), one.cipher()[0], one.recv(100))
thread.join()
secret = AESGCM(bytes(32)).encrypt(bytes(12), b"records", b"")
print(secret.hex(), AESGCM(bytes(32)).decrypt(bytes(12), secret, b""))
