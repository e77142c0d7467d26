# /// script
# dependencies = ["pycryptodome", "zstandard", "lz4", "regex", "PyJWT", "bcrypt", "aiosqlite"]
# [tool.strongroom]
# memory = "64M"
# threads = 8
# ///
"""pycryptodome, zstandard, lz4, regex, PyJWT, bcrypt, aiosqlite: in one program."""

import asyncio

import aiosqlite
import bcrypt
import jwt
import lz4.frame
import regex
import zstandard
from Crypto.Cipher import AES
from Crypto.Hash import SHA3_256

cipher = AES.new(bytes(16), AES.MODE_GCM, nonce=bytes(12))
print(cipher.encrypt(b"records").hex(), SHA3_256.new(b"records").hexdigest()[:16])
data = b"records " * 10_000
print(zstandard.decompress(zstandard.ZstdCompressor(threads=2).compress(data)) == data)
print(lz4.frame.decompress(lz4.frame.compress(data)) == data)
print(regex.findall(r"\p{Lu}\p{Ll}+", "Ada wrote to Grace"))
token = jwt.encode({"sub": "ada"}, "k" * 32, algorithm="HS256")
print(jwt.decode(token, "k" * 32, algorithms=["HS256"]))
print(bcrypt.checkpw(b"password", bcrypt.hashpw(b"password", bcrypt.gensalt(4))))


async def count():
    async with aiosqlite.connect(":memory:") as database:
        await database.execute("create table t (n)")
        await database.executemany("insert into t values (?)", [(n,) for n in range(100)])
        async with database.execute("select sum(n) from t") as rows:
            return await rows.fetchone()


print(asyncio.run(count()))
