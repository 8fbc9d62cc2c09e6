"""Commands for policy files: validate, schema, digest, decide, diff, flagd. Only a version's name needs a server."""

from __future__ import annotations

import difflib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pointsman.cli.output import CliError, Settings
from pointsman.cli.server import Server, path
from pointsman.errors import ConfigurationError, PolicyInvalid
from pointsman.evaluate import compile_policy
from pointsman.integrations.flagd import definitions
from pointsman.policy import CatalogueModel, canonical, digest, json_schema, load, parse, validate
from pointsman.visible import json_text, one_line, visible_json

__all__ = ["read", "register"]

File = Annotated[str, typer.Argument(help="YAML or JSON; - is the standard input.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("validate")(validate_files)
    app.command("schema")(schema)
    app.command("digest")(print_digest)
    app.command("decide")(decide)
    app.command("explain", hidden=True)(decide)
    app.command("diff")(diff)
    app.command("flagd")(flagd)


def read(name: str) -> bytes:
    """Return the bytes of a file or of standard input."""
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


def validate_files(
    context: typer.Context,
    files: Annotated[list[str], typer.Argument(help="YAML or JSON; - is the standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the problems as one JSON list.")] = False,
) -> None:
    """List all problems of one or more policies; with --server also check the catalogue.

    For pull requests: the exit code is 1 if a policy has an error.
    """
    settings: Settings = context.obj
    catalogue = _catalogue(settings)
    bad, listed = False, []
    for name in files:
        try:
            document = parse(read(name))
            problems = list(validate(document.data, locate=document.locate, catalogue=catalogue))
        except PolicyInvalid as invalid:
            problems = list(invalid.problems)
        bad = bad or any(problem.severity == "error" for problem in problems)
        listed += [{"file": name, **problem.as_dict()} for problem in problems]
        if not (as_json or settings.output.as_json):
            for problem in problems:
                print(one_line(f"{name}: {problem.severity}: {problem}"))
    if as_json or settings.output.as_json:
        print(json_text(listed))
    if bad:
        raise typer.Exit(1)


def _catalogue(settings: Settings) -> dict[str, CatalogueModel] | None:
    """Return the server's models, or None without a server."""
    if not settings.server:
        return None
    with settings.connect() as server:
        return {
            one["name"]: CatalogueModel(
                name=one["name"],
                enabled=one["enabled"],
                context_window=one["context_window"],
                input_nusd_per_mtok=one["input_nusd_per_mtok"],
                output_nusd_per_mtok=one["output_nusd_per_mtok"],
                quality=one["quality"],
            )
            for one in server.every("models")
        }


def schema() -> None:
    """Print the JSON Schema of a policy, for editors."""
    print(json.dumps(json_schema(), indent=2))


def print_digest(
    file: File,
    canonical_form: Annotated[bool, typer.Option("--canonical", help="The canonical JSON itself.")] = False,
) -> None:
    """Print the digest that identifies a policy."""
    data = load(read(file))
    # Exact, for programs; only a person at a terminal gets the control characters of a text as `\u202e`.
    shown = canonical(data).decode() if canonical_form else digest(data)
    print(one_line(shown) if sys.stdout.isatty() else shown)


def decide(
    file: File,
    request: Annotated[
        str, typer.Argument(help='Inputs as JSON: {"prompt_tokens": 9000}; - is standard input.')
    ],
) -> None:
    """Show which model a request would get, by which rule, and why."""
    text = read("-").decode() if request == "-" else request
    try:
        inputs = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"the request is not JSON: {error}") from None
    if not isinstance(inputs, dict):
        raise ConfigurationError('the request must be an object of inputs, like {"prompt_tokens": 9000}')
    route = compile_policy(load(read(file))).route(inputs, inputs.get("history"))
    print(json.dumps({**route._asdict(), "params": dict(route.params)}, indent=2))


def diff(
    context: typer.Context,
    old: Annotated[str, typer.Argument(help="A file, or WORKLOAD/NUMBER of a version on the server.")],
    new: Annotated[str, typer.Argument(help="A file, or WORKLOAD/NUMBER of a version on the server.")],
) -> None:
    """Show the differences between two policies. The exit code is 1 if there are any."""
    settings: Settings = context.obj
    before, after = (_document(settings, name) for name in (old, new))
    found = list(difflib.unified_diff(_text(before), _text(after), old, new, lineterm="", n=3))
    if found:
        print("\n".join(map(one_line, found)))
        raise typer.Exit(1)
    settings.output.say("No difference.")


def flagd(
    context: typer.Context,
    policies: Annotated[
        list[str],
        typer.Argument(help="Files, or WORKLOAD/NUMBER of versions on the server; each workload only once."),
    ],
) -> None:
    """Print policies as flagd flag definitions. They do not include rollouts: see the limits in the documentation."""
    settings: Settings = context.obj
    documents = [_document(settings, name) for name in policies]
    workloads = [document["workload"] for document in documents]
    if twice := sorted({name for name in workloads if workloads.count(name) > 1}):
        raise CliError(f"{twice[0]} was given twice; a flag has one policy.")
    print(visible_json(definitions(documents)), end="")


def _document(settings: Settings, name: str) -> dict[str, Any]:
    workload, _, number = name.rpartition("/")
    if Path(name).is_file() or name == "-" or not number.isdigit():
        return load(read(name))
    with settings.connect() as server:
        return version_of(server, workload, int(number))


def version_of(server: Server, workload: str, number: int) -> dict[str, Any]:
    """Return a version's document."""
    found = server.find(path("workloads", workload, "versions", number))
    if found is None:
        raise CliError(f"{workload} has no version {number}.")
    return dict(found["policy"])


def _text(document: dict[str, Any]) -> list[str]:
    return json_text(document).split("\n")
