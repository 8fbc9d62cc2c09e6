"""Read request bodies with limits on size, time, and total memory."""

import asyncio
from collections.abc import Hashable

from controlplane.core.errors import BodyTooLarge, MalformedBody, TooMany
from controlplane.web.replies import Request
from controlplane.web.shares import Shared

PATIENCE_S = 30.0  # for a whole body: enough for 1 MiB at 35 kB/s
HELD_BYTES = 128 * 1024 * 1024  # limit for all bodies being read at once


class Bodies:
    """The bodies that one process is reading."""

    def __init__(self) -> None:
        self._held = Shared()

    async def read(self, request: Request, limit: int, sender: Hashable) -> bytes:
        """Return the body. Raises `BodyTooLarge`, `MalformedBody` (too slow), `TooMany`, or `ConnectionResetError`
        when the sender hangs up.

        `sender` is its key, or its address before it is authenticated: many bodies that never end must not use up
        the memory for everybody else's.
        """
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
                    self._held.take(sender, len(piece))
                    if held > limit:
                        raise _too_large(limit)
                    if not self._held.has_room(sender, most=HELD_BYTES, small=limit):
                        raise TooMany("Too many request bodies are being read at once.", retry_after=2)
                return b"".join(pieces)
        except TimeoutError:
            raise MalformedBody(f"The body did not arrive within {PATIENCE_S:.0f} seconds.") from None
        finally:
            self._held.give_back(sender, held)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"The body may have at most {limit} bytes; split it into several requests.", limit=limit
    )
