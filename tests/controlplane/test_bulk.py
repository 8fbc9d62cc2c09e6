"""Tables of many rows in one statement are equal on both databases."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from django.db import connection

from controlplane.core.bulk import column_type, stored, table_of
from policies_app.models import Workload
from rollout_app.models import Rollout, VerdictRecord

pytestmark = pytest.mark.django_db
AT = datetime(2026, 11, 30, 23, 59, 59, 999_999, tzinfo=UTC)
TEXTS = ["", "x", 'a "quoted" \\ text', "%s {} ; --", "zürich 𝕏", "line\nbreak", '{"n": [1, 2]}', "null"]


def selected(rows: list[tuple[Any, ...]], types: tuple[str, ...]) -> list[tuple[Any, ...]]:
    source, parameters = table_of(rows, types)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {source}", parameters)
        return list(cursor.fetchall())


def test_texts_and_numbers_come_back_in_order() -> None:
    rows = [(text, at) for at, text in enumerate(TEXTS)]
    assert selected(rows, ("text", "bigint")) == rows
    assert selected([(None, 2**62)], ("text", "bigint")) == [(None, 2**62)]


def test_a_thousand_rows_of_many_columns_are_one_statement() -> None:
    rows = [tuple(range(at, at + 20)) for at in range(1_000)]
    assert selected(rows, ("bigint",) * 20) == rows


def test_times_are_compared_as_stored() -> None:
    source, parameters = table_of([(stored(AT),)], ("timestamptz",))
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM {source} WHERE column1 = %s", [*parameters, stored(AT)])
        assert cursor.fetchone() == (1,)


def test_an_id_and_a_json_document_keep_their_value() -> None:
    key, document = UUID(int=2**127 + 1), '{"text":"\\"","figures":[1.5,1e-300,12345678901234567]}'
    pk = Rollout._meta.pk
    types = (column_type(Rollout, "id"), column_type(Rollout, "reference"))
    ((found, text),) = selected([(pk.get_db_prep_value(key, connection), document)], types)
    assert pk.to_python(found) == key
    assert (json.loads(text) if isinstance(text, str) else text) == json.loads(document)


def test_types_are_those_of_the_model() -> None:
    assert column_type(VerdictRecord, "rollout_id") == column_type(Rollout, "id")
    assert column_type(Workload, "no_such_column") == "integer"
