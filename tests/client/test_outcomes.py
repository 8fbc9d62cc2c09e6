"""Outcomes are folded into minutes, split into batches, and kept until they are acknowledged."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.reporting.batch import MAX_BUCKETS, MAX_BYTES, batches
from pointsman.reporting.buckets import Bucket, BucketKey, Mirror, Outcome, Shadow
from pointsman.reporting.outcomes import OutcomeBuffer
from pointsman.reporting.spool import Spool
from pointsman.testing.reports import problems

KEY = BucketKey(29_393_265, "summaries", "r-1", 2, "candidate", 13, "/tickets", "default", "small")
GOOD = Outcome(
    success=True, quality=0.9, confidence=0.8, cost_nusd=400_000, latency_ms=812, models=("small",)
)


def outcomes() -> st.SearchStrategy[Outcome]:
    score = st.none() | st.floats(0, 1)
    money = st.none() | st.integers(0, 10**12)
    shadow = st.none() | st.builds(
        Shadow,
        st.sampled_from(["small", "large"]),
        st.sampled_from(["small", "large"]),
        st.booleans(),
        money,
        money,
    )
    whole = st.integers(0, 10**9)
    return st.builds(
        Outcome,
        success=st.none() | st.booleans(),
        quality=score,
        confidence=score,
        cost_nusd=money,
        latency_ms=st.none() | st.floats(0, 1e7),
        error=st.none() | st.sampled_from(["timeout", "refusal"]),
        escalations=st.integers(0, 3),
        fallbacks=st.integers(0, 3),
        retries=st.integers(0, 3),
        attempts=st.integers(1, 9),
        models=st.lists(st.sampled_from(["small", "large"]), max_size=3).map(tuple),
        shadow=shadow,
        mirror=st.none() | st.builds(Mirror, st.booleans(), st.booleans(), whole, whole),
    )


def sealed(buffer: OutcomeBuffer) -> list[dict[str, Any]]:
    buffer.seal()
    found = []
    while batch := buffer.oldest():
        found += json.loads(batch.body)["buckets"]
        buffer.accept(batch)
    return found


@given(st.lists(outcomes(), max_size=30), st.none() | st.integers(0, 10**9))
def test_its_buckets_are_always_consistent(told: list[Outcome], cap: int | None) -> None:
    bucket = Bucket()
    for outcome in told:
        bucket.add(outcome, cap)
    data = json.loads(json.dumps(bucket.as_dict(KEY), allow_nan=False))
    assert list(problems({"buckets": [data]})) == []
    assert data["tasks"] == len(told)


def test_it_writes_the_example_of_the_protocol() -> None:
    bucket = Bucket()
    bucket.add(GOOD, 300_000)
    failed = replace(
        GOOD, success=False, error="timeout", escalations=1, attempts=2, models=("small", "large")
    )
    bucket.add(failed, 300_000)
    assert bucket.as_dict(KEY) == {
        "minute": "2025-11-19T23:45:00Z", "workload": "summaries", "rollout": "r-1", "stage": 2,
        "arm": "candidate", "version": 13, "endpoint": "/tickets", "rule": "default", "model": "small",
        "tasks": 2, "successes": 1, "failures": 1, "ungraded": 0, "errors": 1,
        "escalations": 1, "fallbacks": 0, "retries": 0, "attempts": 3,
        "quality": {"n": 2, "sum": 1.8, "sum_sq": pytest.approx(1.62)},
        "confidence": {"n": 2, "sum": 1.6, "sum_sq": pytest.approx(1.28)},
        "cost_nusd": {
            "n": 2, "sum": 800_000, "sum_sq": 3.2e11, "sum_on_success": 400_000,
            "capped": {"sum": 600_000, "sum_sq": 1.8e11, "sum_on_success": 300_000},
            "histogram": {"scale": 4, "zero": 0, "counts": {"297": 2}},
        },
        "latency_ms": {"scale": 4, "zero": 0, "counts": {"154": 2}},
        "models": {"large": 1, "small": 2},
        "errors_by_kind": {"timeout": 1},
        "shadow": {
            "decisions": 0, "agreed": 0, "candidate_cost_nusd": 0, "baseline_cost_nusd": 0,
            "candidate_priced": 0, "baseline_priced": 0, "routes": {},
        },
        "mirror": {
            "n": 0, "both": 0, "only_candidate": 0, "only_baseline": 0, "neither": 0,
            "candidate_cost_nusd": 0, "baseline_cost_nusd": 0,
        },
    }  # fmt: skip


def test_if_one_shadow_cost_is_unknown_both_are_omitted() -> None:
    bucket = Bucket()
    bucket.add(replace(GOOD, shadow=Shadow("small", "large", False, 400_000, None)), None)
    bucket.add(replace(GOOD, shadow=Shadow("small", "large", False, 400_000, 900_000)), None)
    shadow = bucket.as_dict(KEY)["shadow"]
    assert (shadow["decisions"], shadow["agreed"], shadow["routes"]) == (2, 0, {"small>large": 2})
    assert (shadow["baseline_cost_nusd"], shadow["candidate_cost_nusd"]) == (400_000, 900_000)
    assert (shadow["baseline_priced"], shadow["candidate_priced"]) == (2, 1)


def test_it_counts_a_candidate_that_could_not_be_evaluated() -> None:
    bucket = Bucket()
    bucket.add(replace(GOOD, shadow=Shadow("small", "large", False, error=True)), None)
    assert bucket.as_dict(KEY)["shadow"]["evaluation_errors"] == 1


def test_money_is_exact_beyond_the_precision_of_doubles() -> None:
    bucket = Bucket()
    for _ in range(3):
        bucket.add(replace(GOOD, cost_nusd=2**53 - 1), None)
    assert bucket.as_dict(KEY)["cost_nusd"]["sum"] == 3 * (2**53 - 1)


def test_partial_batches_of_one_minute_add_up() -> None:
    buffer = OutcomeBuffer("r-1")
    buffer.record(KEY, GOOD)
    first = sealed(buffer)
    buffer.record(KEY, GOOD)
    buffer.record(KEY, GOOD)
    second = sealed(buffer)
    assert [bucket["tasks"] for bucket in first + second] == [1, 2]
    assert (buffer.recorded, buffer.accepted, buffer.tasks_waiting) == (3, 3, 0)


def test_it_splits_batches_at_the_limits_of_the_protocol() -> None:
    keys = [KEY._replace(endpoint=f"/{number}") for number in range(2 * MAX_BUCKETS + 1)]
    bucket = Bucket()
    bucket.add(GOOD, None)
    cut = list(batches("r-1", {"buckets": [bucket.as_dict(key) for key in keys]}))
    assert sum(batch.count for batch in cut) == len(keys)
    for batch in cut:
        assert len(batch.body) <= MAX_BYTES + 1_024
        assert len(json.loads(batch.body)["buckets"]) <= MAX_BUCKETS


def test_outcomes_being_queued_count_as_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer, waiting = OutcomeBuffer("r-1"), list[int]()
    buffer.record(KEY, GOOD)
    buffer.record(KEY, GOOD)

    def cut(*given: Any) -> Any:
        waiting.append(buffer.tasks_waiting)
        return batches(*given)

    monkeypatch.setattr("pointsman.reporting.outcomes.batches", cut)
    buffer.seal()
    assert (waiting, buffer.tasks_waiting) == ([2], 2)


def test_it_resends_the_same_bytes_until_they_are_accepted() -> None:
    buffer = OutcomeBuffer("r-1")
    buffer.record(KEY, GOOD)
    buffer.seal()
    first, again = buffer.oldest(), buffer.oldest()
    assert first is not None
    assert first is again
    buffer.accept(first)
    assert buffer.oldest() is None


def test_it_drops_and_counts_tasks_beyond_the_limit_of_buckets() -> None:
    buffer = OutcomeBuffer("r-1", max_buckets=2)
    told = [buffer.record(KEY._replace(endpoint=f"/{number}"), GOOD) for number in (1, 2, 3, 1)]
    assert told == [True, True, False, True]
    assert (buffer.recorded, buffer.dropped) == (3, 1)


def test_it_drops_and_counts_the_oldest_batch_when_memory_is_full() -> None:
    buffer = OutcomeBuffer("r-1", max_bytes=3_000)
    for endpoint in range(20):
        buffer.record(KEY._replace(endpoint=f"/{endpoint}"), GOOD)
        buffer.seal()
    left = sealed(buffer)
    assert left[-1]["endpoint"] == "/19"
    assert 0 < len(left) < 20
    assert buffer.dropped == 20 - len(left)


def test_it_resends_the_good_part_of_a_refused_batch() -> None:
    buffer = OutcomeBuffer("r-1")
    for endpoint in "abc":
        buffer.record(KEY._replace(endpoint=endpoint), GOOD)
    buffer.seal()
    batch = buffer.oldest()
    assert batch is not None
    buffer.refuse(batch, {("buckets", 1)})
    rest = buffer.oldest()
    assert rest is not None
    assert rest.id != batch.id
    assert [bucket["endpoint"] for bucket in json.loads(rest.body)["buckets"]] == ["a", "c"]
    assert (buffer.refused, buffer.tasks_waiting) == (1, 2)
    # After a crash in between, the same refusal produces the same batch, so it counts once.
    assert batch.without({("buckets", 1)})[0].id == rest.id


def test_it_drops_a_batch_refused_without_details() -> None:
    buffer = OutcomeBuffer("r-1")
    buffer.record(KEY, GOOD)
    buffer.seal()
    batch = buffer.oldest()
    assert batch is not None
    buffer.refuse(batch, set())
    assert (buffer.refused, buffer.oldest()) == (1, None)


def test_it_halves_a_batch_that_is_too_large() -> None:
    buffer = OutcomeBuffer("r-1")
    for endpoint in "abc":
        buffer.record(KEY._replace(endpoint=endpoint), GOOD)
    buffer.seal()
    while (batch := buffer.oldest()) and batch.count > 1:
        buffer.split(batch)
    assert buffer.tasks_waiting == 3
    assert buffer.refused == 0


def test_it_keeps_a_batch_and_its_id_on_disk(tmp_path: Path) -> None:
    before = OutcomeBuffer("r-1", spool=Spool(tmp_path))
    before.record(KEY, GOOD)
    before.seal()
    batch = before.oldest()
    assert batch is not None
    assert before.abandon() == 0
    after = OutcomeBuffer("r-2", spool=Spool(tmp_path))
    found = list(Spool(tmp_path, orphaned_after_s=0).orphans(set()))
    assert found == [batch]
    after.accept(found[0])
    assert list(tmp_path.iterdir()) == []


def test_it_takes_over_only_files_untouched_for_a_while(tmp_path: Path) -> None:
    first, second = OutcomeBuffer("r-1", spool=Spool(tmp_path)), OutcomeBuffer("r-2", spool=Spool(tmp_path))
    first.record(KEY, GOOD)
    first.seal()
    second.adopt()
    assert second.oldest() is None


def test_it_limits_the_spool_and_counts_drops(tmp_path: Path) -> None:
    buffer = OutcomeBuffer("r-1", spool=Spool(tmp_path, max_bytes=5_000))
    for endpoint in range(20):
        buffer.record(KEY._replace(endpoint=f"/{endpoint}"), GOOD)
        buffer.seal()
    kept = sum(1 for _ in tmp_path.iterdir())
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 5_000
    assert buffer.dropped == 0, "memory still holds them"
    buffer.abandon()
    assert buffer.dropped == 20 - kept


@pytest.mark.parametrize("max_bytes", [2_000, 1 << 20])
def test_a_task_is_either_accepted_or_dropped(tmp_path: Path, max_bytes: int) -> None:
    """What a full spool had no room for counted as dropped, and then as accepted."""
    spool = Spool(tmp_path, max_bytes=3_000, orphaned_after_s=0)
    buffer = OutcomeBuffer("r-1", max_bytes=max_bytes, spool=spool)
    for endpoint in range(20):
        buffer.record(KEY._replace(endpoint=f"/{endpoint}"), GOOD)
        buffer.seal()
    sealed(buffer)
    buffer.adopt()
    sealed(buffer)
    assert (buffer.recorded, buffer.accepted + buffer.dropped) == (20, 20)
    assert (buffer.dropped == 0) == (max_bytes > 2_000)


def test_it_removes_a_damaged_file_from_the_spool(tmp_path: Path) -> None:
    (tmp_path / "5f0c7a60-0000-4000-8000-000000000000.json").write_bytes(b'{"batch_id": "5f0c')
    assert list(Spool(tmp_path, orphaned_after_s=0).orphans(set())) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"batch_id": "5f0c7a60-0000-4000-8000-000000000000", "router": "r\\u00e9", "buckets": []}',
        b'{"batch_id": "5f0c7a60-0000-4000-8000-000000000000", "router": 7, "buckets": []}',
    ],
)
def test_it_skips_a_file_that_cannot_be_sent(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "5f0c7a60-0000-4000-8000-000000000000.json").write_bytes(body)
    assert list(Spool(tmp_path, orphaned_after_s=0).orphans(set())) == []


def test_it_ignores_files_that_are_not_its_own(tmp_path: Path) -> None:
    others = tmp_path / "config.json"
    others.write_text('{"port": 8000}')
    spool = Spool(tmp_path, max_bytes=1, orphaned_after_s=0)
    assert list(spool.orphans(set())) == []
    buffer = OutcomeBuffer("r-1", spool=spool)
    for _ in range(2):
        buffer.record(KEY, GOOD)
        buffer.seal()
    assert others.exists()


def test_it_keeps_a_batch_that_is_temporarily_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = OutcomeBuffer("r-1", spool=Spool(tmp_path))
    buffer.record(KEY, GOOD)
    buffer.seal()
    spool = Spool(tmp_path, orphaned_after_s=0)

    def no_descriptors(file: Path) -> bytes:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", no_descriptors)
        assert list(spool.orphans(set())) == []
    assert [batch.count for batch in spool.orphans(set())] == [1]


def test_it_continues_in_memory_if_the_disk_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    buffer = OutcomeBuffer("r-1", spool=Spool(tmp_path / "file"))
    buffer.record(KEY, GOOD)
    buffer.seal()
    assert buffer.tasks_waiting == 1


def test_it_counts_what_is_lost_at_the_end() -> None:
    buffer = OutcomeBuffer("r-1")
    buffer.record(KEY, GOOD)
    buffer.seal()
    buffer.record(KEY, GOOD)
    assert buffer.abandon() == 2
    assert buffer.dropped == 2
