"""Reads request bodies, bounded in size, in time, and in what all of them hold together."""

import asyncio

from controlplane.core.errors import BodyTooLarge, MalformedBody, TooMany
from controlplane.web.replies import Request

PATIENCE_S = 30.0  # for a whole body; a router on a slow line sends 1 MiB within it at 35 kB/s
HELD_BYTES = 128 * 1024 * 1024  # of all bodies that are being read at once


class Bodies:
    """The bodies that one process is reading."""

    def __init__(self) -> None:
        self._held = 0

    async def read(self, request: Request, limit: int) -> bytes:
        """The body. Raises `BodyTooLarge`, `MalformedBody` (it came too slowly), `TooMany`, and when the
        sender hangs up `ConnectionResetError`."""
        declared = request.headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > limit:
            raise _too_large(limit)
        if request.headers.get(b"content-encoding", b"identity") != b"identity":
            raise MalformedBody("Send the body uncompressed.")
        held, more = 0, True
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(PATIENCE_S):
                while more:
                    piece, more = await request.piece()
                    pieces.append(piece)
                    held += len(piece)
                    self._held += len(piece)
                    if held > limit:
                        raise _too_large(limit)
                    if self._held > HELD_BYTES:
                        raise TooMany("Too many bodies are being read at once.", retry_after=2)
                return b"".join(pieces)
        except TimeoutError:
            raise MalformedBody(f"The body did not arrive within {PATIENCE_S:.0f} seconds.") from None
        finally:
            self._held -= held


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body may be {limit} bytes at most; send it in several.", limit=limit)
