"""The limit: an ASGI application that answers from memory and does nothing else.

`/<n>` is a body of n bytes, or 304 to whoever holds its tag; `/hold` waits until the client hangs up.
"""

from functools import cache
from typing import Any

TAG = b'"limit"'
HEADERS = [(b"etag", TAG), (b"cache-control", b"private, max-age=1")]
UNCHANGED = {"type": "http.response.start", "status": 304, "headers": HEADERS}
NOTHING = {"type": "http.response.body", "body": b""}


@cache
def whole(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    size = int(path[1:] or 0)
    headers = [*HEADERS, (b"content-type", b"application/json"), (b"content-length", b"%d" % size)]
    return (
        {"type": "http.response.start", "status": 200, "headers": headers},
        {"type": "http.response.body", "body": b"x" * size},
    )


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for moment in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{moment}.complete"})
    elif scope["path"] == "/hold":
        while (await receive())["type"] != "http.disconnect":
            pass
    elif dict(scope["headers"]).get(b"if-none-match") == TAG:
        await send(UNCHANGED)
        await send(NOTHING)
    else:
        start, body = whole(scope["path"])
        await send(start)
        await send(body)
