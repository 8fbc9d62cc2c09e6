"""What `deploy/` runs: the command and settings of each process, read from its files."""

import configparser
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.sources import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
ENV_FILES = sorted(DEPLOY.glob("*/*.env.example"))


@dataclass(frozen=True, slots=True)
class Process:
    """`where` it is defined, and its command without the interpreter's path."""

    where: str
    command: list[str] = field(default_factory=list)


def processes() -> list[Process]:
    return [*_of_dockerfile(), *_of_compose(), *_of_kubernetes(), *_of_systemd()]


def _of_dockerfile() -> Iterator[Process]:
    (command,) = re.findall(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    yield Process("Dockerfile", yaml.safe_load(command))


def _of_compose() -> Iterator[Process]:
    for name, service in yaml.safe_load(COMPOSE.read_text())["services"].items():
        if "build" in service:
            command = service["command"]
            if command[:2] == ["sh", "-c"]:
                for part in command[2].split(" && "):
                    yield Process(f"compose {name}", shlex.split(part))
            else:
                yield Process(f"compose {name}", command)


def documents() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in KUBERNETES:
        for document in yaml.safe_load_all(path.read_text()):
            yield path, document


def _of_kubernetes() -> Iterator[Process]:
    for path, document in documents():
        pod = document.get("spec", {}).get("template", {}).get("spec", {})
        for container in [*pod.get("initContainers", []), *pod.get("containers", [])]:
            yield Process(f"{path.name} {container['name']}", container["command"])


def _of_systemd() -> Iterator[Process]:
    for path in UNITS:
        for line in re.findall(r"^ExecStart=(.*)$", path.read_text(), re.MULTILINE):
            program, *rest = shlex.split(line)
            yield Process(path.name, [Path(program).name, *rest])


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(path.read_text())
    return parser


def settings_named() -> dict[str, set[str]]:
    """The settings that each file sets."""
    found = {
        str(path.relative_to(ROOT)): set(re.findall(r"^([A-Z_]+)=", path.read_text(), re.MULTILINE))
        for path in ENV_FILES
    }
    for path, document in documents():
        if document["kind"] == "ConfigMap":
            found[str(path.relative_to(ROOT))] = set(document["data"])
    return found
