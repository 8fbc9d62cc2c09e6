"""The command-line application and its error handling."""

from __future__ import annotations

import logging
import traceback
from typing import Annotated

import typer
import typer.core

from pointsman.cli import emergency, evidence, folders, policies, rollouts, starting
from pointsman.cli.output import CliError, Output, Settings, complain
from pointsman.errors import ConfigurationError, PolicyInvalid
from pointsman.version import VERSION
from pointsman.visible import one_line

__all__ = ["app", "run"]

app = typer.Typer(
    name="pointsman",
    help="Manage router policies from the command line: validate, store and roll them out.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
policies.register(app)
starting.register(app)
folders.register(app)
emergency.register(app)
rollouts.register(app)
evidence.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"pointsman {VERSION}")
        raise typer.Exit


@app.callback()
def _settings(
    context: typer.Context,
    server: Annotated[str, typer.Option(envvar="POINTSMAN_URL", help="The control plane's address.")] = "",
    key: Annotated[
        str, typer.Option(envvar="POINTSMAN_KEY", help="An admin key (pma_…).", show_envvar=True)
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; also after the command.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    context.obj = Settings(server, key, Output(as_json))


def _json_first(arguments: list[str]) -> list[str]:
    """Move `--json` to the front: people also write it after the command. What follows `--` is no option."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    given, rest = arguments[:end], arguments[end:]
    return ["--json", *(one for one in given if one != "--json"), *rest] if "--json" in given else arguments


def run(arguments: list[str]) -> int:
    """Run a command and return the exit code. Errors are printed as a sentence."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # do not mix a line per request into the output
    command = typer.main.get_command(app)
    try:
        code = command.main(_json_first(arguments), prog_name="pointsman", standalone_mode=False)
    except PolicyInvalid as invalid:
        complain("\n".join(map(one_line, invalid.problems)))
        return 1
    except (CliError, ConfigurationError) as error:
        complain(f"pointsman: {error}")
        return getattr(error, "exit_code", 2)
    except OSError as error:
        where = f"{one_line(error.filename)}: " if error.filename else ""
        complain(f"pointsman: {where}{error.strerror or error}")
        return 2
    except Exception as error:
        if hasattr(error, "format_message"):  # the command line is invalid
            if message := error.format_message():  # empty if no command was given and the help was shown
                complain(f"pointsman: {message}")
            return 2
        if type(error).__name__ == "Abort":
            complain("pointsman: stopped")
            return 130
        complain(traceback.format_exc().rstrip())
        return 2  # not Python's 1, which means a negative result
    return code if isinstance(code, int) else 0
