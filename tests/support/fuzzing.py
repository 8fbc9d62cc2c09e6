"""Tests the API document with schemathesis: requests drawn from it, sent to Django in this process.

Most drawn requests would fail at their URL, because no object has that name. So a part of each is replaced by what the
matrix grants (`tests/trust/matrix`): the URL, `If-Match`, some members of the body. The code behind the guards reads
the remaining drawn values.
"""

import logging
import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hypothesis
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, transaction
from django.test import Client
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from tests.trust.matrix.asking import ROWS
from tests.trust.matrix.needs import Row
from tests.trust.matrix.world import World

# What every response must satisfy. "Negative" data may be accepted: the document does not close every body.
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
KEPT = 0.8  # share of URLs, `If-Match` and members of a body that are taken from the matrix
TOLD = 2_000  # of a failure, in characters


@contextmanager
def quiet_requests() -> Iterator[None]:
    """Django closes connections between requests, which would end the test's transaction, and logs each 4xx."""
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        for signal in signals:
            signal.connect(close_old_connections)


def granted_rows() -> dict[str, Row]:
    """The matrix's row of each operation, by `GET /api/v1/plans/{}`, because parameter names differ."""
    rows = [row for row in ROWS if row.template.startswith("api/v1/")]
    return {f"{row.method} /{re.sub('<[^>]*>', '{}', row.template)}": row for row in rows}


class Fuzzer:
    """`seed` determines the draws. `asked` counts responses by status; `failures` are readable texts, by kind."""

    def __init__(self, world: World, key: str, seed: int) -> None:
        self._world, self._seed, self._rows = world, seed, granted_rows()
        self._headers = {"Authorization": f"Bearer {key}"}
        self._schema = schemathesis.openapi.from_dict(Client().get("/api/v1/schema").json())
        self._schema.app = get_wsgi_application()
        self.asked: Counter[int] = Counter()
        self.failures: dict[str, str] = {}

    def operations(self) -> list[Any]:
        found: Any = self._schema.get_all_operations()
        return [one.ok() for one in found]

    def ask(self, operation: Any, cases: int) -> None:
        """Draw and send `cases` requests: two in three are valid according to the document, the others are not."""
        rng = random.Random(f"{self._seed} {operation.label}")
        row = self._rows[re.sub(r"\{[^}]*\}", "{}", operation.label)]
        negative = cases // 3
        self._drawn(operation, GenerationMode.POSITIVE, cases - negative, row, rng)
        self._drawn(operation, GenerationMode.NEGATIVE, negative, row, rng)

    def _drawn(self, operation: Any, mode: GenerationMode, cases: int, row: Row, rng: random.Random) -> None:
        @hypothesis.seed(rng.randrange(2**32))
        @hypothesis.settings(
            max_examples=max(cases, 1),
            database=None,
            derandomize=False,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate],
        )
        @hypothesis.given(case=operation.as_strategy(mode))
        def send(case: Any) -> None:
            with transaction.atomic():
                self._put_back(case, row, rng)
                self._send(case)
                transaction.set_rollback(True)

        try:
            send()
        except hypothesis.errors.Unsatisfiable:
            return  # it has nothing that could be invalid

    def _put_back(self, case: Any, row: Row, rng: random.Random) -> None:
        path, body = row.request(self._world)
        names = re.sub(
            r"\{([^}]*)\}", r"(?P<\1>.+)", re.escape(case.path).replace(r"\{", "{").replace(r"\}", "}")
        )
        if (found := re.fullmatch(names, f"/api/v1/{path.partition('?')[0]}")) and rng.random() < KEPT:
            case.path_parameters = found.groupdict()
        if rng.random() < KEPT:
            case.headers = {**(case.headers or {}), "If-Match": "*"}
        if isinstance(body, dict) and isinstance(case.body, dict):
            case.body = case.body | {name: value for name, value in body.items() if rng.random() < KEPT}

    def _send(self, case: Any) -> None:
        try:
            response = case.call(headers=self._headers)
            self.asked[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)
        except (schemathesis.errors.SchemathesisError, AssertionError, BaseExceptionGroup) as failure:
            for one in getattr(failure, "exceptions", [failure]):
                kind = " ".join(str(one).split("\n")[:3])
                told = f"{case.method} {case.formatted_path} {case.query} {case.body!r:.400}: {one}"
                self.failures.setdefault(f"{case.operation.label}: {kind}"[:300], told[:TOLD])
