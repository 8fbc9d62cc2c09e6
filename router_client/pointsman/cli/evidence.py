"""`backtest` tests versions on recorded tasks before any traffic; `audit verify` checks the audit log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pointsman.cli.output import CliError, Output, Settings
from pointsman.cli.server import path
from pointsman.plurals import counted
from pointsman.visible import one_line

__all__ = ["register"]

BACKTEST_S = 300.0  # thousands of tasks, under up to five versions
MOST_BYTES = 4 * 1024 * 1024  # of a request, the server's limit

audit = typer.Typer(help="The audit log.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("backtest")(backtest)
    app.add_typer(audit, name="audit")


def backtest(
    context: typer.Context,
    workload: str,
    versions: Annotated[list[int] | None, typer.Argument(help="Versions to compare.")] = None,
    draft: Annotated[
        Path | None, typer.Option(help="A policy that is not a version yet, YAML or JSON.")
    ] = None,
    tasks: Annotated[
        Path | None, typer.Option(help="Recorded tasks: CSV, JSON lines, a gateway's log.")
    ] = None,
    recorded: Annotated[
        str, typer.Option(help="An included data set instead of a file (gsm8k, mmlu, routerarena).")
    ] = "",
    mapping: Annotated[Path | None, typer.Option(help="YAML file that describes the columns.")] = None,
    log: Annotated[
        str, typer.Option(help="The kind of log: litellm, langfuse, helicone, opentelemetry or pointsman.")
    ] = "",
    latency_unit: Annotated[str, typer.Option(help="Of a Langfuse log: ms or s.")] = "",
    grade: Annotated[
        str,
        typer.Option(
            help="Of a log: LiteLLM's dotted path, Helicone's score, or a kind of feedback in a task log."
        ),
    ] = "",
    success_from: Annotated[
        float | None, typer.Option(help="Of a log: the lowest score that is a success, 0 to 1.")
    ] = None,
    score: Annotated[
        str, typer.Option(help="A request input, or MODEL:confidence, whose ranking of tasks is judged.")
    ] = "",
    sweep: Annotated[
        str, typer.Option(help="PLACE:LOW:HIGH:STEPS, to print the curve over a threshold.")
    ] = "",
    bar: Annotated[
        float | None,
        typer.Option(
            help="Exit with 1 if a version's measured success rate is below this, 0 to 1. "
            "Exit code 0 does not say that more tasks would show the same; see the interval."
        ),
    ] = None,
) -> None:
    """Run versions over recorded tasks, before any traffic, and compare success, cost and saving with single models."""
    settings: Settings = context.obj
    if (tasks is None) == (not recorded):
        raise CliError("Give either --tasks FILE or --recorded SET.")
    if not versions and draft is None:
        raise CliError("Give at least one version or a --draft.")
    if bar is not None and not 0 <= bar <= 1:
        raise CliError("--bar is a share from 0 to 1.")
    if bar is not None and log not in ("", "pointsman"):
        raise CliError(
            f"--bar cannot be compared with a log of {log}: it holds one model's answers, chosen by another policy."
        )
    body: dict[str, Any] = {
        "versions": versions or [], "draft": _text(draft), "recorded": recorded, "mapping": _text(mapping), "log": log,
        "latency_unit": latency_unit, "grade": grade, "success_from": success_from, "score": score, "sweep": sweep,
        "file": tasks and {"name": tasks.name, "text": _text(tasks)},
    }  # fmt: skip
    with settings.connect() as server:
        where = path("workloads", workload, "backtest")
        found = server.compute(where, _small_enough(body), BACKTEST_S)
    _tell_backtest(settings.output, found)
    if bar is not None and not _reaches(found, bar):
        raise typer.Exit(1)
    if bar is not None and not settings.output.as_json and (unsure := _unsure(found, bar)):
        settings.output.say(
            f"{', '.join(unsure)}: the interval reaches below the bar of {bar:.1%}; more tasks are needed to be sure."
        )


def _measured(found: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return the success rate of each version with its interval.

    For a task log it is the estimate from the drawn tasks: those on which a version agrees with the log are no random
    sample. Tasks that no arm served as the version would have are unknown, and count as failures.
    """
    policies = found["policies"]
    if not isinstance(policies, dict):
        return {one["name"]: one["accuracy"] or {} for one in policies}
    rates = {}
    for name, one in policies.items():
        value = (one.get("drawn") or {}).get("value")
        unsupported = sum(one["drawn"]["unsupported"].values()) if value else 0
        known = value["tasks"] / (value["tasks"] + unsupported) if value else 0.0
        success = value["success"] if value else {}
        rates[name] = {edge: None if rate is None else rate * known for edge, rate in success.items()}
    return rates


def _reaches(found: dict[str, Any], bar: float) -> bool:
    """Return whether every version's success rate reaches the bar; an unknown rate does not."""
    values = [rate.get("value") for rate in _measured(found).values()]
    return all(value is not None and value >= bar for value in values)


def _unsure(found: dict[str, Any], bar: float) -> list[str]:
    """Return the versions whose success rate reaches the bar, while its interval does not, or is unknown."""
    lows = [(name, rate.get("low")) for name, rate in _measured(found).items()]
    return [name for name, low in lows if low is None or low < bar]


def _tell_backtest(output: Output, found: dict[str, Any]) -> None:
    if isinstance(found["policies"], dict):
        _tell_log(output, found)
        return
    tasks = found["tasks"]
    output.say(
        f"{counted(tasks['read'], 'task')} read, {tasks['compared']:,} compared, {tasks['priced']:,} with every "
        "cost known."
    )
    lines = [
        *found["policies"],
        *({**one, "name": f"always {one['name']}"} for one in found["models"]),
        found["oracle"],
    ]
    heads = ("", "success", "95 % interval", "$ a success", "$ a task", f"saving against {found['strong']}")
    rows = [
        (
            one["name"], _share(one["accuracy"]), _between(one["accuracy"]), _dollars(one["cost_per_success_usd"]),
            _dollars(one["cost_per_task_usd"]), _share(one["saving"]),
        )
        for one in lines
    ]  # fmt: skip
    output.table(heads, rows, found)


def _tell_log(output: Output, found: dict[str, Any]) -> None:
    """Print the result for a log with one model per task; only tasks where the policy asks the same model count."""
    rows = [
        (name, one["tasks"], one["agreed"], one["graded"], _share(one["accuracy"]))
        for name, one in found["policies"].items()
    ]
    output.table(("", "tasks", "asks the same model", "graded", "success"), rows, found)
    drawn = [(name, one["drawn"]["value"]) for name, one in found["policies"].items() if one.get("drawn")]
    if not drawn or output.as_json:
        return
    output.say("Estimated from the tasks whose arm was drawn during a rollout:")
    figures = ("success", "cost_per_task_usd", "cost_per_success_usd")
    output.table(
        ("", "tasks", "success", "95 % interval", "$ a task", "$ a success"),
        [
            (name, value["tasks"], _share(value["success"]), _between(value["success"]),
             *(_dollars(value[figure]) for figure in figures[1:])) if value else (name, 0, "not known", "", "", "")
            for name, value in drawn
        ],
        found,
    )  # fmt: skip


def _value(interval: Any) -> Any:
    return interval["value"] if isinstance(interval, dict) else interval


def _share(interval: Any) -> str:
    value = _value(interval)
    return "" if value is None else f"{value:.1%}"


def _between(interval: Any) -> str:
    if not isinstance(interval, dict) or interval.get("low") is None or interval.get("high") is None:
        return ""
    return f"{interval['low']:.1%} to {interval['high']:.1%}"


def _dollars(interval: Any) -> str:
    value = _value(interval)
    return "" if value is None else f"{value:.6f}"


@audit.command("verify")
def verify(context: typer.Context) -> None:
    """Check the whole audit log against its head, checkpoints and the data. Exits with 1 if anything differs, and
    with 2 if there are no entries."""
    settings: Settings = context.obj
    with settings.connect() as server:
        found = server.compute("audit/verification", {}, BACKTEST_S)
    signed = f", signed up to {found['checkpoint']}" if found["checkpoint"] else ", not signed yet"
    text = f"{counted(found['entries'], 'entry', 'entries')}{signed}. The log ends with {found['hash']}."
    if found["verified"]:
        text = f"Verified: {text}"
    else:
        text = "\n".join(
            [
                "NOT verified: " + text,
                *(one_line(f"  {one['kind']}: {one['sentence']}") for one in found["findings"]),
            ]
        )
    if not found["entries"] and not found["findings"]:
        text = "No entries yet: nothing was verified."
    settings.output.data(found, text)
    if not found["verified"]:
        raise typer.Exit(1 if found["findings"] else 2)


def _text(file: Path | None) -> str:
    """Return the content of a file; empty without one."""
    if file is None:
        return ""
    if file.stat().st_size > MOST_BYTES:
        raise _too_large(str(file))
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CliError(
            f"{file} is not UTF-8: byte {error.start}. Give a text file, not Parquet or an archive."
        ) from None


def _small_enough(body: dict[str, Any]) -> dict[str, Any]:
    """Return what was given. Raises CliError if it is too large as JSON, which escapes quotes and line ends."""
    given = {name: value for name, value in body.items() if value not in (None, "", [])}
    if len(json.dumps(given, ensure_ascii=False, separators=(",", ":")).encode()) > MOST_BYTES:
        raise _too_large("The request with these files")
    return given


def _too_large(what: str) -> CliError:
    return CliError(
        f"{what} is larger than {MOST_BYTES // 1024 // 1024} MiB, the server's limit. "
        "`manage.py backtest` on the server accepts files of any size."
    )
