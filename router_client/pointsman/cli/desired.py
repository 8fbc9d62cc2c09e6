"""A folder of YAML files that describes the desired state of a control plane.

    models.yaml                     a list of models, each with `name` and any other field of the API
    environments.yaml               a list of environments
    plans.yaml                      a list of plans
    workloads/<name>/workload.yaml  the workload's fields; `guardrails: {failure: {margin: 0.01}}`, and absolute
                                    guardrails by the name in their verdicts, `error_bound: {bound: 0.02}`;
                                    `environments: {production: {plan: standard}}`: where to serve its policy
    workloads/<name>/policy.yaml    the policy document, or policy.json

All files are optional. Only the fields present in a file are compared and changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pointsman.cli.output import CliError
from pointsman.errors import ConfigurationError, PolicyInvalid
from pointsman.policy import digest, load
from pointsman.policy.text import read
from pointsman.visible import one_line

__all__ = ["BOUND", "Desired", "DesiredWorkload", "guardrail_name", "guardrail_settings", "read_folder"]

MOST_BYTES = 1 << 20  # of a file: a catalogue of thousands of models
BOUND = "_bound"  # ends the name of an absolute guardrail, as in verdicts


@dataclass(frozen=True, slots=True)
class DesiredWorkload:
    """One workload of the folder. `policy` is None if the folder has no document for it."""

    name: str
    fields: Mapping[str, Any]
    guardrails: Mapping[str, Mapping[str, Any]]
    environments: Mapping[str, Mapping[str, Any]]
    policy: dict[str, Any] | None
    policy_digest: str | None


@dataclass(slots=True)
class Desired:
    """The contents of a folder, by kind and name."""

    models: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    environments: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    plans: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    workloads: dict[str, DesiredWorkload] = field(default_factory=dict)


def read_folder(folder: Path) -> Desired:
    """Read the whole folder. If any file is invalid, raise a `CliError` that lists all invalid files."""
    if not folder.is_dir():
        raise CliError(f"{folder} is not a folder.")
    wrong: list[str] = []
    desired = Desired(
        _named(folder / "models.yaml", wrong),
        _named(folder / "environments.yaml", wrong),
        _named(folder / "plans.yaml", wrong),
    )
    for name, fields in desired.plans.items():
        if isinstance(fields.get("stages"), list):
            desired.plans[name] = {**fields, "stages": [_whole_stage(stage) for stage in fields["stages"]]}
    for home in sorted((folder / "workloads").glob("*/")):
        if home.is_dir() and (found := _workload(home, wrong)) is not None:
            if found.name in desired.workloads:
                wrong.append(f"{home / 'workload.yaml'}: duplicate name {found.name}")
            desired.workloads[found.name] = found
    if wrong:
        raise CliError("Nothing was applied:\n  " + "\n  ".join(map(one_line, wrong)))
    if not (desired.models or desired.environments or desired.plans or desired.workloads):
        raise CliError(
            f"{folder} contains none of models.yaml, environments.yaml, plans.yaml and workloads/<name>/: "
            "is it the right one?"
        )
    return desired


# What the server fills in (rollout_app/engine/plans.py). A list of stages replaces the whole list, so a setting that is
# not in the file has its default: it does not keep the value that it has on the server.
_STAGE = {
    "share_pcm": 0, "max_hours": None, "on_timeout": "hold", "approval": False, "mirror_pcm": 0, "skippable": False,
    "tolerance": 1.0,
}  # fmt: skip
_FULL, _OTHER = {"share_pcm": 100_000, "min_minutes": 0, "min_tasks": 0}, {"min_minutes": 5, "min_tasks": 50}


def _whole_stage(stage: Any) -> Any:
    """Return the stage with the defaults of what it does not mention."""
    if not isinstance(stage, Mapping):
        return stage
    return {**_STAGE, **(_FULL if stage.get("mode") == "full" else _OTHER), **stage}


def _workload(home: Path, wrong: list[str]) -> DesiredWorkload | None:
    content = _yaml(home / "workload.yaml", wrong)
    policy = _policy(home, wrong)
    if content is None:
        content = {}
    if not isinstance(content, Mapping):
        wrong.append(f"{home / 'workload.yaml'}: expected an object with a workload's fields")
        return None
    fields = {str(name): value for name, value in content.items()}
    guardrails, environments = fields.pop("guardrails", None) or {}, fields.pop("environments", None) or {}
    name = str(fields.pop("name", home.name))
    for what, value in (("guardrails", guardrails), ("environments", environments)):
        if not isinstance(value, Mapping) or not all(
            isinstance(one or {}, Mapping) for one in value.values()
        ):
            wrong.append(f"{home / 'workload.yaml'}: {what} must map names to their settings")
            return None
    wrong += [
        f"{home / 'workload.yaml'}: {problem}"
        for problem in (*_guardrail_problems(guardrails), *_serving_problems(environments))
    ]
    if policy is not None and policy.get("workload") != name:
        wrong.append(f"{home}: the policy belongs to {policy.get('workload')!r}, the folder to {name!r}")
    return DesiredWorkload(
        name,
        fields,
        {str(metric): settings or {} for metric, settings in guardrails.items()},
        {str(place): settings or {} for place, settings in environments.items()},
        policy,
        None if policy is None else digest(policy),
    )


def guardrail_name(row: Mapping[str, Any]) -> str:
    """Return the name of a guardrail that the API describes: its metric, for an absolute one with `_bound`."""
    return f"{row['metric']}{'' if row.get('bound') is None else BOUND}"


def guardrail_settings(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a guardrail that the API describes, without those that have their default."""
    return {name: row[name] for name in ("enabled", "margin", "weight", "bound") if row.get(name) is not None}


def _guardrail_problems(guardrails: Mapping[Any, Any]) -> Iterator[str]:
    for name, settings in guardrails.items():
        bounded = (settings or {}).get("bound") is not None
        if bounded and not str(name).endswith(BOUND):
            yield f"guardrails.{name}: a guardrail with a `bound` is called {name}{BOUND}"
        if str(name).endswith(BOUND) and not bounded:
            yield f"guardrails.{name}: `bound` is missing"


def _serving_problems(environments: Mapping[Any, Any]) -> Iterator[str]:
    for name, settings in environments.items():
        for unknown in sorted({str(key) for key in settings or {}} - {"plan", "stages"}):
            yield f"environments.{name}: unknown setting {unknown!r}; allowed are `plan` and `stages`"
        if len({"plan", "stages"} & set(settings or {})) == 2:
            yield f"environments.{name}: give a saved `plan` or `stages`, not both"


def _policy(home: Path, wrong: list[str]) -> dict[str, Any] | None:
    for name in ("policy.yaml", "policy.yml", "policy.json"):
        if (home / name).is_file():
            try:
                return load((home / name).read_bytes())
            except PolicyInvalid as invalid:
                wrong += [
                    f"{home / name}: {problem}" for problem in invalid.problems if problem.severity == "error"
                ]
    return None


def _named(file: Path, wrong: list[str]) -> dict[str, Mapping[str, Any]]:
    content = _yaml(file, wrong)
    if content is None:
        return {}
    if not isinstance(content, list) or not all(
        isinstance(one, Mapping) and one.get("name") for one in content
    ):
        wrong.append(f"{file}: expected a list of objects with a `name`")
        return {}
    found: dict[str, Mapping[str, Any]] = {}
    for one in content:
        if str(one["name"]) in found:
            wrong.append(f"{file}: duplicate name {one['name']}")
        found[str(one["name"])] = one
    return found


def _yaml(file: Path, wrong: list[str]) -> Any:
    """Return the content of a YAML file, read as policies are: YAML 1.2 without anchors, tags and duplicate names."""
    if not file.is_file():
        return None
    try:
        return read(file.read_bytes(), syntax="yaml", most_bytes=MOST_BYTES)[0]
    except PolicyInvalid as invalid:
        wrong += [f"{file}: {problem}" for problem in invalid.problems]
    except ConfigurationError:  # without PyYAML
        raise CliError("Folders of YAML need the extra `yaml`: pip install 'pointsman[cli]'.") from None
    return None
