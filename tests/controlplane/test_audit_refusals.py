"""The entry that replaces a flood of refusals, and two jobs that fold at once."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db.models import F, QuerySet

from controlplane.audit import entries, log, refusals
from controlplane.audit.models import Entry, RefusalWindow
from controlplane.core.actors import Actor
from controlplane.core.errors import Conflict, RoleMissing

pytestmark = pytest.mark.django_db
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVA, BEN = Actor("key", "k1", "key script", "901"), Actor("user", "902", "ben", "902")


@pytest.fixture(autouse=True)
def _clock(settings: Any) -> None:
    settings.CLOCK = "process"


def refuse(actor: Actor, times: int, error: type[Exception] = RoleMissing) -> None:
    for _ in range(times):
        with pytest.raises(error), log.attempt(actor=actor, action="a.b", target=("x", "1")):
            raise error("no")


def folded() -> list[Entry]:
    return list(Entry.objects.filter(action="refusals.folded").order_by("seq"))


def test_a_refusal_has_each_field_of_the_attempt() -> None:
    fields: dict[str, Any] = {"environment": "production", "workload": "summaries", "reason": "incident 231"}
    with (
        pytest.raises(Conflict),
        log.attempt(actor=EVA, action="a.b", target=("x", "1"), **fields),
    ):
        raise Conflict("no")
    body = json.loads(bytes(Entry.objects.get().body))
    assert {name: body[name] for name in fields} == fields
    assert body["actor"] == {"kind": "key", "id": "k1", "label": "key script", "user_id": "901"}
    assert (body["action"], body["target"], body["outcome"]) == ("a.b", {"kind": "x", "id": "1"}, "refused")
    assert body["evidence"] == {"code": Conflict.code, "detail": "no"}


def test_the_folded_entry_counts_each_action_and_code() -> None:
    with time_machine.travel(START, tick=False) as now:
        refuse(EVA, 20)
        assert Entry.objects.count() == 20
        refuse(EVA, 3)
        refuse(EVA, 2, Conflict)
        assert Entry.objects.count() == 20
        now.shift(timedelta(seconds=60))
        refusals.fold_old()
        assert folded() == [], "the minute is not over"
        now.shift(timedelta(seconds=1))
        refusals.fold_old()
        refusals.fold_old()
    (entry,) = folded()
    body = json.loads(bytes(entry.body))
    assert body["actor"] == {"kind": "key", "id": "k1", "label": "key script", "user_id": "901"}
    assert body["target"] == {"kind": "actor", "id": "key:k1"}
    assert body["outcome"] == "refused"
    assert body["reason"] == "5 more attempts were refused within a minute."
    assert body["evidence"] == {
        "count": 5,
        "of": {"a.b role_missing": 3, f"a.b {Conflict.code}": 2},
        "since": "2026-03-01T12:00:00.000000Z",
    }


def test_a_minute_without_a_flood_leaves_no_folded_entry() -> None:
    with time_machine.travel(START, tick=False) as now:
        refuse(EVA, 20)
        now.shift(timedelta(seconds=61))
        refuse(EVA, 21)
        assert folded() == []
        now.shift(timedelta(seconds=61))
        refuse(EVA, 1)
    assert [json.loads(bytes(entry.body))["evidence"]["count"] for entry in folded()] == [1]
    window = RefusalWindow.objects.get()
    assert (window.recorded, window.folded, window.counts) == (1, 0, {})
    assert window.began_at == START + timedelta(seconds=122)


def test_each_actor_has_a_window() -> None:
    with time_machine.travel(START, tick=False) as now:
        refuse(EVA, 21)
        refuse(BEN, 21)
        assert Entry.objects.count() == 40
        now.shift(timedelta(seconds=61))
        refusals.fold_old()
    assert sorted(entry.actor_label for entry in folded()) == ["ben", "key script"]


@pytest.mark.parametrize("other_job", ["folds the second, too", "restarts the second"])
def test_another_job_changes_the_second_window_meanwhile(
    other_job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not folded a second time, and refusals of a minute that has begun are not folded early."""

    def changed(entry: Entry, body: Any) -> None:
        windows = RefusalWindow.objects.exclude(actor_key=entry.target_id)
        if other_job.startswith("folds"):
            windows.delete()
        else:
            windows.update(began_at=F("began_at") + timedelta(seconds=61))

    with time_machine.travel(START, tick=False) as now:
        refuse(EVA, 21)
        refuse(BEN, 21)
        now.shift(timedelta(seconds=61))
        monkeypatch.setattr(entries, "_listeners", [changed])
        refusals.fold_old()
    assert len(folded()) == 1
    assert RefusalWindow.objects.count() == (0 if other_job.startswith("folds") else 1)


def test_the_job_deletes_the_window_before_it_is_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal became a 500, and was not recorded."""
    refuse(EVA, 1)
    lock = QuerySet.select_for_update

    def late(rows: Any, *args: Any, **options: Any) -> Any:
        if rows.model is RefusalWindow:
            monkeypatch.setattr(QuerySet, "select_for_update", lock)
            RefusalWindow.objects.all().delete()
        return lock(rows, *args, **options)

    monkeypatch.setattr(QuerySet, "select_for_update", late)
    refuse(EVA, 1)
    assert Entry.objects.filter(outcome="refused").count() == 2
    assert RefusalWindow.objects.get().recorded == 1


def test_a_refusal_that_was_only_counted_is_kept_once_after_a_rollback() -> None:
    with time_machine.travel(START, tick=False):
        refuse(EVA, 20)
        error = RoleMissing("no")
        log.record_refusal(error, actor=EVA, action="a.b", target=("x", "1"))
        log.keep_refusal(error)
        assert RefusalWindow.objects.get().folded == 1
        RefusalWindow.objects.update(folded=0, counts={}, last="")  # a wider transaction was rolled back
        log.keep_refusal(error)
        log.keep_refusal(error)
    window = RefusalWindow.objects.get()
    assert (window.folded, window.counts) == (1, {"a.b role_missing": 1})


def test_a_clock_put_right_does_not_hold_entries_back() -> None:
    """F10: the actor's minute began while the clock was a day ahead."""
    with time_machine.travel(START + timedelta(days=1), tick=False) as now:
        refuse(EVA, 21)
        refuse(BEN, 21)
        now.shift(timedelta(days=-1))
        refuse(EVA, 1)
        assert [entry.actor_label for entry in folded()] == ["key script"]
        assert Entry.objects.order_by("-seq").first().action == "a.b"  # type: ignore[union-attr]
        refusals.fold_old()
        assert [entry.actor_label for entry in folded()] == ["key script", "ben"]
