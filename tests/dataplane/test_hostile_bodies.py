"""Router endpoints with bodies that no router sends: a 4xx problem with the reason, never a 500, nothing counted."""

from __future__ import annotations

import gzip
import http.client
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.plane import Plane, Served

ENDPOINTS = {
    "/router/v1/outcomes": b"buckets",
    "/router/v1/events": b"events",
    "/router/v1/feedback": b"feedback",
    "/router/v1/samples": b"inputs",
    "/router/v1/acks": b"workloads",
    "/ofrep/v1/evaluate/flags": b"context",
    "/ofrep/v1/evaluate/flags/x": b"context",
}
# Replaces the expected list; `@` is the list's name.
SHAPES = [
    b'{"@":[{"at":1}', b'{"@":[{"at":1}]', b'{"@":[{"at":1}]}', b'{"@":[{"at":1},', b'{"@":[', b'{"@":', b'{"@"', b"{",
    b'{"@":[1,{"at":1}', b'{"@":[{"at":"\\ud800"}]}', b'{"@":[{"at":"\\u0000"}]}', b'{"@":[{"at":NaN}]}',
    b'{"@":[{"at":1e999}]}', b'{"@":[{"at":' + b"9" * 5000 + b"}]}", b'{"@":[{"at":-0.0}]}', b'{"@":{}}', b'{"@":null}',
    b'{"@":[[]]}', b'{"@":[null]}', b'{"@":"x"}', b'{"@":[{"at":1,"at":2}]}',
    b'{"@":[' + b"[" * 900,
    b'{"@":' + b"[" * 50_000 + b"]" * 50_000 + b"}", b'{"@":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}",
    b'{"@":[' + b"0," * 20_000 + b"0]}", b'{"@":[{"at":"' + b"x" * 10_000 + b'"}]}',
    b'{"\xff":1}', b'{"@":["\xff\xfe"]}',
    b'{"@":[]} {}', b'\xef\xbb\xbf{"@":[]}', b'"@"', b"[]", b"1", b"null", b"", b" ", b"\0", b"\xff\xfe", b"@=1&b=2",
    gzip.compress(b"0" * 500_000), b'{"@":[{"at":"2026-13-45T99:99:99Z"}]}',
    b'{"@":[{"minute":"0001-01-01T00:00:00Z"}]}',
]  # fmt: skip
ODD_HEADERS: list[dict[str, str]] = [
    {"content_type": "text/plain"}, {"content_type": "application/x-www-form-urlencoded"}, {"content_type": ""},
    {"content_encoding": "gzip"}, {"content_encoding": "br"}, {"if_none_match": '"' * 5000}, {"expect": "100-continue"},
    {"pointsman_router": "\x7f" * 200}, {"prefer": "wait=" + "9" * 40},
]  # fmt: skip


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_it_answers_with_what_is_wrong(plane: Plane, served: Served, endpoint: str) -> None:
    failed = []
    for shape in SHAPES:
        body = shape.replace(b"@", ENDPOINTS[endpoint])
        answer = plane.post(endpoint, served.key, body)
        if not 400 <= answer.status < 500 and not (endpoint.startswith("/ofrep") and answer.status == 200):
            failed.append((body[:60], answer.status, answer.body[:200]))
    for headers in ODD_HEADERS:
        answer = plane.post(endpoint, served.key, b'{"x": [1]}', **headers)
        if answer.status >= 500:
            failed.append((str(headers).encode()[:60], answer.status, answer.body[:200]))
    assert failed == []


QUERIES = [
    "since=abc", "since=" + "9" * 400, "since=%00", "since=%ff", "workload=%ed%a0%80", "workload=%00", "&" * 20_000,
    "since=-1", "since=1.5", "since=%D9%A3", "a=" + "b" * 30_000, "%", "%zz", "=", "workload=a&workload=b",
]  # fmt: skip
PATHS = [
    "/router/v1/%00", "/router/v1/%ff", "/router/v1/%ed%a0%80", "/router/v1/" + "x" * 5000, "/router/v1//snapshot",
    "/router/v1/../v1/snapshot", *(f"/ofrep/v1/evaluate/flags/{name}" for name in ("%ff", "%ed%a0%80", "%00")),
]  # fmt: skip


def test_an_invalid_query_is_explained(plane: Plane, served: Served) -> None:
    answers = {query[:40]: plane.get(f"/router/v1/snapshot?{query}", served.key).status for query in QUERIES}
    assert {query: status for query, status in answers.items() if status not in (200, 400, 414, 422)} == {}


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_unknown_path_is_a_4xx(plane: Plane, served: Served, method: str) -> None:
    body = b"{}" if method == "POST" else None
    asked = {path[:60]: plane.begin(path, served.key, method=method, body=body) for path in PATHS}
    answers = {path: answer.result(60).status for path, answer in asked.items()}
    assert {path: status for path, status in answers.items() if not 400 <= status < 500} == {}


def test_after_a_body_that_is_too_large_the_next_request_is_answered(plane: Plane, served: Served) -> None:
    """The connection closed without notice: a client that keeps connections sent its next request on it."""
    connection = http.client.HTTPConnection("127.0.0.1", plane.port, timeout=60)
    headers = {"Authorization": f"Bearer {served.key}"}
    for encode_chunked, body in ((False, b"x" * 1_600_000), (True, iter([b"x" * 400_000] * 4))):
        for _ in range(2):
            connection.request("GET", "/router/v1/snapshot", headers=headers)
            assert connection.getresponse().read()
        connection.request(
            "POST", "/router/v1/outcomes", body, headers=headers, encode_chunked=encode_chunked
        )
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Connection"]) == (413, "close")
        answer.read()
    connection.request("POST", "/router/v1/outcomes", b"{}", headers={"Authorization": "Bearer no"})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Connection"]) == (401, "close")
