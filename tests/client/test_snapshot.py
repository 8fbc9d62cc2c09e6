"""Snapshots are verified before they are parsed, and applied completely or not at all."""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman import ConfigurationError, SnapshotRefused
from pointsman.choose import decide
from pointsman.policy.canonical import digest
from pointsman.sync.last_known_good import LastKnownGood
from pointsman.sync.signature import PREFIX, PublicKeys
from pointsman.sync.snapshot import Snapshot, parse
from pointsman.sync.store import DiskStore, Received
from tests.client.policies import always, two_stage

KEY = Ed25519PrivateKey.generate()
POLICIES = (two_stage(), always("small"), always("large"))


def version(number: int, policy: dict[str, Any], named: str | None = None) -> dict[str, Any]:
    return {"version": number, "digest": named or digest(policy), "policy": policy}


def entry(revision: int, policy: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    baseline = version(1, policy or two_stage())
    return {
        "revision": revision, "unit": "request", "baseline": baseline, "candidate": None, "rollout": None,
        "pin": None, **changes,
    }  # fmt: skip


def rolling(mode: str = "full") -> dict[str, Any]:
    return {"id": "r-1", "stage": 1, "mode": mode, "share_pcm": 100_000, "salt": "s", "mirror_pcm": 0}


def body(revision: Any = 1, workloads: Any = None, **changes: Any) -> bytes:
    data = {
        "format": 1, "environment": "production", "epoch": "e1", "revision": revision, "full": True,
        "poll_interval_ms": 10_000, "removed": [],
        "workloads": {"summaries": entry(1)} if workloads is None else workloads, **changes,
    }  # fmt: skip
    return json.dumps(data).encode()


def signed(content: bytes, key: Ed25519PrivateKey = KEY, keyid: str = "k1") -> Received:
    signature = b64encode(key.sign(PREFIX + content)).decode()
    return Received(content, None, f"keyid={keyid}, alg=ed25519, sig={signature}")


def trusting(*keyids: str) -> LastKnownGood:
    raw = KEY.public_key().public_bytes_raw()
    return LastKnownGood(keys=PublicKeys({keyid: b64encode(raw).decode() for keyid in keyids or ("k1",)}))


def refusal(good: LastKnownGood, received: Received) -> str:
    before = good.current
    with pytest.raises(SnapshotRefused) as caught:
        good.receive(received)
    assert good.current is before
    return caught.value.code


def model(snapshot: Snapshot | None, workload: str = "summaries") -> str:
    assert snapshot is not None
    return decide(snapshot.workloads[workload], {}).model


# Signatures


def test_it_applies_a_snapshot_signed_with_a_trusted_key() -> None:
    good = trusting()
    good.receive(signed(body()))
    assert model(good.current) == "vendor/small"


def test_during_a_rotation_it_accepts_either_signature() -> None:
    old = signed(body(), Ed25519PrivateKey.generate(), "k0")
    new = signed(body())
    both = Received(new.body, None, f"{old.signature}, {new.signature}")
    assert trusting().receive(both).revision == 1


@pytest.mark.parametrize(
    ("received", "code"),
    [
        (Received(body()), "signature_missing"),
        (Received(body(), None, "nonsense"), "signature_unknown"),
        (signed(body(), keyid="k9"), "signature_unknown"),
        (signed(body(), Ed25519PrivateKey.generate()), "signature_invalid"),
        (Received(body(2), None, signed(body(1)).signature), "signature_invalid"),
        (Received(body(), None, "keyid=k1, alg=none, sig=AAAA"), "signature_unknown"),
        (Received(body(), None, "keyid=k1, alg=ed25519, sig=AAA"), "signature_invalid"),
    ],
)
def test_it_refuses_a_snapshot_not_signed_with_a_trusted_key(received: Received, code: str) -> None:
    assert refusal(trusting(), received) == code


def test_it_refuses_a_signature_over_the_bare_body() -> None:
    content = body()
    bare = b64encode(KEY.sign(content)).decode()
    assert (
        refusal(trusting(), Received(content, None, f"keyid=k1, alg=ed25519, sig={bare}"))
        == "signature_invalid"
    )


def test_it_verifies_before_it_parses() -> None:
    assert refusal(trusting(), Received(b"[" * 100_000, None, signed(b"x").signature)) == "signature_invalid"


def test_it_accepts_keys_as_bytes_base64_and_pem() -> None:
    raw = KEY.public_key().public_bytes_raw()
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for key in (raw, b64encode(raw), b64encode(raw).decode(), pem, pem.decode()):
        PublicKeys({"k1": key}).verify(body(), signed(body()).signature)


def test_it_accepts_keys_as_printed_by_the_control_plane() -> None:
    text = f"k1:{b64encode(KEY.public_key().public_bytes_raw()).decode()}"
    for keys in (text, [text, "k2" + text[2:]]):
        PublicKeys(keys).verify(body(), signed(body()).signature)


@pytest.mark.parametrize(
    "keys", [{}, [], "no colon", {"k1": "short"}, {"k1": b"x" * 31}, {"k1": "-----BEGIN nothing"}]
)
def test_it_does_not_start_with_an_invalid_key(keys: Any) -> None:
    with pytest.raises(ConfigurationError):
        PublicKeys(keys)


# Invalid snapshots


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "malformed"),
        (b"[]", "malformed"),
        (b"[" * 100_000, "malformed"),
        (b'{"format": 1, "format": 1}', "malformed"),
        (b'{"format": NaN}', "malformed"),
        (b"\xff\xfe\x00", "malformed"),
        (body(format=2), "unknown_format"),
        (body(format=True), "unknown_format"),
        (body(format="1"), "unknown_format"),
        (body(revision=-1), "malformed"),
        (body(revision="1"), "malformed"),
        (body(epoch=None), "malformed"),
        (body(workloads=[]), "malformed"),
        (body(workloads={"a": None}), "malformed"),
        (body(removed=[1]), "malformed"),
        (body(selection="all"), "malformed"),
        (body(full="yes"), "malformed"),
        (body(poll_interval_ms=1.5), "malformed"),
    ],
)
def test_it_refuses_an_invalid_snapshot(content: bytes, code: str) -> None:
    assert refusal(LastKnownGood(), Received(content)) == code


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_it_refuses_any_other_bytes_without_an_unexpected_error(content: bytes) -> None:
    with pytest.raises(SnapshotRefused):
        parse(content)


# Succession


def test_it_refuses_a_lower_revision_of_the_same_epoch() -> None:
    good = LastKnownGood()
    good.receive(Received(body(7)))
    assert refusal(good, Received(body(6))) == "lower_revision"


def test_it_follows_a_new_epoch_to_any_revision() -> None:
    good = LastKnownGood()
    good.receive(Received(body(7)))
    assert good.receive(Received(body(1, epoch="e2"))).revision == 1


def test_it_refuses_another_environment() -> None:
    good = LastKnownGood()
    good.receive(Received(body(1)))
    assert refusal(good, Received(body(2, environment="staging"))) == "environment_mismatch"
    assert refusal(LastKnownGood(environment="staging"), Received(body())) == "environment_mismatch"


@pytest.mark.parametrize(
    "etag", ['"e1.8.0123456789abcdef"', 'W/"e1.8.0123456789abcdef"', '"e0.7.0123456789abcdef"']
)
def test_it_refuses_an_etag_of_another_revision(etag: str) -> None:
    assert refusal(LastKnownGood(), Received(body(7), etag)) == "etag_mismatch"


@pytest.mark.parametrize("etag", ['"e1.7.0123456789abcdef"', 'W/"e1.7.0123456789abcdef"', '"proxy"', None])
def test_it_accepts_an_etag_of_its_revision_or_of_a_proxy(etag: str | None) -> None:
    assert LastKnownGood().receive(Received(body(7), etag)).etag == etag


# Deltas


def test_it_refuses_a_delta_that_it_cannot_apply() -> None:
    good = LastKnownGood()
    assert refusal(good, Received(body(full=False))) == "delta_without_base"
    good.receive(Received(body(3)))
    assert refusal(good, Received(body(5, full=False, since=4))) == "delta_mismatch"
    assert refusal(good, Received(body(5, full=False, epoch="e2"))) == "delta_mismatch"


def test_it_refuses_another_selection_than_it_asked_for() -> None:
    good = trusting()
    assert refusal(good, signed(body(selection=["summaries"]))) == "selection_mismatch"
    good.workloads = ("summaries", "other", "summaries")
    assert refusal(good, signed(body(selection=["summaries"]))) == "selection_mismatch"
    assert good.receive(signed(body(selection=["other", "summaries"]))).revision == 1
    assert good.receive(signed(body(2))).revision == 2  # an older control plane does not say it


def test_a_stored_selection_is_that_of_an_earlier_configuration(tmp_path: Path) -> None:
    before = LastKnownGood(store=DiskStore(tmp_path / "snapshot"))
    before.workloads = ("summaries",)
    before.receive(Received(body(selection=["summaries"])))
    after = LastKnownGood(store=DiskStore(tmp_path / "snapshot"))
    assert model(after.load()) == "vendor/small"


def test_a_refused_delta_changes_nothing() -> None:
    good = LastKnownGood()
    good.receive(Received(body(3)))
    broken = {"summaries": entry(4, always("large")), "other": None}
    assert refusal(good, Received(body(4, broken, full=False))) == "malformed"
    assert model(good.current) == "vendor/small"


NAMES = st.sampled_from(["a", "b", "c", "d"])
CHANGES = st.lists(st.tuples(NAMES, st.none() | st.integers(0, len(POLICIES) - 1)), min_size=1, max_size=8)


@settings(deadline=None, max_examples=60)
@given(st.lists(CHANGES, min_size=1, max_size=5))
def test_deltas_lead_to_the_same_state_as_a_full_snapshot(steps: list[list[tuple[str, int | None]]]) -> None:
    by_delta = LastKnownGood()
    by_delta.receive(Received(body(1, {})))
    workloads: dict[str, Any] = {}
    for revision, changes in enumerate(steps, start=2):
        for name, policy in changes:
            if policy is None:
                workloads.pop(name, None)
            else:
                workloads[name] = entry(revision, {**POLICIES[policy], "workload": name})
        changed = {name: workloads[name] for name, _ in changes if name in workloads}
        removed = [name for name, _ in changes if name not in workloads]
        by_delta.receive(Received(body(revision, changed, full=False, removed=removed)))
    full = LastKnownGood().receive(Received(body(len(steps) + 1, workloads)))
    current = by_delta.current
    assert current is not None
    assert current.entries == full.entries
    assert {name: model(current, name) for name in current.workloads} == {
        n: model(full, n) for n in full.workloads
    }
    assert (current.revision, current.rejected) == (full.revision, full.rejected)


# Policies


def test_it_compiles_a_policy_once_while_it_is_served() -> None:
    good = LastKnownGood()
    first = good.receive(Received(body(1)))
    second = good.receive(Received(body(2, {"summaries": entry(2, pin={"model": "large", "reason": ""})})))
    policies = [snapshot.workloads["summaries"].baseline.policy for snapshot in (first, second)]
    assert policies[0] is policies[1]
    assert model(second) == "vendor/large"


def test_it_rejects_only_a_bad_baseline_and_keeps_the_last_good_one() -> None:
    good = LastKnownGood()
    good.receive(Received(body(1, {"summaries": entry(1), "other": entry(1)})))
    bad = two_stage(default="nobody")
    after = good.receive(Received(body(2, {"summaries": entry(2, bad), "other": entry(2, always("large"))})))
    assert (model(after), model(after, "other")) == ("vendor/small", "vendor/large")
    assert [(r.workload, r.digest) for r in after.rejected] == [("summaries", digest(bad))]
    assert "nobody" in after.rejected[0].error
    healed = good.receive(Received(body(3, {"summaries": entry(3, always("large")), "other": entry(2)})))
    assert (model(healed), healed.rejected) == ("vendor/large", ())


def test_a_pin_applies_despite_a_bad_new_baseline() -> None:
    good = LastKnownGood()
    good.receive(Received(body(1)))
    pinned = entry(2, two_stage(default="nobody"), pin={"model": "large", "reason": "incident"})
    assert model(good.receive(Received(body(2, {"summaries": pinned})))) == "vendor/large"


def test_a_bad_candidate_leaves_the_workload_on_its_baseline() -> None:
    good = LastKnownGood()
    good.receive(Received(body(1)))
    bad = version(2, two_stage(format=99))
    mixed = entry(2, always("large"), candidate=bad, rollout=rolling())
    after = good.receive(Received(body(2, {"summaries": mixed})))
    decision = decide(after.workloads["summaries"], {})
    assert (decision.model, decision.arm, decision.rollout) == ("vendor/large", "baseline", None)
    assert [r.digest for r in after.rejected] == [bad["digest"]]


def test_it_rejects_a_policy_with_another_digest() -> None:
    good = LastKnownGood()
    forged = entry(1)
    forged["baseline"] = version(1, always("large"), named=digest(two_stage()))
    after = good.receive(Received(body(1, {"summaries": forged})))
    assert dict(after.workloads) == {}
    assert "digest" in after.rejected[0].error


def test_it_does_not_reuse_a_compiled_policy_for_other_content_under_its_digest() -> None:
    good = LastKnownGood()
    good.receive(Received(body(1)))
    forged = entry(2)
    forged["baseline"] = version(1, always("large"), named=digest(two_stage()))
    after = good.receive(Received(body(2, {"summaries": forged})))
    assert model(after) == "vendor/small"
    assert len(after.rejected) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"baseline": None},
        {"baseline": {}},
        {"baseline": {"version": "x", "digest": 1, "policy": []}},
        {"candidate": {"version": 2}, "rollout": {}},
        {"candidate": version(2, always("large")), "rollout": {"id": "r"}},
        {"candidate": version(2, always("large")), "rollout": rolling("sideways")},
        {"pin": "large"},
        {"pin": {"reason": "no model"}},
    ],
)
def test_it_rejects_only_the_malformed_entry(changes: dict[str, Any]) -> None:
    good = LastKnownGood()
    good.receive(Received(body(1, {"summaries": entry(1), "other": entry(1)})))
    workloads = {"summaries": entry(2, **changes), "other": entry(2, always("large"))}
    after = good.receive(Received(body(2, workloads)))
    assert (model(after), model(after, "other")) == ("vendor/small", "vendor/large")
    assert {rejection.workload for rejection in after.rejected} == {"summaries"}
