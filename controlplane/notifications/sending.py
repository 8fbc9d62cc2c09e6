"""One delivery attempt, limited to `PATIENCE_S` whatever the receiver does.

It runs on its own event loop and does not use the database. A receiver that does not answer, sends byte by byte or
sends endlessly delays only its own delivery.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache, partial

import httpx
from django.core.mail import EmailMessage

from controlplane.notifications import destinations

PATIENCE_S = 10.0  # for the whole attempt: name resolution, connection, TLS, response
READ_BYTES = 4_096  # the most read of a response
KEPT = 500  # characters of the response that are kept for display
USER_AGENT = "Pointsman-Notifications/1"
# Threads for name lookups and mail, which nobody waits for longer than PATIENCE_S.
_threads = ThreadPoolExecutor(16, thread_name_prefix="notify")


@dataclass(frozen=True, slots=True)
class Post:
    """An HTTP request to send."""

    url: str
    headers: dict[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Mail:
    to: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an attempt. `final` means that retrying is useless. `status` is the HTTP status, if there was a
    response."""

    delivered: bool
    answer: str
    status: int | None = None
    retry_after: int | None = None  # seconds, as requested by the receiver
    final: bool = False


async def attempt(message: Post | Mail) -> Outcome:
    """Send the message. Never raises, and ends within `PATIENCE_S`."""
    send: Callable[[], Awaitable[Outcome]] = (
        partial(_post, message) if isinstance(message, Post) else partial(_mail, message)
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await send()
    except TimeoutError:
        return Outcome(False, f"no complete answer within {PATIENCE_S:g} s")
    except destinations.DestinationRefused as error:
        return Outcome(False, error.detail)
    except Exception as error:  # any error of httpx, ssl or smtplib is this delivery's result
        return Outcome(False, f"{type(error).__name__}: {error}"[:KEPT])


async def _post(message: Post) -> Outcome:
    destination = destinations.read(message.url)
    loop = asyncio.get_running_loop()
    address = await loop.run_in_executor(_threads, destinations.resolved, destination)
    headers = {**message.headers, "host": destination.authority, "user-agent": USER_AGENT}
    request = httpx.Request(
        "POST",
        destination.at(address),
        headers=headers,
        content=message.content,
        # Verify the certificate for the name, although the connection goes to an IP address.
        extensions={
            "sni_hostname": destination.host,
            "timeout": dict.fromkeys(("connect", "read", "write", "pool"), PATIENCE_S),
        },
    )
    # A new transport: no proxy from the environment, no redirects, no cookies, no reused connections.
    async with httpx.AsyncHTTPTransport(verify=_tls(), retries=0) as transport:
        response = await transport.handle_async_request(request)
        try:
            return _outcome(response, await _beginning(response))
        finally:
            await response.aclose()


async def _beginning(response: httpx.Response) -> str:
    """Return the beginning of the response. Reads raw bytes: a compressed body could expand a thousandfold."""
    held = b""
    async for piece in response.aiter_raw():
        held += piece
        if len(held) >= READ_BYTES:
            break
    return held[:READ_BYTES].decode("utf-8", "replace").replace("\0", "\ufffd")[:KEPT]


def _outcome(response: httpx.Response, beginning: str) -> Outcome:
    status = response.status_code
    if 200 <= status < 300:
        return Outcome(True, beginning, status)
    if 300 <= status < 400:
        return Outcome(False, "It redirects, and redirects are not followed: use the final address.", status)
    # 410: the receiver wants no more messages (Standard Webhooks).
    return Outcome(False, beginning, status, _retry_after(response), final=status == 410)


def _retry_after(response: httpx.Response) -> int | None:
    value = response.headers.get("retry-after", "")
    if value.isdigit():
        return int(value[:6])
    try:
        at, now = parsedate_to_datetime(value), parsedate_to_datetime(response.headers["date"])
        return max(0, int((at - now).total_seconds()))
    except (KeyError, ValueError, TypeError):
        return None


async def _mail(message: Mail) -> Outcome:
    mail = EmailMessage(message.subject, message.text, to=[message.to])
    await asyncio.get_running_loop().run_in_executor(_threads, mail.send)
    return Outcome(True, "handed to the mail server")


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)
