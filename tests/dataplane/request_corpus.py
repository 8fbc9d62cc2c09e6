"""Requests whose end could be read in two ways (request smuggling), and how RFC 9112 reads each.

Each is followed by another request in the same bytes, `NEXT`. A server that misreads the first takes part of its body
for a request, or the next request for a body. `reads` are the requests according to the RFC, as (method, path, body);
None means that there is none, and the server must refuse. A server may always answer 4xx and close the connection.
"""

from typing import NamedTuple

Read = tuple[str, str, bytes]

NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
THE_NEXT: Read = ("GET", "/next", b"")
_POST = b"POST /body HTTP/1.1\r\nHost: a\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"


class Case(NamedTuple):
    name: str
    section: str  # section of RFC 9112
    data: bytes
    reads: list[Read] | None


def _body(body: bytes, *, ends: bool = False) -> list[Read]:
    first: Read = ("POST", "/body", body)
    return [first] if ends else [first, THE_NEXT]


def _length(value: bytes, body: bytes, reads: list[Read] | None) -> tuple[bytes, list[Read] | None]:
    return _POST + b"Content-Length: " + value + b"\r\n\r\n" + body + NEXT, reads


def _coded(value: bytes, reads: list[Read] | None) -> tuple[bytes, list[Read] | None]:
    return _POST + b"Transfer-Encoding: " + value + b"\r\n\r\n0\r\n\r\n" + NEXT, reads


def _chunks(chunks: bytes, reads: list[Read] | None) -> tuple[bytes, list[Read] | None]:
    return _CHUNKED + chunks + NEXT, reads


def _field(line: bytes, reads: list[Read] | None) -> tuple[bytes, list[Read] | None]:
    return _POST + line + b"\r\nContent-Length: 0\r\n\r\n" + NEXT, reads


def _line(line: bytes, reads: list[Read] | None) -> tuple[bytes, list[Read] | None]:
    return line + b"\r\nHost: a\r\n\r\n" + NEXT, reads


_GET: list[Read] = [("GET", "/body", b""), THE_NEXT]
_BOTH = b"Content-Length: 4\r\n", b"Transfer-Encoding: chunked\r\n"
_LENGTHS = b"Content-Length: 3\r\n"

CASES = [
    Case(name, section, *built)
    for name, section, built in [
        # Both framings: the chunked one applies, and the connection ends (6.1).
        ("length, then chunked", "6.1", (_POST + _BOTH[0] + _BOTH[1] + b"\r\n0\r\n\r\n" + NEXT, _body(b"", ends=True))),
        ("chunked, then length", "6.1", (_POST + _BOTH[1] + _BOTH[0] + b"\r\n0\r\n\r\n" + NEXT, _body(b"", ends=True))),
        # Content-Length.
        ("two lengths, alike", "6.3", (_POST + _LENGTHS * 2 + b"\r\nabc" + NEXT, _body(b"abc"))),
        ("two lengths", "6.3", (_POST + b"Content-Length: 0\r\nContent-Length: 31\r\n\r\n" + NEXT, None)),
        ("a list of lengths, alike", "6.3", _length(b"3, 3", b"abc", _body(b"abc"))),
        ("a list of lengths", "6.3", _length(b"3, 4", b"abc", None)),
        ("a length with a sign", "6.2", _length(b"+3", b"abc", None)),
        ("a negative length", "6.2", _length(b"-1", b"abc", None)),
        ("a length in hexadecimal", "6.2", _length(b"0x3", b"abc", None)),
        ("a length with an underscore", "6.2", _length(b"1_0", b"abc", None)),
        ("a length with a space in it", "6.2", _length(b"1 0", b"abc", None)),
        ("an empty length", "6.2", _length(b"", b"", None)),
        ("a length beyond 64 bits", "6.2", _length(b"9" * 30, b"abc", None)),
        # Transfer-Encoding.
        ("chunked, in capitals", "6.1", _coded(b"CHUNKED", _body(b""))),
        ("identity", "6.1", _coded(b"identity", None)),
        ("gzip without chunked", "6.1", _coded(b"gzip", None)),
        ("gzip, which nobody decodes", "6.1", _coded(b"gzip, chunked", None)),
        ("chunked and then gzip", "6.1", _coded(b"chunked, gzip", None)),
        ("chunked twice in a list", "6.1", _coded(b"chunked, chunked", None)),
        ("chunked twice", "6.1", _coded(b"chunked\r\nTransfer-Encoding: chunked", None)),
        ("chunked, then identity", "6.1", _coded(b"chunked\r\nTransfer-Encoding: identity", None)),
        ("not quite chunked", "6.1", _coded(b"xchunked\r\nContent-Length: 5", None)),
        ("chunked behind a vertical tab", "6.1", _coded(b"\x0bchunked\r\nContent-Length: 5", None)),
        ("chunked in quotes", "6.1", _coded(b'"chunked"', None)),
        (
            "chunked in HTTP/1.0",
            "6.1",
            (b"POST /body HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + NEXT, None),
        ),
        # Chunks.
        ("chunks", "7.1", _chunks(b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n", _body(b"abcdefg"))),
        ("a chunk's extension", "7.1.1", _chunks(b"3;a=b\r\nabc\r\n0\r\n\r\n", _body(b"abc"))),
        ("a line feed in an extension", "7.1.1", _chunks(b"3;a\nabc\r\n0\r\n\r\n", None)),
        ("a carriage return in an extension", "7.1.1", _chunks(b"3;a\rabc\r\n0\r\n\r\n", None)),
        ("chunks ended by bare line feeds", "7.1", _chunks(b"3\nabc\n0\n\n", None)),
        ("a chunk's size with 0x", "7.1", _chunks(b"0x3\r\nabc\r\n0\r\n\r\n", None)),
        ("a negative chunk", "7.1", _chunks(b"-3\r\nabc\r\n0\r\n\r\n", None)),
        ("a chunk's size with a sign", "7.1", _chunks(b"+3\r\nabc\r\n0\r\n\r\n", None)),
        ("a chunk's size with an underscore", "7.1", _chunks(b"0_3\r\nabc\r\n0\r\n\r\n", None)),
        ("a chunk's size beyond 64 bits", "7.1", _chunks(b"10000000000000003\r\nabc\r\n0\r\n\r\n", None)),
        ("a chunk longer than its size", "7.1", _chunks(b"3\r\nabcd\r\n0\r\n\r\n", None)),
        ("a chunk without a size", "7.1", _chunks(b"\r\nabc\r\n0\r\n\r\n", None)),
        ("a length among the trailers", "7.1.2", _chunks(b"0\r\nContent-Length: 31\r\n\r\n", _body(b""))),
        # Header lines.
        ("a space before the colon", "5.1", _field(b"X : a", None)),
        (
            "a space before the colon of an encoding",
            "5.1",
            _field(b"Transfer-Encoding : chunked", None),
        ),
        ("a line that is folded", "5.2", _field(b"X: a\r\n b", None)),
        ("an encoding that is folded", "5.2", _field(b"Transfer-Encoding:\r\n chunked", None)),
        ("a folded line before any other", "2.2", (b"POST /body HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n" + NEXT, None)),
        ("a carriage return in a value", "2.2", _field(b"X: a\rContent-Length: 31", None)),
        ("a NUL in a value", "5", _field(b"X: a\x00b", None)),
        ("a control character in a name", "5.1", _field(b"X\x01: a", None)),
        ("a line without a name", "5.1", _field(b": a", None)),
        ("a line without a colon", "5.1", _field(b"X", None)),
        # A recipient may accept a bare line feed as the end of a line, and nothing else.
        (
            "bare line feeds",
            "2.2",
            (b"POST /body HTTP/1.1\nHost: a\nContent-Length: 0\n\n" + NEXT, _body(b"")),
        ),
        # The request line and the host.
        ("an empty line in front", "2.2", (b"\r\nGET /body HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT, _GET)),
        ("a space in front", "3", _line(b" GET /body HTTP/1.1", None)),
        ("two spaces", "3", _line(b"GET  /body HTTP/1.1", None)),
        ("tabs", "3", _line(b"GET\t/body\tHTTP/1.1", None)),
        ("a space in the path", "3.2", _line(b"GET /bo dy HTTP/1.1", None)),
        ("a control character in the path", "3.2", _line(b"GET /bo\x01dy HTTP/1.1", None)),
        ("HTTP/0.9", "2.3", (b"GET /body\r\n\r\n" + NEXT, None)),
        ("HTTP/1.2", "2.3", _line(b"GET /body HTTP/1.2", None)),
        ("HTTP/2 unasked", "2.3", (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + NEXT, None)),
        ("small letters", "2.3", _line(b"GET /body http/1.1", None)),
        ("no host", "3.2", (b"GET /body HTTP/1.1\r\n\r\n" + NEXT, None)),
        ("two hosts", "3.2", (b"GET /body HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + NEXT, None)),
        (
            "a body behind GET",
            "6",
            (
                b"GET /body HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + NEXT,
                [("GET", "/body", b"abc"), THE_NEXT],
            ),
        ),
        # A protocol upgrade is offered and ignored: the body is still a body.
        (
            "an upgrade to HTTP/2",
            "7.8 of RFC 9110",
            (
                _POST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
                b"Content-Length: 5\r\n\r\nhello" + NEXT,
                _body(b"hello"),
            ),
        ),
        (
            "an upgrade to WebSocket",
            "7.8 of RFC 9110",
            (
                _POST + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: 5\r\n\r\nhello" + NEXT,
                _body(b"hello"),
            ),
        ),
        (
            "nothing may follow",
            "9.6",
            (b"GET /body HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + NEXT, [("GET", "/body", b"")]),
        ),
    ]
]  # fmt: skip
