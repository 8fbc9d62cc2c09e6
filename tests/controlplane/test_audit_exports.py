"""What the list and the exports of the audit log contain: which entries, for which filter, with which columns."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import transaction

from controlplane.audit import chain, entries, exports, log
from controlplane.audit.models import Entry
from controlplane.core import clock
from controlplane.core.actors import SYSTEM, Actor
from tests.support import append_only
from tests.support.callers import Caller
from tests.support.people import logged_in

pytestmark = pytest.mark.django_db
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
WRITTEN: dict[str, dict[str, Any]] = {
    "team": {"actor": SYSTEM, "action": "team.create", "target": ("team", "data"), "reason": "a new team"},
    "pin": {
        "actor": Actor("key", "k1", "key script"),
        "action": "assignment.pin",
        "target": ("assignment", "production/summaries"),
        "environment": "production",
        "workload": "summaries",
        "outcome": "refused",
    },
    "unpin": {
        "actor": Actor("user", "901", "Eva", "901"),
        "action": "assignment.unpin",
        "target": ("assignment", "staging/tickets"),
        "environment": "staging",
        "workload": "tickets",
        "reason": "over",
    },
}


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """The entries of `WRITTEN`, a day apart: their names by number."""
    made = {}
    for day, (name, fields) in enumerate(WRITTEN.items()):
        monkeypatch.setattr(clock, "now", lambda day=day: AT + timedelta(days=day))
        with transaction.atomic():
            made[log.record(**fields).seq] = name
    monkeypatch.undo()
    return made


def lines(response: Any) -> list[str]:
    assert response.status_code == 200
    text: str = response.getvalue().decode()
    return text.splitlines()


def in_json(response: Any, numbers: dict[int, str]) -> list[str]:
    """The names of the entries in an export, in its order. Entries written by the test's own set-up are left out."""
    found = [json.loads(line)["seq"] for line in lines(response)]
    return [numbers[seq] for seq in found if seq in numbers]


def in_csv(response: Any, numbers: dict[int, str]) -> list[str]:
    found = [int(row["seq"]) for row in csv.DictReader(lines(response))]
    return [numbers[seq] for seq in found if seq in numbers]


# --- which entries -----------------------------------------------------------------------------------------

OF_THE_CONSOLE: list[tuple[dict[str, str], list[str]]] = [
    ({}, ["team", "pin", "unpin"]),
    ({"actor": "eva"}, ["unpin"]),
    ({"action": "assignment."}, ["pin", "unpin"]),
    ({"action": "assignment.pin"}, ["pin"]),
    ({"environment": "production"}, ["pin"]),
    ({"environment": "prod"}, []),
    ({"workload": "tickets"}, ["unpin"]),
    ({"target": "DATA"}, ["team"]),
    ({"target": "summaries"}, ["pin"]),
    ({"outcome": "refused"}, ["pin"]),
    ({"outcome": "done", "action": "assignment."}, ["unpin"]),
    ({"since": "2026-03-02", "until": "2026-03-02"}, ["pin"]),
]


@pytest.mark.parametrize(("given", "names"), OF_THE_CONSOLE, ids=str)
def test_the_console_exports_what_its_list_shows(
    given: dict[str, str], names: list[str], numbers: dict[int, str]
) -> None:
    """The list is newest first, an export oldest first."""
    client = logged_in("ada", "viewer")
    listed = client.get("/console/audit/", given).context["listed"]
    assert [numbers[entry.seq] for entry, *_ in listed if entry.seq in numbers] == names[::-1]
    assert in_json(client.get("/console/audit/export.jsonl", given), numbers) == names
    assert in_csv(client.get("/console/audit/export.csv", given), numbers) == names


OF_THE_API = [
    ({}, ["team", "pin", "unpin"]),
    ({"actor_id": "k1"}, ["pin"]),
    ({"actor_label": "Eva"}, ["unpin"]),
    ({"actor_label": "eva"}, []),
    ({"action": "team.create"}, ["team"]),
    ({"action": "team."}, []),
    ({"target_kind": "assignment"}, ["pin", "unpin"]),
    ({"target_id": "data"}, ["team"]),
    ({"environment": "staging"}, ["unpin"]),
    ({"workload": "summaries"}, ["pin"]),
    ({"outcome": "refused"}, ["pin"]),
    ({"target_kind": "assignment", "outcome": "done"}, ["unpin"]),
]


@pytest.mark.parametrize(("given", "names"), OF_THE_API, ids=str)
def test_each_filter_of_the_api_is_an_exact_match(
    given: dict[str, str], names: list[str], numbers: dict[int, str]
) -> None:
    call = Caller("viewer")
    query = "&".join(f"{name}={value}" for name, value in given.items())
    listed = [item["seq"] for item in call("GET", f"audit?{query}").json()["items"]]
    assert [numbers[seq] for seq in listed if seq in numbers] == names[::-1]
    assert in_json(call("GET", f"audit/export?{query}"), numbers) == names
    assert in_csv(call("GET", f"audit/export?format=csv&{query}"), numbers) == names


def test_an_export_leaves_out_other_environments(numbers: dict[int, str]) -> None:
    """But not the entries of no environment."""
    client, call = logged_in("sam", "viewer", environment="staging"), Caller("viewer", environment="staging")
    for response in (client.get("/console/audit/export.jsonl"), call("GET", "audit/export?format=jsonl")):
        assert in_json(response, numbers) == ["team", "unpin"]


# --- what it contains ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "kind"), [("jsonl", "application/jsonl"), ("csv", "text/csv; charset=utf-8")]
)
@pytest.mark.usefixtures("numbers")
def test_an_export_is_a_file_to_download(form: str, kind: str) -> None:
    client, call = logged_in("ada", "viewer"), Caller("viewer")
    for response in (
        client.get(f"/console/audit/export.{form}"),
        call("GET", f"audit/export?format={form}"),
    ):
        assert response["Content-Type"] == kind
        assert response["Content-Disposition"] == f'attachment; filename="pointsman-audit.{form}"'
        assert int(response["Content-Length"]) == len(response.getvalue()) > 0


def test_only_these_formats_exist() -> None:
    answer = Caller("viewer")("GET", "audit/export?format=xml")
    assert (answer.status_code, answer.json()["detail"]) == (422, "format must be one of jsonl, csv.")
    assert logged_in("ada", "viewer").get("/console/audit/export.xml").status_code == 404


def test_a_line_of_json_has_the_hashed_bytes_and_both_hashes(numbers: dict[int, str]) -> None:
    written = Entry.objects.filter(seq__in=numbers)
    assert [json.loads(line) for line in exports.lines(written, "jsonl")] == [
        {
            "seq": entry.seq,
            "prev_hash": entry.prev_hash,
            "hash": entry.hash,
            "body": bytes(entry.body).decode(),
        }
        for entry in written.order_by("seq")
    ]


def test_a_line_of_csv_has_each_column(numbers: dict[int, str]) -> None:
    (entry,) = Entry.objects.filter(seq__in=numbers, outcome="refused")
    (row,) = csv.DictReader(exports.lines(Entry.objects.filter(pk=entry.pk), "csv"))
    assert row == {
        "seq": str(entry.seq),
        "at": "2026-03-02T12:00:00.000000Z",
        "actor_kind": "key",
        "actor_id": "k1",
        "actor_label": "key script",
        "action": "assignment.pin",
        "target_kind": "assignment",
        "target_id": "production/summaries",
        "environment": "production",
        "workload": "summaries",
        "outcome": "refused",
        "reason": "",
        "hash": entry.hash,
        "person": "",
    }


@pytest.mark.parametrize("reason", ["=cmd()", "+1", "-1", "@x", "\t=1", "\r=1"])
def test_a_spreadsheet_never_evaluates_a_reason(reason: str) -> None:
    with transaction.atomic():
        entry = log.record(actor=SYSTEM, action="a.b", target=("x", "1"), reason=reason)
    text = "".join(exports.lines(Entry.objects.filter(pk=entry.pk), "csv"))
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["reason"] == f"'{reason}"
    assert row["target_id"] == "1"


# --- an entry that somebody overwrote --------------------------------------------------------------------------

UNREADABLE = [b"", b"x", b"[]", b"\xff", b'{"diff":[3]}', b'{"diff":[{"path":1}]}', b"[" * 100_000]


@pytest.mark.parametrize("body", UNREADABLE, ids=lambda body: str(body[:20]))
def test_an_entry_with_an_unreadable_body_has_all_members(body: bytes) -> None:
    """They come from the columns; what no column holds is empty."""
    fields: dict[str, Any] = {**WRITTEN["unpin"], "evidence": [1], "before": {"pin": "x"}}
    with transaction.atomic():
        entry = log.record(**fields)
    with append_only.lifted():
        Entry.objects.filter(pk=entry.pk).update(body=body)
    shown = Caller("viewer")("GET", f"audit/{entry.seq}").json()
    assert shown == {
        "v": 1,
        "chain": "",
        "seq": entry.seq,
        "ts": chain.timestamp(entry.at),
        "actor": {"kind": "user", "id": "901", "label": "Eva", "user_id": None},
        "action": "assignment.unpin",
        "target": {"kind": "assignment", "id": "staging/tickets"},
        "environment": "staging",
        "workload": "tickets",
        "reason": "over",
        "outcome": "done",
        "diff": [],
        "before_sha256": None,
        "after_sha256": None,
        "evidence": None,
        "approvals": None,
        "request_id": "",
        "source": "",
        "hash": entry.hash,
        "prev_hash": entry.prev_hash,
    }
    (row,) = csv.DictReader(exports.lines(Entry.objects.filter(pk=entry.pk), "csv"))
    assert (row["reason"], row["person"]) == ("over", "")


def test_a_readable_body_is_shown_as_it_is_and_completed(numbers: dict[int, str]) -> None:
    """Members that it lacks come from the columns."""
    entry = Entry.objects.get(seq=min(numbers))
    whole = entries.body_of(entry)
    assert whole == json.loads(bytes(entry.body))
    entry.body = b'{"diff":[{"after":1,"path":"/a"}],"reason":"other"}'
    assert entries.body_of(entry) == {
        **whole,
        "chain": "",
        "diff": [{"path": "/a", "after": 1}],
        "reason": "other",
    }
