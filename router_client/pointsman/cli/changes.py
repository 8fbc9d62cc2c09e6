"""The changes that make a control plane match a folder: compare first, then apply in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from pointsman.cli.desired import BOUND, Desired, DesiredWorkload, guardrail_name, guardrail_settings
from pointsman.cli.output import CliError
from pointsman.cli.server import Server, path

__all__ = ["Change", "Overtaken", "compare", "is_requested", "under_way", "waiting_to_serve"]

UNDER_WAY = ("draft", "awaiting_approval", "scheduled", "running", "paused", "rolling_back")


class Overtaken(CliError):
    """Another client changed the same thing first. What was sent has been made, with another outcome."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change to be made. `details` maps the changed fields to (before, after)."""

    action: str  # create, update, propose, serve
    kind: str
    name: str
    details: Mapping[str, tuple[Any, Any]]
    do: Callable[[Server, str], Any]

    def __str__(self) -> str:
        return f"{self.action} {self.kind} {self.name}"

    def as_dict(self) -> dict[str, Any]:
        """Return the change for `--json`."""
        details = {name: {"before": before, "after": after} for name, (before, after) in self.details.items()}
        return {"action": self.action, "kind": self.kind, "name": self.name, "changes": details}


def compare(server: Server, desired: Desired) -> list[Change]:
    """Return the changes in the order in which they can be applied; empty if the control plane matches the folder."""
    server.check()
    changes: list[Change] = []
    for kind, wanted in (
        ("models", desired.models),
        ("environments", desired.environments),
        ("plans", desired.plans),
    ):
        for name, fields in wanted.items():
            changes += _things(server, kind, name, fields)
    for workload in desired.workloads.values():
        changes += _workload(server, workload)
    return changes


def _things(server: Server, kind: str, name: str, fields: Mapping[str, Any]) -> Iterator[Change]:
    """Yield the changes that create objects or update the fields that differ."""
    present = server.find(path(kind, name))
    if present is None:
        yield Change("create", kind[:-1], name, _all(fields), _posts(kind, {**fields, "name": name}))
        return
    different = _different(fields, present)
    if different:
        body = {field: after for field, (_, after) in different.items()}
        yield Change("update", kind[:-1], name, different, _updates(path(kind, name), body))


def _workload(server: Server, wanted: DesiredWorkload) -> Iterator[Change]:
    present = server.find(path("workloads", wanted.name))
    if present is None:
        fields = {**wanted.fields, "name": wanted.name}
        yield Change("create", "workload", wanted.name, _all(wanted.fields), _posts("workloads", fields))
    elif different := _different(wanted.fields, present):
        body = {field: after for field, (_, after) in different.items()}
        yield Change(
            "update", "workload", wanted.name, different, _updates(path("workloads", wanted.name), body)
        )
    yield from _guardrails(server, wanted, present is not None)
    if wanted.policy is not None:
        yield from _policy(server, wanted, present is not None)


def _guardrails(server: Server, wanted: DesiredWorkload, exists: bool) -> Iterator[Change]:
    base = path("workloads", wanted.name, "guardrails")
    present = {guardrail_name(one): one for one in server.every(base)} if exists else {}
    for name, settings in wanted.guardrails.items():
        own = present.get(name, {})
        if different := _different(settings, own):
            # A PUT replaces all settings; without those that the folder does not mention it would reset them.
            body = {**guardrail_settings(own), **settings}
            where = f"{base}/{path(name.removesuffix(BOUND))}"
            yield Change(
                "update",
                "guardrail",
                f"{wanted.name}/{name}",
                different,
                _puts(where, body, own.get("version")),
            )


def _policy(server: Server, wanted: DesiredWorkload, exists: bool) -> Iterator[Change]:
    """Yield a new version if the document has changed, and a rollout for each listed environment."""
    versions = list(server.every(path("workloads", wanted.name, "versions"))) if exists else []
    known = {one["digest"]: one["number"] for one in versions}
    number = known.get(wanted.policy_digest)
    if number is None:
        number = max(known.values(), default=0) + 1
        where = path("workloads", wanted.name, "versions")
        details = {"digest": (None, wanted.policy_digest)}
        do = _adds_version(where, {"policy": wanted.policy}, number)
        yield Change("create", "version", f"{wanted.name}/{number}", details, do)
    for environment, settings in wanted.environments.items():
        yield from _serving(server, wanted.name, environment, settings, number)


def _serving(
    server: Server, workload: str, environment: str, settings: Mapping[str, Any], number: int
) -> Iterator[Change]:
    present = server.find(path("environments", environment, "assignments", workload))
    name = f"{workload} in {environment}"
    if present is None or present.get("baseline") is None:
        if waiting_to_serve(server, environment, workload, number):
            return
        where = path("environments", environment, "assignments", workload, "serve")
        yield Change(
            "serve",
            "version",
            f"{number} of {name}",
            {"version": (None, number)},
            _posts(where, {"version": number}),
        )
        return
    if present["baseline"] == number or present.get("candidate") == number:
        return
    moving = [
        one
        for one in server.every("rollouts", environment=environment, workload=workload)
        if one["state"] in UNDER_WAY
    ]
    if any(one["candidate"] == number for one in moving):
        return
    body: dict[str, Any] = {"environment": environment, "workload": workload, "candidate": number}
    if "stages" in settings:
        body["stages"] = settings["stages"]
    else:
        body["plan"] = settings.get("plan", "standard")
    details = {"version": (present["baseline"], number), "plan": (None, body.get("plan", "stages"))}
    yield Change("propose", "rollout", f"of version {number} of {name}", details, _posts("rollouts", body))


def under_way(server: Server, desired: Desired) -> Iterator[dict[str, Any]]:
    """Yield the rollouts of the folder's policies in its environments that have not ended, also of earlier runs."""
    for workload in desired.workloads.values():
        for environment in workload.environments if workload.policy is not None else ():
            for one in server.every("rollouts", environment=environment, workload=workload.name):
                if one["state"] in UNDER_WAY and one["candidate_digest"] == workload.policy_digest:
                    yield one


def waiting_to_serve(server: Server, environment: str, workload: str, number: int) -> bool:
    """Return whether serving this version has been requested and waits for another person's approval."""
    return any(
        (one["action"], one["environment"], one["workload"], one["subject"].get("version"))
        == ("assignment.serve_first", environment, workload, number)
        for one in server.every("change-requests", state="waiting")
    )


def is_requested(answer: Any) -> bool:
    """Return whether the API answered with a change request: the change waits for another person's approval."""
    return isinstance(answer, Mapping) and "requested_by" in answer


def _different(wanted: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    for name, value in wanted.items():
        if isinstance(value, str) and isinstance(present.get(name), bool):
            # In YAML 1.2 `yes` is a text. The API takes it for true, so each run would change it again.
            raise CliError(f"{name} must be true or false, not {value[:40]}.")
    return {
        name: (present.get(name), value)
        for name, value in wanted.items()
        if name != "name" and not _same(present.get(name), value, name in _DECIMALS)
    }


_DECIMALS = ("quality_bar", "mirror_budget_usd")  # the API returns them as text with a fixed number of digits


def _same(present: Any, wanted: Any, decimal: bool = False) -> bool:
    """Return whether two values are equal. `decimal`: texts are compared as numbers."""
    if isinstance(present, Mapping) and isinstance(wanted, Mapping):
        return all(_same(present.get(name), value) for name, value in wanted.items())
    if isinstance(present, list) and isinstance(wanted, list):
        return len(present) == len(wanted) and all(map(_same, present, wanted))
    number = isinstance(wanted, (int, float)) and not isinstance(wanted, bool)
    if isinstance(present, str) and (number or (decimal and isinstance(wanted, str))):
        try:
            return Decimal(present) == Decimal(str(wanted))
        except InvalidOperation:
            return False
    return bool(present == wanted)


def _all(fields: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (None, value) for name, value in fields.items() if name != "name"}


def _adds_version(where: str, body: Mapping[str, Any], number: int) -> Callable[[Server, str], Any]:
    """Return the change that adds the version. It fails if the version gets another number than the one planned.

    The changes after it name the planned number, which is then somebody else's version.
    """

    def do(server: Server, reason: str) -> Any:
        made = server.post(where, {**body, "note": reason})
        if made["number"] != number:
            raise Overtaken(
                f"It became version {made['number']}, because another version was added meanwhile; run it again."
            )
        return made

    return do


def _posts(where: str, body: Mapping[str, Any]) -> Callable[[Server, str], Any]:
    return lambda server, reason: server.post(where, {**body, "reason": reason})


def _updates(where: str, body: Mapping[str, Any]) -> Callable[[Server, str], Any]:
    return lambda server, reason: server.patch(where, {**body, "reason": reason})


def _puts(where: str, body: Mapping[str, Any], version: int | None) -> Callable[[Server, str], Any]:
    return lambda server, reason: server.put(where, {**body, "reason": reason}, version)
