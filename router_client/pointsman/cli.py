"""`pointsman validate | schema | digest | explain`: policy files from the command line, without a server.

Exit codes: 0 well, 1 the policy has errors, 2 the command was wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pointsman.errors import ConfigurationError, PolicyInvalid
from pointsman.evaluate import compile_policy
from pointsman.policy import canonical, digest, json_schema, load, parse, validate

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        return code
    except PolicyInvalid as invalid:
        print(*invalid.problems, sep="\n", file=sys.stderr)
        return 1
    except (ConfigurationError, OSError) as error:
        print(f"pointsman: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pointsman", description="Work with router policy files.")
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("validate", help="name every problem of one or more policies")
    one.add_argument("file", nargs="+", help="YAML or JSON; - is the standard input")
    one.add_argument("--json", action="store_true", help="problems as one JSON list")
    one.set_defaults(run=_validate)
    two = commands.add_parser("schema", help="the JSON Schema, for editors")
    two.set_defaults(run=_schema)
    three = commands.add_parser("digest", help="the digest of a policy")
    three.add_argument("file")
    three.add_argument("--canonical", action="store_true", help="the canonical JSON itself")
    three.set_defaults(run=_digest)
    four = commands.add_parser("explain", help="which model a request would get, and why")
    four.add_argument("file")
    four.add_argument(
        "request", help='the inputs as JSON, like {"prompt_tokens": 9000}; - is the standard input'
    )
    four.set_defaults(run=_explain)
    return parser


def _read(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


def _validate(options: argparse.Namespace) -> int:
    bad = False
    listed: list[dict[str, object]] = []
    for name in options.file:
        try:
            document = parse(_read(name))
            problems = validate(document.data, locate=document.locate)
        except PolicyInvalid as invalid:
            problems = list(invalid.problems)
        bad = bad or any(problem.severity == "error" for problem in problems)
        listed += [{"file": name, **problem.as_dict()} for problem in problems]
        if not options.json:
            print(
                *(f"{name}: {problem.severity}: {problem}" for problem in problems),
                sep="\n",
                end="\n" * bool(problems),
            )
    if options.json:
        print(json.dumps(listed, indent=2))
    return int(bad)


def _schema(options: argparse.Namespace) -> int:
    print(json.dumps(json_schema(), indent=2))
    return 0


def _digest(options: argparse.Namespace) -> int:
    data = load(_read(options.file))
    print(canonical(data).decode() if options.canonical else digest(data))
    return 0


def _explain(options: argparse.Namespace) -> int:
    text = _read("-").decode() if options.request == "-" else options.request
    try:
        request = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"the request is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise ConfigurationError('the request is an object of inputs, like {"prompt_tokens": 9000}')
    route = compile_policy(load(_read(options.file))).route(request, request.get("history"))
    print(json.dumps({**route._asdict(), "params": dict(route.params)}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
