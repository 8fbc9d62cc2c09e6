"""The limit: what answers from memory and does nothing else, behind the door that the gateway has.

`/<n>` is a body of n bytes, or 304 to whoever holds its tag; `/hold` waits until the client hangs up.

    python -m benchmarks.dataplane.bare <port> [module:application]
"""

import asyncio
import os
import socket
import sys
from collections.abc import Coroutine
from functools import cache
from importlib import import_module
from typing import Any

import django
import uvloop

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
django.setup(set_prefix=False)

from controlplane.server.http1 import Door  # noqa: E402 — needs the settings
from controlplane.web.replies import Reply, Request  # noqa: E402

TAG = b'"limit"'
HEADERS = [(b"etag", TAG), (b"cache-control", b"private, max-age=1")]
UNCHANGED = Reply(304, HEADERS)


@cache
def whole(path: str) -> Reply:
    return Reply(200, [*HEADERS, (b"content-type", b"application/json")], b"x" * int(path[1:] or 0))


async def held(request: Request) -> Reply:
    gone = asyncio.Event()
    request.line.when_gone(gone.set)
    await gone.wait()
    return UNCHANGED


def application(request: Request) -> Reply | Coroutine[Any, Any, Reply]:
    if request.path == "/hold":
        return held(request)
    return UNCHANGED if request.headers.get(b"if-none-match") == TAG else whole(request.path)


async def serve(port: int, name: str) -> None:
    module, _, attribute = name.partition(":")
    listener = socket.create_server(("127.0.0.1", port), backlog=4_096)
    await Door(getattr(import_module(module), attribute)).open(listener)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), (sys.argv[2:] or ["benchmarks.dataplane.bare:application"])[0]))
