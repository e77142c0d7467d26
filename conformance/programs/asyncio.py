# /// script
# dependencies = []
# [tool.strongroom]
# memory = "64M"
# threads = 12
# network = true
# [tool.conformance]
# note = "asyncio.to_thread starts processors + 4 threads"
# ///
"""asyncio in earnest: hundreds of tasks, streams on loopback, a queue, time limits, threads, a log in a file."""

import asyncio
import contextlib
import logging
import logging.handlers
import os
import tempfile

folder = tempfile.mkdtemp()
log = logging.getLogger("guest")
log.setLevel(logging.INFO)
log.addHandler(
    logging.handlers.RotatingFileHandler(os.path.join(folder, "log"), maxBytes=20_000, backupCount=3)
)


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def client(port, number):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = bytes([number]) * 100_000
    writer.write(body)
    got = await reader.readexactly(len(body))
    writer.close()
    log.info("client %d is done", number)
    return got == body


async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print("clients", sum(await asyncio.gather(*(client(port, n) for n in range(50)))))
    queue = asyncio.Queue(10)
    total = 0

    async def take():
        nonlocal total
        while True:
            total += await queue.get()
            queue.task_done()

    takers = [asyncio.create_task(take()) for _ in range(20)]
    for number in range(2000):
        await queue.put(number)
    await queue.join()
    for one in takers:
        one.cancel()
    print("queue", total)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await asyncio.sleep(10)
            print("never")
    print("threads", sum(await asyncio.gather(*(asyncio.to_thread(len, "abc") for _ in range(20)))))
    server.close()
    await server.wait_closed()


asyncio.run(main())
for number in range(1000):
    log.info("line %d", number)
logging.shutdown()
print("logs", sorted(os.listdir(folder)))
