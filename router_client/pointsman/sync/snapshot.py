"""Snapshots, from the received bytes to the assignments that decisions use. They are applied as a whole or not at all.

    Received → PublicKeys.verify → parse → Snapshot.of(document, current) → one new, immutable Snapshot

A delta is applied to the current snapshot's entries and results in the same snapshot as a full body. Only the policies
that this router cannot run are rejected: with a bad candidate, the workload uses the baseline of the
same entry; with a bad baseline, it keeps its last good assignment. All other workloads are updated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pointsman.assignment import WorkloadAssignment, compile_checked
from pointsman.costs import NO_PRICES, Prices
from pointsman.errors import PolicyInvalid, SnapshotRefused

if TYPE_CHECKING:
    from pointsman.evaluate import CompiledPolicy

__all__ = ["FORMAT", "SnapshotDocument", "Rejection", "Snapshot", "parse"]

FORMAT = 1
_DEFAULT_INTERVAL_MS = 10_000


@dataclass(frozen=True, slots=True)
class SnapshotDocument:
    """A parsed snapshot body.

    since      the revision that a delta follows
    selection  the workloads that the request named, or nothing for all

    An older control plane sends neither.
    """

    environment: str
    epoch: str
    revision: int
    full: bool
    workloads: Mapping[str, Mapping[str, Any]]
    removed: tuple[str, ...]
    poll_interval_ms: int
    since: int | None = None
    selection: tuple[str, ...] | None = None
    prices: Prices = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A policy that this router does not run, with the reason, to be reported to the control plane."""

    workload: str
    digest: str
    error: str


@dataclass(frozen=True, slots=True)
class _Applied:
    """One workload: the received entry, the entry in use (a different one after a rejection), and the results."""

    entry: Mapping[str, Any]
    served: Mapping[str, Any] | None
    assignment: WorkloadAssignment | None
    rejections: tuple[Rejection, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one environment serves at one revision. Immutable; the next snapshot replaces it.

    workloads  the assignments by name; for rejected policies as explained above
    rejected   all policies in this snapshot that this router does not run
    prices     the prices of the catalogue models, to compute costs from tokens
    etag       the validator to poll with; None if the response had none
    """

    environment: str
    epoch: str
    revision: int
    etag: str | None
    poll_interval_ms: int
    workloads: Mapping[str, WorkloadAssignment]
    rejected: tuple[Rejection, ...]
    prices: Prices
    _applied: Mapping[str, _Applied] = field(repr=False)

    @property
    def entries(self) -> Mapping[str, Mapping[str, Any]]:
        """The workload entries as received."""
        return {name: applied.entry for name, applied in self._applied.items()}

    @classmethod
    def of(
        cls,
        document: SnapshotDocument,
        current: Snapshot | None,
        etag: str | None,
        validator: str | None = None,
    ) -> Snapshot:
        """Build the snapshot that follows `current`. After SnapshotRefused nothing has changed.

        etag       the control plane's ETag, which must be of this revision
        validator  used for polls instead of `etag` if the body did not come from the control plane
        """
        _check_succession(document, current, etag)
        before = current._applied if current is not None else {}
        # A delta contains only the models of its own workloads.
        before_prices = current.prices if current is not None and not document.full else NO_PRICES
        kept = {} if document.full else {n: a for n, a in before.items() if n not in document.removed}
        policies = _Policies(before)
        changed = {
            name: _apply(name, entry, before.get(name), document.environment, policies)
            for name, entry in document.workloads.items()
        }
        applied = {**kept, **changed}
        return cls(
            environment=document.environment,
            epoch=document.epoch,
            revision=document.revision,
            etag=validator or etag,
            poll_interval_ms=document.poll_interval_ms,
            workloads=MappingProxyType(
                {n: a.assignment for n, a in applied.items() if a.assignment is not None}
            ),
            rejected=tuple(rejection for a in applied.values() for rejection in a.rejections),
            prices=MappingProxyType({**before_prices, **document.prices}),
            _applied=MappingProxyType(applied),
        )


def parse(body: bytes) -> SnapshotDocument:
    """Parse a verified body. Raises SnapshotRefused if it is not a snapshot in format 1."""
    try:
        data = json.loads(body, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise SnapshotRefused(
            "malformed", f"the body is not JSON: {error or type(error).__name__}"
        ) from error
    if not isinstance(data, dict):
        raise SnapshotRefused("malformed", "the body is not a JSON object")
    if data.get("format") != FORMAT or isinstance(data.get("format"), bool):
        raise SnapshotRefused(
            "unknown_format",
            f"snapshot format {data.get('format')!r}; this version of pointsman reads {FORMAT}",
        )
    return SnapshotDocument(
        environment=_typed(data, "environment", str),
        epoch=_typed(data, "epoch", str),
        revision=_whole(data, "revision"),
        full=_typed(data, "full", bool),
        workloads=_objects(_typed(data, "workloads", dict)),
        removed=_names("removed", data.get("removed") or []),
        poll_interval_ms=_whole(data, "poll_interval_ms", _DEFAULT_INTERVAL_MS),
        since=_whole(data, "since") if data.get("since") is not None else None,
        selection=_names("selection", data["selection"]) if data.get("selection") is not None else None,
        prices=_prices(data.get("prices") or {}),
    )


def _check_succession(document: SnapshotDocument, current: Snapshot | None, etag: str | None) -> None:
    parts = (etag or "").removeprefix("W/").strip('"').rsplit(".", 2)
    # An ETag of another shape was made by a proxy; one of another revision would confirm the wrong snapshot.
    # The numbers are compared as text, because Python reads no integer of more than 4,300 digits.
    if (
        len(parts) == 3
        and parts[1].isdigit()
        and (parts[0], parts[1].lstrip("0") or "0") != (document.epoch, str(document.revision))
    ):
        raise SnapshotRefused("etag_mismatch", f"the ETag {etag} is of another revision than the body")
    if current is None:
        if not document.full:
            raise SnapshotRefused(
                "delta_without_base", "a delta was received, but there is no snapshot to apply it to"
            )
        return
    if document.environment != current.environment:
        raise SnapshotRefused(
            "environment_mismatch",
            f"the snapshot is of {document.environment!r}, this router follows {current.environment!r}",
        )
    same_epoch = document.epoch == current.epoch
    if same_epoch and document.revision < current.revision:
        raise SnapshotRefused(
            "lower_revision", f"revision {document.revision} came after {current.revision} of the same epoch"
        )
    if not document.full and (not same_epoch or (document.since or 0) > current.revision):
        raise SnapshotRefused("delta_mismatch", "the delta does not continue the applied snapshot")


class _Policies:
    """Compiles each policy only once while it is served.

    The digest alone does not suffice for a lookup: only content checked against its digest may be reused.
    """

    def __init__(self, before: Mapping[str, _Applied]) -> None:
        self._known: dict[str, tuple[Any, CompiledPolicy]] = {}
        for applied in before.values():
            for side, arm in _sides(applied):
                self._known[side["digest"]] = (side["policy"], arm)

    def __call__(self, digest: str, policy: Mapping[str, Any]) -> CompiledPolicy:
        known = self._known.get(digest)
        if known is not None and known[0] == policy:
            return known[1]
        compiled = compile_checked(digest, policy)
        self._known[digest] = (policy, compiled)
        return compiled


def _sides(applied: _Applied) -> list[tuple[Mapping[str, Any], CompiledPolicy]]:
    assignment, served = applied.assignment, applied.served
    if assignment is None or served is None:
        return []
    sides = [(served["baseline"], assignment.baseline.policy)]
    if assignment.candidate is not None:
        sides.append((served["candidate"], assignment.candidate.policy))
    return sides


def _apply(
    name: str, entry: Mapping[str, Any], before: _Applied | None, environment: str, policies: _Policies
) -> _Applied:
    if before is not None and before.entry == entry:
        return before
    bad = {
        arm: why
        for arm in ("baseline", "candidate")
        if (why := _rejection(name, entry.get(arm), arm, policies))
    }
    rejections = tuple(bad.values())
    served: Mapping[str, Any] | None = entry
    if "baseline" in bad:
        # The pin is the emergency switch; it must work especially for a workload whose new policy is broken.
        served = {**before.served, "pin": entry.get("pin")} if before is not None and before.served else None
    elif "candidate" in bad:
        served = {**entry, "candidate": None, "rollout": None}
    if served is None:
        return _Applied(entry, None, None, rejections)
    try:
        assignment = WorkloadAssignment.build(name, served, environment=environment, compiled=policies)
    except (SnapshotRefused, PolicyInvalid) as error:
        rejection = Rejection(name, _digest(entry.get("candidate") or entry.get("baseline")), str(error))
        last = (before.served, before.assignment) if before is not None else (None, None)
        return _Applied(entry, *last, (*rejections, rejection))
    return _Applied(entry, served, assignment, rejections)


def _rejection(name: str, side: Any, arm: str, policies: _Policies) -> Rejection | None:
    if side is None and arm == "candidate":
        return None
    try:
        policies(side["digest"], side["policy"])
    except (SnapshotRefused, PolicyInvalid) as error:
        return Rejection(name, _digest(side), str(error))
    except Exception as error:  # Whatever a policy does to the compiler, the other workloads must be updated.
        return Rejection(name, _digest(side), f"{type(error).__name__}: {error}")
    return None


def _digest(side: Any) -> str:
    return str(side.get("digest", "")) if isinstance(side, Mapping) else ""


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("an object has a duplicate key")
    return data


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _typed(data: Mapping[str, Any], key: str, kind: type) -> Any:
    value = data.get(key)
    if not isinstance(value, kind):
        raise SnapshotRefused("malformed", f"{key} must be a {kind.__name__}, not {type(value).__name__}")
    return value


def _whole(data: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = data.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise SnapshotRefused("malformed", f"{key} must be a whole number from 0 up, not {value!r}")
    return value


def _objects(workloads: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    for name, entry in workloads.items():
        if not isinstance(entry, dict):
            raise SnapshotRefused(
                "malformed", f"workload {name} must be an object, not {type(entry).__name__}"
            )
    return workloads


def _prices(prices: Any) -> Prices:
    """Return the readable prices. An invalid price only makes costs unknown; policies are applied anyway."""
    if not isinstance(prices, dict):
        return NO_PRICES
    return {
        model: {kind: price for kind, price in entry.items() if _is_price(price)}
        for model, entry in prices.items()
        if isinstance(entry, dict)
    }


def _is_price(price: Any) -> bool:
    return isinstance(price, int) and not isinstance(price, bool) and price >= 0


def _names(key: str, names: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SnapshotRefused("malformed", f"{key} must be a list of workload names")
    return tuple(names)
