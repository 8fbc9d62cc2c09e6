"""What a request to LiteLLM's proxy says: its metadata, its headers, and the inputs and units of the decision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pointsman.given import id_text

__all__ = ["KEY", "given_in", "group_of", "headers_of", "inputs_of", "metadata_of", "units_of"]

KEY = "pointsman_decision_id"  # in the request's metadata, to join the calls of one request
CHARACTERS_A_TOKEN = 4
_INPUTS = (
    "endpoint", "task_type", "prompt_tokens", "retrieved_chunks", "tool_calls", "turns", "priority", "customer_tier",
    "language", "confidence", "attributes",
)  # fmt: skip
# Where the APIs keep the prompt: OpenAI's, Anthropic's (`system`) and Google's (`contents`, `systemInstruction`).
_MESSAGES = ("messages", "input", "contents")
_TEXTS = (*_MESSAGES, "prompt", "system", "instructions", "systemInstruction", "system_instruction")


def metadata_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request's metadata, wherever this LiteLLM call keeps it."""
    parameters = data.get("litellm_params")
    places = (data, parameters) if isinstance(parameters, Mapping) else (data,)
    for place in places:
        for name in ("litellm_metadata", "metadata"):
            found = place.get(name)
            if isinstance(found, dict) and (KEY in found or place is data):
                return found
    if isinstance(data, dict):
        return data.setdefault("metadata", {})  # type: ignore[no-any-return]
    return {}


def headers_of(data: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the client's headers, their names in lower case."""
    asked = data.get("proxy_server_request")
    found = asked.get("headers") if isinstance(asked, Mapping) else None
    return (
        {str(name).lower(): str(value) for name, value in found.items()} if isinstance(found, Mapping) else {}
    )


def given_in(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the client says in `metadata.pointsman`."""
    found = metadata_of(data).get("pointsman")
    if not isinstance(found, Mapping):
        asked = metadata_of(data).get("requester_metadata")
        found = asked.get("pointsman") if isinstance(asked, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def inputs_of(data: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `request.*` inputs that a proxy knows. Only lengths, so no text leaves the process."""
    inputs: dict[str, Any] = {}
    if characters := _characters([data.get(name) for name in _TEXTS]):
        inputs["prompt_tokens"] = -(-characters // CHARACTERS_A_TOKEN)
    messages = next((data[name] for name in _MESSAGES if isinstance(data.get(name), list)), None)
    if messages is not None:
        inputs["turns"] = sum(
            1 for message in messages if isinstance(message, Mapping) and message.get("role") == "user"
        )
    if isinstance(tools := data.get("tools"), list) and tools:
        inputs["tool_calls"] = len(tools)
    if endpoint := headers_of(data).get("pointsman-endpoint"):
        inputs["endpoint"] = endpoint
    return inputs | {name: given[name] for name in _INPUTS if name in given}


def units_of(data: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, str]:
    """Return the ids by kind, as in `Router.decide`."""
    headers = headers_of(data)
    places = {
        "request": (data.get("litellm_call_id"),),
        "conversation": (
            given.get("conversation"), headers.get("pointsman-conversation"), data.get("litellm_session_id"),
        ),
        "user": (given.get("user"), data.get("user")),
        "tenant": (given.get("tenant"), metadata_of(data).get("user_api_key_team_id")),
    }  # fmt: skip
    found = {name: next(filter(None, map(id_text, values)), None) for name, values in places.items()}
    return {name: unit for name, unit in found.items() if unit is not None}


def _characters(value: Any) -> int:
    """Count the characters of all strings in a value. Iterative, because senders control the nesting."""
    total, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            total += len(one)
        elif isinstance(one, Mapping):
            left += [one.get("content"), one.get("text"), one.get("parts")]
        elif isinstance(one, (list, tuple)):
            left += one
    return total


def group_of(data: Mapping[str, Any]) -> str:
    """Return the called deployment's name in `model_list`."""
    metadata = metadata_of(data)
    return str(metadata.get("model_group") or data.get("model_group") or data.get("model") or "")
