"""What the LiteLLM hook reads from a request of each API. Needs no LiteLLM."""

from typing import Any

import pytest

from pointsman.integrations.litellm_request import inputs_of, units_of

TEXT = "x" * 4_000  # about 1,000 tokens


@pytest.mark.parametrize(
    ("body", "turns"),
    [
        ({"messages": [{"role": "user", "content": TEXT}]}, 1),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": TEXT}]}]}, 1),
        ({"system": TEXT[:3_000], "messages": [{"role": "user", "content": TEXT[:1_000]}]}, 1),
        ({"system": [{"type": "text", "text": TEXT}], "messages": []}, 0),
        ({"instructions": TEXT[:3_992], "input": "question"}, None),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": TEXT}]}]}, 1),
        ({"prompt": TEXT}, None),
        ({"contents": [{"role": "user", "parts": [{"text": TEXT}]}]}, 1),
        ({"systemInstruction": {"parts": [{"text": TEXT}]}, "contents": [{"parts": [{"text": ""}]}]}, 0),
    ],
)
def test_it_counts_the_whole_prompt_of_each_api(body: dict[str, Any], turns: int | None) -> None:
    expected = {"prompt_tokens": 1_000} | ({} if turns is None else {"turns": turns})
    assert inputs_of(body, {}) == expected


def test_a_prompt_that_it_cannot_measure_is_unknown() -> None:
    assert inputs_of({"prompt": [1, 2, 3]}, {}) == {}, "token ids"
    assert inputs_of({"contents": None, "messages": 5, "tools": 7}, {}) == {}


def test_what_the_client_says_overrides_the_estimate() -> None:
    """The how-to promises every input of the policy."""
    given = {"prompt_tokens": 9, "turns": 3, "tool_calls": 2, "language": "de", "unknown": 1}
    body = {"messages": [{"role": "user", "content": TEXT}], "tools": [{"type": "function"}]}
    assert inputs_of(body, given) == {"prompt_tokens": 9, "turns": 3, "tool_calls": 2, "language": "de"}
    assert inputs_of(body, {}) == {"prompt_tokens": 1_000, "turns": 1, "tool_calls": 1}


def test_units_come_from_metadata_first_and_then_from_headers() -> None:
    body = {
        "litellm_call_id": "call-1",
        "user": "u-1",
        "proxy_server_request": {"headers": {"Pointsman-Conversation": "c-1"}},
        "metadata": {"user_api_key_team_id": "team-1"},
    }
    assert units_of(body, {}) == {
        "request": "call-1", "conversation": "c-1", "user": "u-1", "tenant": "team-1",
    }  # fmt: skip
    assert units_of(body, {"conversation": "c-2", "tenant": "t-2"})["conversation"] == "c-2"


@pytest.mark.parametrize("blank", [" ", False, [], float("nan")])
def test_a_blank_unit_does_not_hide_the_next_place(blank: Any) -> None:
    headers = {"Pointsman-Conversation": " "}
    body = {"user": "u-1", "litellm_session_id": "s-1", "proxy_server_request": {"headers": headers}}
    assert units_of(body, {"conversation": blank, "user": blank, "tenant": blank}) == {
        "conversation": "s-1", "user": "u-1",
    }  # fmt: skip
    assert units_of({}, {"user": 0}) == {"user": "0"}
