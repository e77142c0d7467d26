# /// script
# dependencies = ["fastapi", "uvicorn"]
# [tool.strongroom]
# memory = "96M"
# network = true
# args = true
# [tool.conformance]
# note = "each ordinary function that answers takes a thread, up to 40 at once; `async` ones none"
# calls = [
#     ["GET", "/health", ""], ["POST", "/score", '{"values": [1.5, 2]}'], ["POST", "/score", "{}"],
#     ["GET", "/slow", ""], ["POST", "/stop", ""],
# ]
# ///
"""A service that is called from outside: one answer by a coroutine, one by a worker thread, one refused."""

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Values(BaseModel):
    values: list[float]


@app.get("/health")
async def health() -> dict[str, bool]:
    return {"ok": True}


@app.post("/score")
async def score(given: Values) -> dict[str, float]:
    return {"score": sum(given.values)}


@app.get("/slow")
def slow() -> dict[str, int]:
    return {"sum": sum(range(100_000))}


@app.post("/stop")
async def stop() -> None:
    server.should_exit = True


server = uvicorn.Server(uvicorn.Config(app, port=int(sys.argv[1]), log_level="warning"))
server.run()
print("stopped")
