"""`pin` and `unpin`: the emergency switch."""

from __future__ import annotations

from typing import Annotated

import typer

from pointsman.cli.output import Settings
from pointsman.cli.server import path
from pointsman.visible import one_line

__all__ = ["register"]

Environment = Annotated[str, typer.Option("--environment", "-e", help="The environment.")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="For the audit log.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("pin")(pin)
    app.command("unpin")(unpin)


def pin(
    context: typer.Context,
    workload: str,
    model: Annotated[
        str, typer.Argument(help="The policy's name of the model to use for all requests until `unpin`.")
    ],
    environment: Environment,
    reason: Reason,
) -> None:
    """Use one model for all requests, whatever the policy says (emergency switch)."""
    settings: Settings = context.obj
    with settings.connect() as server:
        where = path("environments", environment, "assignments", workload)
        found = server.act(where, "pin", {"model": model, "reason": reason})
    settings.output.data(
        found, one_line(f"{workload} in {environment} is pinned to {model}, revision {found['revision']}.")
    )


def unpin(context: typer.Context, workload: str, environment: Environment, reason: Reason) -> None:
    """Return to the policy's decisions."""
    settings: Settings = context.obj
    with settings.connect() as server:
        where = path("environments", environment, "assignments", workload)
        found = server.act(where, "unpin", {"reason": reason})
    settings.output.data(
        found,
        one_line(f"{workload} in {environment} follows its policy again, revision {found['revision']}."),
    )
