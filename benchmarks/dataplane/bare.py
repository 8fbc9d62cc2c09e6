"""The limit: an application that answers from memory and does nothing else, on the gateway's server.

`/<n>` is a body of n bytes, or 304 if the tag matches; `/hold` waits until the client disconnects.
"""

from functools import cache
from typing import Any

TAG = '"limit"'
HEADERS = [("etag", TAG), ("cache-control", "private, max-age=1")]
RAW = [(name.encode(), value.encode()) for name, value in HEADERS]
UNCHANGED = {"type": "http.response.start", "status": 304, "headers": RAW}
NOTHING = {"type": "http.response.body", "body": b""}


@cache
def whole(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    size = int(path[1:] or 0)
    headers = [*RAW, (b"content-type", b"application/json"), (b"content-length", b"%d" % size)]
    return (
        {"type": "http.response.start", "status": 200, "headers": headers},
        {"type": "http.response.body", "body": b"x" * size},
    )


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for moment in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{moment}.complete"})
        return
    if scope["path"] == "/hold":
        while (await receive())["type"] != "http.disconnect":
            pass
    if dict(scope["headers"]).get(b"if-none-match") == RAW[0][1]:
        start, body = UNCHANGED, NOTHING
    else:
        start, body = whole(scope["path"])
    await send(start)
    await send(body)


async def rsgi(scope: Any, protocol: Any) -> None:
    """Serve the same with granian's own interface, RSGI."""
    if scope.headers.get("if-none-match") == TAG:
        protocol.response_empty(304, HEADERS)
    else:
        body = whole(scope.path)[1]["body"]
        protocol.response_bytes(200, [*HEADERS, ("content-type", "application/json")], body)
