"""`init`: import a team's configuration into a workload that Pointsman serves, in one command."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Annotated, Any

import typer

from pointsman.cli.changes import is_requested, waiting_to_serve
from pointsman.cli.output import CliError, Output, Settings, lines
from pointsman.cli.server import Server, path
from pointsman.visible import one_line

__all__ = ["FoundModel", "models_of_litellm", "register"]

REASON = "pointsman init"  # in the audit log
_PRICE_MAPS = ("model_prices_and_context_window_backup.json", "model_prices_and_context_window.json")


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model that a team uses. Prices are in nano-USD per million tokens, None if unknown."""

    name: str
    input_nusd_per_mtok: int | None
    output_nusd_per_mtok: int | None
    context_window: int | None


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("init")(init)


def init(
    context: typer.Context,
    source: Annotated[
        str, typer.Option("--from", help="litellm: read its config.yaml. Without this option you are asked.")
    ] = "",
    config: Annotated[Path | None, typer.Argument(help="The configuration to read.")] = None,
    workload: Annotated[str, typer.Option("--workload", "-w", help="The workload's name.")] = "",
    environment: Annotated[str, typer.Option("--environment", "-e")] = "staging",
    owner: Annotated[str, typer.Option(help="The team that owns it; created if it does not exist.")] = "",
    model: Annotated[str, typer.Option(help="The model used today: version 1 sends everything to it.")] = "",
    task_type: Annotated[
        str, typer.Option(help="extraction, classification, summary, chat, reasoning, …")
    ] = "chat",
    quality_bar: Annotated[float, typer.Option(help="The share of tasks that must succeed, 0 to 1.")] = 0.9,
    prices: Annotated[
        Path | None, typer.Option(help="LiteLLM's price map (JSON), for models without a price.")
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(help="Write the router's address and key to this file, readable only by you."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Use the defaults and ask no questions.")] = False,
) -> None:
    """Set up models with their prices, a workload, its version 1 (today's model), and a router key."""
    settings: Settings = context.obj
    found = list({one.name: one for one in _models(source, config, prices, yes)}.values())  # typed twice
    _refuse_unknown_windows(found)
    model = _chosen_model(model, found, yes)
    workload = workload or _asked("Name of the workload", "chat", yes)
    owner = owner or _asked("Team that owns it", "platform", yes)
    if write is not None:  # check before anything is created: a key that cannot be written is lost
        write.touch(mode=0o600)
    with settings.connect() as server:
        done = list(_set_up(server, found, workload, environment, owner, model, task_type, quality_bar))
        serving, version = _serve(server, workload, environment)
        key = server.post(
            "keys", {"kind": "router", "environment": environment, "label": f"{workload}, by init"}
        )
    if write is not None:
        write.chmod(0o600)
        write.write_text(f"POINTSMAN_URL={settings.server}\nPOINTSMAN_KEY={key['key']}\n", encoding="utf-8")
    made = any(one.startswith("version ") for one in done)
    if serving == "now":
        done.append(f"{environment} serves version {version}")
    ending = _ending(workload, environment, model if made else None, serving, version)
    _tell(settings, done, workload, environment, ending, found, key["key"], write)


def _refuse_unknown_windows(found: list[FoundModel]) -> None:
    """Refuse models without a context window, which the catalogue requires, before anything is created."""
    if unknown := [one.name for one in found if one.context_window is None]:
        raise CliError(
            f"The context window of {one_line(', '.join(unknown))} is not known. Set model_info.max_input_tokens in "
            "the configuration, or give LiteLLM's price map with --prices. Nothing was created."
        )


def _set_up(
    server: Server, found: list[FoundModel], workload: str, environment: str, owner: str, model: str,
    task_type: str, quality_bar: float,
) -> Iterator[str]:  # fmt: skip
    """Create what is missing, step by step; a second run continues where the first one stopped."""
    exists = server.find(path("workloads", workload)) is not None
    versions = list(server.every(path("workloads", workload, "versions"))) if exists else []
    if not versions and len(found) < 2:
        raise CliError(
            "A policy needs a second model as the fallback; add one to the configuration. Nothing was created."
        )
    if server.find(path("environments", environment)) is None:
        server.post("environments", {"name": environment, "four_eyes": False})
        yield f"environment {environment}"
    if owner not in {team["name"] for team in server.every("teams")}:
        server.post("teams", {"name": owner, "members": []})
        yield f"team {owner}"
    for one in found:
        if server.find(path("models", one.name)) is None:
            body = {"name": one.name, "input_nusd_per_mtok": one.input_nusd_per_mtok,
                    "output_nusd_per_mtok": one.output_nusd_per_mtok, "context_window": one.context_window}  # fmt: skip
            server.post("models", {name: value for name, value in body.items() if value is not None})
            yield f"model {one.name}"
    if not exists:
        body = {"name": workload, "task_type": task_type, "quality_bar": f"{quality_bar:g}", "owner": owner}
        server.post("workloads", body)
        yield f"workload {workload}"
    if not versions:
        policy = _first_policy(workload, model, found)
        server.post(
            path("workloads", workload, "versions"), {"policy": policy, "note": f"{REASON}: today's model"}
        )
        yield f"version 1 of {workload}: everything to {model}"


def _serve(server: Server, workload: str, environment: str) -> tuple[str, int]:
    """Let the environment serve version 1 unless it serves one. Return "now", "already" or "requested", and the
    version."""
    where = path("environments", environment, "assignments", workload)
    present = server.find(where)
    if present is not None and present.get("baseline"):
        return "already", present["baseline"]
    if waiting_to_serve(server, environment, workload, 1):
        return "requested", 1
    answer = server.post(f"{where}/serve", {"version": 1, "reason": REASON})
    return "requested" if is_requested(answer) else "now", 1


def _first_policy(workload: str, model: str, found: list[FoundModel]) -> dict[str, Any]:
    """Return a policy that sends everything to today's model, with another model as the fallback."""
    other = next(one.name for one in found if one.name != model)
    return {
        "format": 1, "workload": workload, "models": {"other": {"model": other}, "today": {"model": model}},
        "default": "today", "fallback": ["other"],
    }  # fmt: skip


# --- existing configuration ----------------------------------------------------------------------------------


def _models(source: str, config: Path | None, prices: Path | None, yes: bool) -> list[FoundModel]:
    if source == "litellm":
        if config is None:
            raise CliError("LiteLLM's configuration is missing: pointsman init --from litellm config.yaml.")
        return models_of_litellm(_yaml(config), _price_map(prices), str(config))
    if source:
        raise CliError(f"--from {source} is not supported; use litellm.")
    if yes:
        raise CliError("Without --from the models are not known; omit --yes to be asked for them.")
    return list(_asked_models(_price_map(prices)))


def models_of_litellm(document: Any, price_map: Mapping[str, Any], where: str = "config") -> list[FoundModel]:
    """Return the models of a LiteLLM configuration, under the names that clients use."""
    entries = document.get("model_list") if isinstance(document, Mapping) else None
    if not isinstance(entries, list) or not entries:
        raise CliError(f"{where} has no model_list.")
    found: dict[str, FoundModel] = {}
    for entry in entries:
        if not isinstance(entry, Mapping) or not entry.get("model_name"):
            raise CliError(f"{where}: an entry of model_list has no model_name.")
        name = str(entry["model_name"])
        parameters = entry.get("litellm_params") or {}
        known = {
            **_priced(price_map, str(parameters.get("model", ""))),
            **_prices_in(entry),
            **_prices_in(parameters),
        }
        # Several deployments may share a name; the first price found applies to all.
        if name not in found or (found[name].input_nusd_per_mtok is None and known):
            found[name] = FoundModel(
                name,
                _nusd_per_mtok(known.get("input_cost_per_token")),
                _nusd_per_mtok(known.get("output_cost_per_token")),
                _whole(known.get("max_input_tokens") or known.get("max_tokens")),
            )
    return list(found.values())


def _prices_in(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the prices in the configuration itself, in an entry or its `model_info`."""
    information = entry.get("model_info")
    places = (information, entry) if isinstance(information, Mapping) else (entry,)
    names = ("input_cost_per_token", "output_cost_per_token", "max_input_tokens")
    return {name: place[name] for place in places for name in names if place.get(name) is not None}


def _priced(price_map: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Return a model's entry in the price map, by its full name or without the provider."""
    for name in (model, model.partition("/")[2]):
        entry = price_map.get(name)
        if name and isinstance(entry, Mapping):
            return dict(entry)
    return {}


def _price_map(file: Path | None) -> Mapping[str, Any]:
    """Return LiteLLM's price map from the file, or from an installed LiteLLM."""
    if file is not None:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CliError(f"{file} is not JSON: {error}") from None
        if not isinstance(found, Mapping):
            raise CliError(f"{file} is not a price map, which is an object of models.")
        return found
    if find_spec("litellm") is None:
        return {}
    for name in _PRICE_MAPS:
        place = files("litellm") / name
        if place.is_file():
            return dict(json.loads(place.read_text(encoding="utf-8")))
    return {}


def _nusd_per_mtok(dollars_a_token: Any) -> int | None:
    if not isinstance(dollars_a_token, (int, float)) or not 0 <= dollars_a_token < inf:  # nor .nan
        return None
    return round(dollars_a_token * 1e15)  # 10⁹ nano-dollars, 10⁶ tokens


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, (int, float)) and 1 <= value < inf else None


# --- questions ----------------------------------------------------------------------------------------


def _asked_models(price_map: Mapping[str, Any]) -> Iterator[FoundModel]:
    while True:
        name = typer.prompt("A model that you use (empty to finish)", default="", show_default=False).strip()
        if not name:
            return
        known = _priced(price_map, name)
        prices = [
            _nusd_per_mtok(known.get(field))
            or _asked_price(f"US dollars per million {kind} tokens (empty: not known)")
            for kind, field in (("input", "input_cost_per_token"), ("output", "output_cost_per_token"))
        ]
        window = _whole(known.get("max_input_tokens")) or _asked_window()
        yield FoundModel(name, prices[0], prices[1], window)


def _asked_price(question: str) -> int | None:
    text = typer.prompt(question, default="", show_default=False).strip()
    try:
        return round(float(text) * 1e9) if text else None
    except (ValueError, OverflowError):
        raise CliError(f"{text!r} is not a price.") from None


def _asked_window() -> int:
    window: int = typer.prompt("Its context window, in tokens", type=int)
    return window


def _asked(question: str, default: str, yes: bool) -> str:
    return default if yes else str(typer.prompt(question, default=default))


def _chosen_model(model: str, found: list[FoundModel], yes: bool) -> str:
    names = [one.name for one in found]
    if not names:
        raise CliError("No model was given, so there is nothing to route to.")
    if model and model not in names:
        raise CliError(f"--model {model} is not one of {one_line(', '.join(names))}.")
    if model or yes or len(names) == 1:
        return model or names[-1]
    offered = one_line(", ".join(names))
    return str(typer.prompt(f"Which one is used today ({offered})", default=names[-1]))


def _tell(
    settings: Settings,
    done: list[str],
    workload: str,
    environment: str,
    ending: str,
    found: list[FoundModel],
    key: str,
    written: Path | None,
) -> None:
    output: Output = settings.output
    unpriced = [
        one.name for one in found if one.input_nusd_per_mtok is None or one.output_nusd_per_mtok is None
    ]
    document = {
        "done": done,
        "workload": workload,
        "environment": environment,
        "unpriced": unpriced,
    }
    text = "\n".join([f"Created: {one_line(one)}" for one in done] or ["Everything existed already."])
    if unpriced:
        text += (
            f"\n\nThe price of {one_line(', '.join(unpriced))} is not known. Costs of their tasks stay unknown, and no "
            "rollout is judged by cost, until the catalogue has one."
        )
    if written is not None:
        document["router_key_in"] = str(written)
        text += f"\n\nThe router's address and key are in {written}."
    else:
        document["router_key"] = key
        text += "\n\nFor the router (the key is shown only once):\n" + lines(
            {"POINTSMAN_URL": settings.server, "POINTSMAN_KEY": key}
        )
    output.data(document, f"{text}\n\n{one_line(ending)}")


def _ending(workload: str, environment: str, model: str | None, serving: str, version: int) -> str:
    """Return what happens to requests now. `model` is None if version 1 is not the one that `init` makes."""
    if serving == "requested":
        return (
            f"Serving version {version} in {environment} was requested; another person must approve it. Until then "
            f"{environment} serves nothing for {workload}."
        )
    request = f"Request the model pointsman/{workload} from LiteLLM"
    if serving == "already":
        return f"{request}; {environment} serves version {version} already, and nothing about it was changed."
    if model is None:
        return f"{request}; {environment} serves version {version} now, which existed already."
    return f"{request}; everything goes to {model}, as before."


def _yaml(file: Path) -> Any:
    try:
        import yaml
    except ImportError:
        raise CliError("YAML needs the extra `yaml`: pip install 'pointsman[cli]'.") from None
    try:
        return yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CliError(f"{file} is not YAML: {error}") from None
