# /// script
# dependencies = ["PyNaCl", "argon2-cffi"]
# [tool.strongroom]
# memory = "192M"
# threads = 6
# [tool.conformance]
# note = "its callbacks are not used here; Argon2 takes 64 MiB and 4 threads"
# ///
"""libsodium's boxes and signatures; Argon2 with its own threads and 64 MiB (both by cffi)."""

import argon2
import nacl.exceptions
import nacl.pwhash
import nacl.secret
import nacl.signing
from nacl.public import PrivateKey, SealedBox

key = PrivateKey.generate()
print(SealedBox(key).decrypt(SealedBox(key.public_key).encrypt(b"records")))
sign = nacl.signing.SigningKey(bytes(32))
print(sign.sign(b"records").signature.hex()[:32])
try:
    sign.verify_key.verify(b"recordz", sign.sign(b"records").signature)
except nacl.exceptions.BadSignatureError as error:
    print(error)
print(nacl.pwhash.argon2id.kdf(32, b"password", bytes(16), opslimit=1, memlimit=8192).hex())
low = argon2.low_level
print(low.hash_secret_raw(b"password", bytes(16), 2, 65536, 4, 32, argon2.Type.ID).hex())
hasher = argon2.PasswordHasher()
print(hasher.verify(hasher.hash("password"), "password"))
