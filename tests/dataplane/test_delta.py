"""GET /router/v1/snapshot?since=: only what changed."""

import pytest

from controlplane.core import signing
from controlplane.core.actors import SYSTEM
from controlplane.core.ids import uuid7
from pointsman import SnapshotRefused
from pointsman.sync.last_known_good import LastKnownGood
from pointsman.sync.signature import PublicKeys
from pointsman.sync.store import Received
from policies_app import actions
from policies_app.models import Environment
from policies_app.snapshots import cache
from tests.support import builders
from tests.support.plane import Answered, Plane, Served, router_key


def _at(plane: Plane, served: Served, revision: int, query: str = "", **headers: str) -> Answered:
    """Return the answer once the gateway serves that revision."""

    def answer() -> Answered | None:
        given = plane.snapshot(served.key, query, **headers)
        return given if given.headers.get("pointsman-revision") == str(revision) else None

    result = plane.until(answer)
    assert result is not None
    return result


def test_it_sends_what_changed_after_the_revision(plane: Plane, served: Served) -> None:
    second = builders.served(served.environment, builders.workload())
    third = builders.served(served.environment, builders.workload())
    delta = _at(plane, served, 3, "?since=1").json()
    assert delta["full"] is False
    assert set(delta["workloads"]) == {second.workload.name, third.workload.name}
    assert set(_at(plane, served, 3, "?since=2").json()["workloads"]) == {third.workload.name}


def test_it_lists_what_was_removed(plane: Plane, served: Served) -> None:
    name = served.assignment.workload.name
    actions.stop_serving(served.assignment, actor=SYSTEM, reason="retired")
    delta = _at(plane, served, 2, "?since=1").json()
    assert (delta["workloads"], delta["removed"]) == ({}, [name])
    assert _at(plane, served, 2).json()["removed"] == []
    assert _at(plane, served, 2, "?since=1&workload=other").json()["removed"] == []


def test_it_serves_what_was_removed_and_added_again(plane: Plane, served: Served) -> None:
    actions.stop_serving(served.assignment, actor=SYSTEM, reason="retired")
    actions.serve_first(
        served.environment, served.assignment.baseline, actor=SYSTEM, reason="not retired after all"
    )
    delta = _at(plane, served, 3, "?since=1").json()
    assert (set(delta["workloads"]), delta["removed"]) == ({served.assignment.workload.name}, [])


def test_it_answers_304_to_a_router_with_this_revision(plane: Plane, served: Served) -> None:
    first = plane.snapshot(served.key).headers["etag"]
    builders.served(served.environment, builders.workload())
    delta = _at(plane, served, 2, "?since=1", if_none_match=first)
    again = plane.snapshot(served.key, "?since=2", if_none_match=delta.headers["etag"])
    assert (again.status, again.headers["etag"]) == (304, delta.headers["etag"])
    assert again.headers["pointsman-signature"] == delta.headers["pointsman-signature"]
    # A tag of the same revision, from a process that has been restarted since, stands for the same content.
    elsewhere = f'"{served.environment.epoch}.2.0123456789abcdef"'
    assert plane.snapshot(served.key, "?since=2", if_none_match=elsewhere).status == 304
    assert plane.snapshot(served.key, "?since=1", if_none_match=elsewhere).status == 200


def test_it_sends_a_changed_poll_interval(plane: Plane, served: Served) -> None:
    """It changed without a revision, so a router that follows deltas got 304s and kept the old one."""
    tag = plane.snapshot(served.key).headers["etag"]
    environment = actions.edit_environment(served.environment, poll_interval_ms=2_500, actor=SYSTEM)
    assert environment.revision == 2
    delta = _at(plane, served, 2, "?since=1", if_none_match=tag)
    assert (delta.status, delta.json()["poll_interval_ms"], delta.json()["full"]) == (200, 2_500, False)
    actions.edit_environment(environment, poll_interval_ms=2_500, freeze_reason="", actor=SYSTEM)
    actions.edit_environment(environment, four_eyes=True, actor=SYSTEM)
    assert Environment.objects.get(pk=environment.pk).revision == 2
    empty = builders.environment()
    actions.edit_environment(empty, poll_interval_ms=2_500, actor=SYSTEM)
    assert Environment.objects.get(pk=empty.pk).revision == 0


def test_it_sends_everything_for_a_revision_beyond_its_own(plane: Plane, served: Served) -> None:
    assert plane.snapshot(served.key, "?since=99").json()["full"] is True


def test_it_sends_everything_after_a_restore(plane: Plane, served: Served) -> None:
    tag = plane.snapshot(served.key).headers["etag"]
    epoch = uuid7().hex
    Environment.objects.filter(pk=served.environment.pk).update(epoch=epoch)
    answer = plane.until(
        lambda: (a := plane.snapshot(served.key, "?since=1", if_none_match=tag)).status == 200 and a
    )
    assert isinstance(answer, Answered)
    assert (answer.json()["full"], answer.json()["epoch"]) == (True, epoch)


def test_its_cost_depends_on_the_changes_not_on_the_environment(plane: Plane, served: Served) -> None:
    for _ in range(30):
        builders.served(served.environment, builders.workload())
    full = _at(plane, served, 31)
    delta = _at(plane, served, 31, "?since=30")
    assert len(delta.json()["workloads"]) == 1
    assert len(delta.body) < len(full.body) / 15


def test_it_finds_changes_in_any_number_and_order(served: Served) -> None:
    others = [builders.served(served.environment, builders.workload()) for _ in range(4)]
    assignments = [served.assignment, *others]
    cached = cache.read_environment(cache.read_headers()[served.environment.name], None)
    for number, turn in enumerate([3, 0, 3, 4, 1, 0, 0, 2, 1]):
        assignment = assignments[turn]
        assignment.refresh_from_db()
        if assignment.pin_model:
            actions.unpin(assignment, actor=SYSTEM, reason="now")
        else:
            actions.pin(assignment, "large", actor=SYSTEM, reason="now")
        if number % 2:  # also several at once
            cached = cache.read_environment(cache.read_headers()[served.environment.name], cached)
    cached = cache.read_environment(cache.read_headers()[served.environment.name], cached)
    assert cached is not None
    afresh = cache.read_environment(cached.header, None)
    assert afresh is not None
    assert cached.fragments == afresh.fragments
    fragments = cached.fragments.items()
    for since in range(cached.header.revision + 1):
        query = cache.SnapshotQuery(None, since)
        changed = sorted((name, fragment.text) for name, fragment in fragments if fragment.revision > since)
        assert cached.selected(query) == afresh.selected(query) == changed
        assert cached.size(query) == sum(len(fragment) for _, fragment in changed)


# --- the signature covers what was requested --------------------------------------------------------


def _received(answer: Answered) -> Received:
    return Received(answer.body, answer.headers["etag"], answer.headers["pointsman-signature"])


def _router(*workloads: str) -> LastKnownGood:
    good = LastKnownGood(keys=PublicKeys(signing.public_key_text()))
    good.workloads = workloads
    return good


def test_a_delta_says_which_revision_it_follows(plane: Plane, served: Served) -> None:
    """Otherwise somebody who changes `since` on the way could make a router skip a change, such as a pin, for good."""
    good = _router()
    good.receive(_received(plane.snapshot(served.key)))
    actions.pin(served.assignment, "large", actor=SYSTEM, reason="an emergency")
    builders.served(served.environment, builders.workload())
    skipping = _at(plane, served, 3, "?since=2")
    assert skipping.json()["since"] == 2
    with pytest.raises(SnapshotRefused, match="does not continue"):
        good.receive(_received(skipping))
    snapshot = good.receive(_received(_at(plane, served, 3, "?since=1")))
    assert snapshot.workloads[served.assignment.workload.name].pin == "large"


def test_a_selected_snapshot_says_what_was_selected(plane: Plane, served: Served) -> None:
    """Otherwise somebody who adds or changes `workload` on the way could take workloads from a router."""
    mine = served.assignment.workload.name
    other = builders.served(served.environment, builders.workload()).workload.name
    whole = _at(plane, served, 2)
    narrowed = plane.snapshot(served.key, f"?workload={other}")
    assert narrowed.json()["selection"] == [other]
    for query, selection in ((f"?workload={other}&workload=no&workload={other}", [other, "no"]), ("", None)):
        assert plane.snapshot(served.key, query).json().get("selection") == (selection and sorted(selection))
    for good in (_router(), _router(mine, other)):
        with pytest.raises(SnapshotRefused, match="selection"):
            good.receive(_received(narrowed))
    assert set(_router().receive(_received(whole)).workloads) == {mine, other}
    assert set(_router(other, other).receive(_received(narrowed)).workloads) == {other}
    emptied = plane.snapshot(served.key, "?since=2&workload=no")
    with pytest.raises(SnapshotRefused, match="selection"):
        _router().receive(_received(emptied))


def test_a_whole_snapshot_has_neither(plane: Plane, served: Served) -> None:
    """Its bytes are those that routers and buckets already have."""
    limited = router_key(served.environment.name, workloads=[served.assignment.workload.name])
    for key in (served.key, limited):
        document = plane.snapshot(key).json()
        assert list(document) == [
            "format", "environment", "epoch", "revision", "full", "poll_interval_ms", "workloads", "prices", "removed",
        ]  # fmt: skip
