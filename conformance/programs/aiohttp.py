# /// script
# dependencies = ["aiohttp", "uvloop"]
# [tool.strongroom]
# memory = "96M"
# threads = 8
# network = true
# ///
"""A server and its clients on uvloop's event loop: JSON, a stream, a web socket."""

import asyncio

import aiohttp
import uvloop
from aiohttp import web


async def double(request):
    return web.json_response({"twice": 2 * (await request.json())["number"]})


async def stream(request):
    response = web.StreamResponse()
    await response.prepare(request)
    for number in range(100):
        await response.write(bytes([number]) * 1000)
    return response


async def echo(request):
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data.upper())
    return socket


async def main():
    app = web.Application()
    app.add_routes([web.post("/double", double), web.get("/stream", stream), web.get("/echo", echo)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession() as session:

        async def one(number):
            async with session.post(f"{url}/double", json={"number": number}) as answer:
                return (await answer.json())["twice"]

        print("double", sum(await asyncio.gather(*map(one, range(50)))))
        async with session.get(f"{url}/stream") as answer:
            print("stream", len(await answer.read()))
        async with session.ws_connect(f"{url}/echo") as socket:
            await socket.send_str("records")
            print("web socket", await socket.receive_str())
    await runner.cleanup()
    print(type(asyncio.get_running_loop()).__module__)


uvloop.run(main())
