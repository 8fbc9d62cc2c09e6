"""One delivery attempt, limited to `PATIENCE_S` (mail: `MAIL_PATIENCE_S`) whatever the receiver does.

It runs on its own event loop and does not use the database. A receiver that does not answer, sends byte by byte or
sends endlessly delays only its own delivery.
"""

import asyncio
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache, partial
from typing import Any, TypeVar

import httpx
from django.core.mail import EmailMessage, get_connection
from django.core.mail.backends.smtp import EmailBackend

from controlplane.notifications import destinations

PATIENCE_S = 10.0  # for the whole attempt: name resolution, connection, TLS, response
# Mail servers check a message before they answer. Shorter than a claim (`delivery.CLAIMED_S`): after that, another
# process would send the same mail.
MAIL_PATIENCE_S = 45.0
READ_BYTES = 4_096  # the most read of a response
KEPT = 500  # characters of the response that are kept for display
USER_AGENT = "Pointsman-Notifications/1"
T = TypeVar("T")


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
    """The result of an attempt. `final` means that retrying is useless, `unknown` that the receiver may have the
    message. `status` is the HTTP status, if there was a response."""

    delivered: bool
    answer: str
    status: int | None = None
    retry_after: int | None = None  # seconds, as requested by the receiver
    final: bool = False
    unknown: bool = False


async def attempt(message: Post | Mail) -> Outcome:
    """Send the message. Never raises, and ends within its time limit."""
    try:
        if isinstance(message, Mail):
            return await _mail(message)
        async with asyncio.timeout(PATIENCE_S):
            return await _post(message)
    except TimeoutError:
        return Outcome(False, f"no complete answer within {PATIENCE_S:g} s")
    except destinations.DestinationRefused as error:
        return Outcome(False, error.detail)
    except Exception as error:  # any error of httpx, ssl or smtplib is this delivery's result
        return Outcome(False, f"{type(error).__name__}: {error}"[:KEPT])


async def _post(message: Post) -> Outcome:
    destination = destinations.read(message.url)
    address = await _in_a_thread(lambda: destinations.resolved(destination), "notify-lookup")
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


async def _in_a_thread(work: Callable[[], T], name: str) -> T:
    """Run work that blocks in a thread of its own.

    An attempt that has given up leaves the thread behind, so a pool would fill up, and an executor's threads would
    keep the process from ending. A lookup ends with the resolver's own limits, mail when its connection is ended.
    """
    done: Future[T] = Future()

    def run() -> None:
        if not done.set_running_or_notify_cancel():
            return
        try:
            result = work()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await asyncio.wrap_future(done)


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


# --- mail -----------------------------------------------------------------------------------------------


async def _mail(message: Mail) -> Outcome:
    """Hand the mail over. The connection is ended after `MAIL_PATIENCE_S`, so that its thread ends, too."""
    line = Line()
    try:
        async with asyncio.timeout(MAIL_PATIENCE_S):
            await _in_a_thread(lambda: _send(message, line), "notify-mail")
    except Exception as error:
        if line.is_accepted:  # what fails afterwards is only the goodbye
            pass
        elif line.is_unknown:
            why = str(error) or f"no answer within {MAIL_PATIENCE_S:g} s"
            answer = f"The mail server got the message, but did not confirm it: {why}"
            return Outcome(False, answer[:KEPT], unknown=True)
        elif isinstance(error, TimeoutError):
            return Outcome(False, f"no complete answer within {MAIL_PATIENCE_S:g} s")
        else:
            raise
    finally:
        line.cut()
    return Outcome(True, "handed to the mail server")


class Line:
    """One connection to the mail server, which another thread can end, and what is known about the message.

    `EMAIL_TIMEOUT` limits each wait for the server, not all of them: one that sends a byte now and then would keep the
    thread for ever.

    `is_accepted`: the server took it over. `is_unknown`: it may have got the whole message, but has not answered.
    """

    def __init__(self) -> None:
        self.is_accepted = self.is_unknown = False
        self._is_cut = False
        self._smtp: smtplib.SMTP | None = None

    def cut(self) -> None:
        """End the connection, so that the thread that sends ends too. Any thread may call this, at any time."""
        self._is_cut = True  # for a connection that is just being made
        held = None if self._smtp is None else self._smtp.sock
        if held is not None:
            with suppress(OSError):
                # Not the method of an SSL socket: that would take its state away from the thread that reads.
                socket.socket.shutdown(held, socket.SHUT_RDWR)

    def hold(self, smtp: smtplib.SMTP) -> None:
        self._smtp = smtp

    def check(self) -> None:
        if self._is_cut:
            raise smtplib.SMTPServerDisconnected("Given up.")


def _send(mail: Mail, line: Line) -> None:
    """Hand it to the mail server. Raises what Django's backend raises. One without SMTP (in tests) uses no line."""
    backend = get_connection()
    if isinstance(backend, EmailBackend):
        backend = _Backend(line)
    EmailMessage(mail.subject, mail.text, to=[mail.to], connection=backend).send()


class _Backend(EmailBackend):
    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    @property
    def connection_class(self) -> Any:
        return partial(_TlsConnection if self.use_ssl else _Connection, self._line)


class _Connection(smtplib.SMTP):
    def __init__(self, line: Line, *given: Any, **named: Any) -> None:
        self._line = line
        line.hold(self)
        super().__init__(*given, **named)  # connects

    def getreply(self) -> tuple[int, bytes]:
        self._line.check()
        code, answer = super().getreply()
        if code == 354:  # "go on": from now until its answer, nobody knows whether it has the message
            self._line.is_unknown = True
        return code, answer

    def data(self, msg: Any) -> tuple[int, bytes]:
        code, answer = super().data(msg)
        self._line.is_unknown = code < 0  # something that is no answer
        self._line.is_accepted = code == 250
        return code, answer


class _TlsConnection(_Connection, smtplib.SMTP_SSL):
    pass
