"""One attempt to deliver, from beginning to end within `PATIENCE_S`, whatever the receiver does.

It runs on an event loop of its own and touches no database. A receiver that does not answer, drips bytes or answers
without end costs its own time and nobody else's.
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

PATIENCE_S = 10.0  # for all of an attempt: name, connection, TLS, answer
READ_BYTES = 4_096  # of an answer; more is not asked for
KEPT = 500  # characters of it that are shown
USER_AGENT = "Pointsman-Notifications/1"
# Names are looked up, and mail is sent, in threads that nobody waits for longer than PATIENCE_S.
_threads = ThreadPoolExecutor(16, thread_name_prefix="notify")


@dataclass(frozen=True, slots=True)
class Post:
    """What is sent to an address by HTTP."""

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
    """`delivered`; `final`: to try again is no use. `status` is HTTP's, where there was an answer."""

    delivered: bool
    answer: str
    status: int | None = None
    retry_after: int | None = None  # seconds, as the receiver asks
    final: bool = False


async def attempt(message: Post | Mail) -> Outcome:
    """Never raises, and ends within `PATIENCE_S`."""
    send: Callable[[], Awaitable[Outcome]] = (
        partial(_post, message) if isinstance(message, Post) else partial(_mail, message)
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await send()
    except TimeoutError:
        return Outcome(False, f"no whole answer within {PATIENCE_S:g} s")
    except destinations.DestinationRefused as error:
        return Outcome(False, error.detail)
    except Exception as error:  # httpx's, ssl's, smtplib's: whatever it is, it is this delivery's answer
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
        # The certificate must be the name's, though the connection is to a number.
        extensions={
            "sni_hostname": destination.host,
            "timeout": dict.fromkeys(("connect", "read", "write", "pool"), PATIENCE_S),
        },
    )
    # Its own transport: no proxy of the environment, no redirect, no cookie, no connection that is used again.
    async with httpx.AsyncHTTPTransport(verify=_tls(), retries=0) as transport:
        response = await transport.handle_async_request(request)
        try:
            return _outcome(response, await _beginning(response))
        finally:
            await response.aclose()


async def _beginning(response: httpx.Response) -> str:
    """Raw bytes: a compressed answer could be a thousand times its size."""
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
        return Outcome(False, "It redirects, and redirects are not followed: give its last address.", status)
    # 410: the receiver wants no more of it (Standard Webhooks).
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
