"""`rollout …`: propose and watch rollouts, and all actions on them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from pointsman.cli.output import CliError, Output, Settings, lines
from pointsman.cli.server import Refused, Server, path
from pointsman.visible import json_text, visible

__all__ = ["GOOD_ENDS", "register", "start_if_possible", "watch_until_done"]

WATCH_EVERY_S = 2.0
GOOD_ENDS, BAD_ENDS = ("completed",), ("rolled_back", "aborted", "rejected", "cancelled")
# Commands that need only a reason, with the API's name for each.
_ACTIONS = {
    "start": "Start the rollout.", "pause": "Pause it; automatic rollback stays active.",
    "resume": "Resume after a pause.",
    "advance": "Enter the next stage now, without waiting for the evidence.",
    "complete": "Make the candidate the baseline.",
    "roll-back": "Roll back to the baseline.", "abort": "Roll back and end the rollout.",
    "cancel": "Cancel the rollout before it starts.", "submit": "Request approval.",
    "revert": "Return to the version before a completed rollout, at once.", "reject": "Reject the rollout.",
}  # fmt: skip

rollout = typer.Typer(help="Propose, watch and control rollouts.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(help="The rollout's id.")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="For the audit log.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(rollout, name="rollout")
    app.command("report")(report)
    for name, text in _ACTIONS.items():
        rollout.command(name, help=text)(_action(name))


@rollout.command("propose")
def propose(
    context: typer.Context,
    workload: str,
    version: Annotated[int, typer.Argument(help="The candidate's version number.")],
    environment: Annotated[str, typer.Option("--environment", "-e")],
    reason: Reason,
    plan: Annotated[str, typer.Option(help="A saved plan.")] = "standard",
    start: Annotated[bool, typer.Option("--start", help="Start it if it needs no approval.")] = False,
) -> None:
    """Propose a rollout."""
    settings: Settings = context.obj
    body = {
        "environment": environment,
        "workload": workload,
        "candidate": version,
        "plan": plan,
        "reason": reason,
    }
    with settings.connect() as server:
        found = server.post("rollouts", body)
        if start:
            found = start_if_possible(server, settings.output, found, reason)
    settings.output.data(found, _described(found))


@rollout.command("list")
def list_rollouts(
    context: typer.Context,
    environment: Annotated[str, typer.Option("--environment", "-e")] = "",
    workload: str = "",
    state: str = "",
) -> None:
    """List rollouts, the newest first."""
    settings: Settings = context.obj
    query = {"environment": environment or None, "workload": workload or None, "state": state or None}
    with settings.connect() as server:
        found = list(server.every("rollouts", **query))
    rows = [
        (
            one["id"],
            one["environment"],
            one["workload"],
            f"{one['baseline']} → {one['candidate']}",
            one["state"],
            one["hold_sentence"],
        )
        for one in found
    ]
    settings.output.table(("id", "environment", "workload", "versions", "state", "held by"), rows, found)


@rollout.command("status")
def status(context: typer.Context, rollout_id: Id) -> None:
    """Show a rollout: its state and stage, what holds it, and what can be done now."""
    settings: Settings = context.obj
    with settings.connect() as server:
        found = server.get(path("rollouts", rollout_id))
    settings.output.data(found, _described(found))


@rollout.command("report")
def report(
    context: typer.Context,
    rollout_id: Id,
    to: Annotated[
        Path | None, typer.Option("--to", help="A file to write instead of standard output.")
    ] = None,
) -> None:
    """Write the evidence report, for example for a change board, in Markdown or with --json in JSON."""
    settings: Settings = context.obj
    where = path("rollouts", rollout_id, "report")
    with settings.connect() as server:
        as_json = settings.output.as_json
        text = f"{json_text(server.get(where))}\n" if as_json else server.text(f"{where}.md")
    if to is None:
        print(visible(text), end="")
    else:
        to.write_text(text, encoding="utf-8")
        settings.output.say(f"The report was written to {to}.")


@rollout.command("watch")
def watch(context: typer.Context, rollout_id: Id) -> None:
    """Follow a rollout to its end. The exit code is 1 if it is rolled back."""
    settings: Settings = context.obj
    with settings.connect() as server:
        found = watch_until_done(server, settings.output, rollout_id)
    if settings.output.as_json:
        settings.output.data(found)
    if found["state"] not in GOOD_ENDS:
        raise typer.Exit(1)


def start_if_possible(server: Server, output: Output, found: dict[str, Any], reason: str) -> dict[str, Any]:
    """Start a rollout that has not started, and return it. Say so if it waits for an approval or for a planned time."""
    if found["started_at"] is not None:
        return found
    if found["scheduled_for"] is not None:
        output.say(f"{_of(found)}: it starts at {found['scheduled_for']}, as planned.")
    elif found["state"] == "awaiting_approval" and "start" not in found["can"]:
        output.say(f"{_of(found)}: it waits for an approval.")
    else:
        return dict(server.act(path("rollouts", found["id"]), "start", {"reason": reason}))
    return found


def watch_until_done(server: Server, output: Output, rollout_id: str) -> dict[str, Any]:
    """Print each change until the end and return the rollout. Waits out short outages of the control plane."""
    said, failures = "", 0
    while True:
        try:
            found = server.get(path("rollouts", rollout_id))
            failures = 0
        except CliError as error:
            failures += 1
            if failures > 30 or (isinstance(error, Refused) and error.final):
                raise
            time.sleep(WATCH_EVERY_S)
            continue
        told = _line(found)
        if told != said:
            said = told
            output.say(told)
        if found["state"] in GOOD_ENDS + BAD_ENDS:
            return dict(found)
        time.sleep(WATCH_EVERY_S)


def _action(name: str) -> Any:
    def command(context: typer.Context, rollout_id: Id, reason: Reason) -> None:
        settings: Settings = context.obj
        with settings.connect() as server:
            found = server.act(path("rollouts", rollout_id), name, {"reason": reason})
        settings.output.data(found, _described(found))

    return command


def _of(found: dict[str, Any]) -> str:
    return f"{found['workload']} in {found['environment']}, {found['baseline']} → {found['candidate']}"


def _line(found: dict[str, Any]) -> str:
    held = found["rollback_reason"] or found["hold_sentence"]
    return f"{_of(found)}: {found['state'].replace('_', ' ')}, stage {_stage(found)}" + (
        f". {held}" if held else ""
    )


def _stage(found: dict[str, Any]) -> str:
    stages = found["stages"]
    at = found["stage"]
    if not isinstance(stages, list) or at is None or not 0 <= at < len(stages):
        return "–"
    share = stages[at].get("share_pcm")
    return f"{at + 1} of {len(stages)} ({stages[at]['mode']}" + (f", {share / 1000:g} %)" if share else ")")


def _described(found: dict[str, Any]) -> str:
    return lines(
        {
            "rollout": found["id"],
            "of": f"{found['workload']} in {found['environment']}",
            "versions": f"{found['baseline']} → {found['candidate']}",
            "state": found["state"].replace("_", " "),
            "stage": _stage(found),
            "held by": found["hold_sentence"],
            "would advance it": found["outlook"],
            "rolled back": found["rollback_reason"],
            "proposed by": found["proposer_label"],
            "can": ", ".join(found["can"]),
        }
    )
