"""`plan`, `apply` and `export`: describe a control plane as a folder of YAML files, for Git and CI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pointsman.cli.changes import Change, Overtaken, compare, is_requested, under_way
from pointsman.cli.desired import guardrail_name, guardrail_settings, read_folder
from pointsman.cli.output import CliError, Output, Settings
from pointsman.cli.rollouts import GOOD_ENDS, start_if_possible, watch_until_done
from pointsman.cli.server import Refused, Server, path
from pointsman.plurals import counted
from pointsman.policy.yaml_text import needs_quotes
from pointsman.visible import one_line

__all__ = ["register"]

MAX_NOTE = 400  # characters of a version's note, and of the reason for serving it

Folder = Annotated[
    Path, typer.Argument(help="The folder: models.yaml, plans.yaml, workloads/<name>/policy.yaml …")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("plan")(plan)
    app.command("apply")(apply)
    app.command("export")(export)


def plan(
    context: typer.Context,
    folder: Folder,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 if anything would change.")
    ] = False,
) -> None:
    """Show what `apply` would change, without changing anything."""
    settings: Settings = context.obj
    desired = read_folder(folder)
    with settings.connect() as server:
        changes = compare(server, desired)
    _tell(settings.output, changes)
    if changes and exit_code:
        raise typer.Exit(1)


def apply(
    context: typer.Context,
    folder: Folder,
    reason: Annotated[str, typer.Option(help="For the audit log.")] = "pointsman apply",
    wait: Annotated[bool, typer.Option("--wait", help="Follow the folder's rollouts to their end.")] = False,
    start: Annotated[
        bool, typer.Option("--start", help="Start proposed rollouts that need no approval.")
    ] = False,
) -> None:
    """Make the control plane match the folder. Running it again changes nothing.

    --start and --wait also apply to the folder's rollouts that an earlier run proposed and that have not ended. With
    --wait the exit code is 1 if a rollout is rolled back.
    """
    settings: Settings = context.obj
    output = settings.output
    desired = read_folder(folder)
    done: list[dict[str, Any]] = []
    rollouts: dict[str, Any] = {}
    with settings.connect() as server:
        changes = compare(server, desired)
        _refuse_long_reason(reason, changes)
        if not changes and not output.as_json:
            output.say("No changes.")
        for change in changes:
            answer = _do(server, change, reason, done)
            done.append(change.as_dict())
            state = "requested; another person must approve it" if is_requested(answer) else "done"
            output.say(f"{change}: {state}")
            if change.action == "propose":
                rollouts[answer["id"]] = answer
        if start or wait:
            # An earlier run may have proposed a rollout and ended before it could start or follow it.
            rollouts |= {one["id"]: one for one in under_way(server, desired)}
        if start:
            for one in rollouts.values():
                start_if_possible(server, output, one, reason)
        ends: dict[str, str] = {}
        try:
            for one in rollouts if wait else ():
                ends[one] = watch_until_done(server, output, one)["state"]
        finally:  # also after an outage or an interruption: the changes were made
            if output.as_json:
                kept = {"ends": ends} if wait else {}
                output.data({"changes": done, "rollouts": list(rollouts), **kept})
    if not all(state in GOOD_ENDS for state in ends.values()):
        raise typer.Exit(1)


def _refuse_long_reason(reason: str, changes: Sequence[Change]) -> None:
    """Refuse a reason that a later change cannot take, before the first one is made."""
    if len(reason) > MAX_NOTE and any(change.kind == "version" for change in changes):
        raise CliError(
            f"--reason has {len(reason)} characters; for a version it may have up to {MAX_NOTE}. Nothing was changed."
        )


def _do(server: Server, change: Change, reason: str, done: Sequence[Any]) -> Any:
    try:
        return change.do(server, reason)
    except CliError as error:
        raise CliError(f"{one_line(change)}: {error}{_made(error, len(done))}") from None


def _made(error: CliError, earlier: int) -> str:
    """Return what was made before the error. Only a refusal says for sure that the change itself was not."""
    refused = isinstance(error, Refused) and error.final
    if refused and not earlier:
        return " Nothing was changed."
    certain = refused or isinstance(error, Overtaken)
    unclear = "" if certain else " It may have been made; run it again to see."
    return unclear + (
        f" {counted(earlier, 'earlier change was', 'earlier changes were')} made." if earlier else ""
    )


def _tell(output: Output, changes: Sequence[Change]) -> None:
    if not changes:
        output.data({"changes": []}, "No changes.")
        return
    rows = [
        (
            change.action,
            change.kind,
            change.name,
            ", ".join(_detail(*item) for item in change.details.items()),
        )
        for change in changes
    ]
    output.table(("", "what", "which", "how"), rows, {"changes": [change.as_dict() for change in changes]})


def _detail(name: str, values: tuple[Any, Any]) -> str:
    before, after = values
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        items = [(f"{name}[{at}]", pair) for at, pair in enumerate(zip(before, after, strict=True))]
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        items = [(f"{name}.{one}", (before.get(one), value)) for one, value in after.items()]
    else:
        old, new = (str(value)[:40] for value in values)
        return f"{name} {new}" if before is None else f"{name} {old} → {new}"
    return ", ".join(_detail(inner, pair) for inner, pair in items if pair[0] != pair[1])


def export(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    environment: Annotated[str, typer.Option(help="Export the policies that this environment serves.")] = "",
) -> None:
    """Write the control plane's state to a folder; applying it unchanged has no effect."""
    settings: Settings = context.obj
    if folder.exists() and any(folder.iterdir()):
        raise CliError(f"{folder} is not empty; nothing was written.")
    with settings.connect() as server:
        server.check()
        if environment:
            server.get(path("environments", environment))
        files = dict(_files(server, environment))
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content, encoding="utf-8")
    settings.output.data(
        {"files": sorted(files)}, one_line(f"{counted(len(files), 'file is', 'files are')} in {folder}.")
    )


# Fields that the server generates; they are not part of a folder.
_OWN = {"version", "created_at", "epoch", "revision", "key", "frozen_from", "frozen_until", "freeze_reason"}


def _files(server: Server, environment: str) -> Any:
    for kind in ("models", "environments", "plans"):
        found = [_plain(one) for one in server.every(kind)]
        if found:
            yield f"{kind}.yaml", _yaml(sorted(found, key=lambda one: str(one["name"])))
    for workload in server.every("workloads"):
        name = workload["name"]
        fields = _plain(workload)
        own = server.every(path("workloads", name, "guardrails"))
        guardrails = {guardrail_name(one): guardrail_settings(one) for one in own}
        if guardrails:
            fields["guardrails"] = guardrails
        yield f"workloads/{name}/workload.yaml", _yaml(fields)
        if (policy := _served(server, name, environment)) is not None:
            yield f"workloads/{name}/policy.yaml", _yaml(policy)


def _served(server: Server, workload: str, environment: str) -> Any:
    """Return the document that the environment serves, or the newest version without an environment."""
    if environment:
        present = server.find(path("environments", environment, "assignments", workload))
        number = present and present.get("baseline")
    else:
        number = max(
            (one["number"] for one in server.every(path("workloads", workload, "versions"))), default=None
        )
    if not number:
        return None
    policy = dict(server.get(path("workloads", workload, "versions", number))["policy"])
    rank = policy.pop("rank", None)
    if rank:  # in a text, the order of `models` is the rank
        policy["models"] = {alias: policy["models"][alias] for alias in rank}
    return policy


def _plain(thing: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in thing.items() if name not in _OWN and value is not None}


def _yaml(content: Any) -> str:
    try:
        import yaml
    except ImportError:
        raise CliError("Folders of YAML need the extra `yaml`: pip install 'pointsman[cli]'.") from None

    class Dumper(yaml.SafeDumper):
        """Quotes texts that policies, which are YAML 1.2, would read as numbers (1e3, 0o17). PyYAML writes YAML 1.1."""

    def text(dumper: Dumper, data: str) -> yaml.Node:
        style = '"' if needs_quotes(data) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Dumper.add_representer(str, text)
    return str(yaml.dump(content, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100))
