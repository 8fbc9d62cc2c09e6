"""The MCP server over the real admin API, called by the client of the official SDK."""

import asyncio
import json
import os
import re
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the MCP SDK is not installed here")

from django.contrib.auth.models import User  # noqa: E402
from mcp import Client  # noqa: E402

from controlplane.audit.models import Entry  # noqa: E402
from pointsman.cli.output import CliError  # noqa: E402
from pointsman.cli.server import Server  # noqa: E402
from pointsman.integrations.mcp import FORBIDDEN, AgentServer, Tools, make_server  # noqa: E402
from rollout_app.models import Rollout  # noqa: E402
from tests.cli.conftest import Run  # noqa: E402
from tests.support import builders  # noqa: E402

pytestmark = pytest.mark.django_db(
    transaction=True
)  # the SDK runs tools in threads, with connections of their own

SMALL, LARGE = "openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"


@pytest.fixture
def person(run: Run, admin_key: str, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server for a person with every role. `run` sends the requests of this process to Django."""
    monkeypatch.setenv(
        "DJANGO_ALLOW_ASYNC_UNSAFE", "true"
    )  # Django answers inside the client's event loop here
    return Server(os.environ["POINTSMAN_URL"], admin_key)


@pytest.fixture
def plane(person: Server) -> Server:
    """A server for the same person with the key of an agent."""
    body = {
        "kind": "admin",
        "environment": "",
        "label": "code assistant",
        "scopes": ["agent"],
        "reason": "to try",
    }
    return Server(os.environ["POINTSMAN_URL"], person.post("keys", body)["key"])


def called(plane: Server, tool: str, **arguments: Any) -> Any:
    is_error, text = asked(plane, tool, **arguments)
    return text if is_error else json.loads(text)


def called_text(plane: Server, tool: str, **arguments: Any) -> str:
    is_error, text = asked(plane, tool, **arguments)
    assert not is_error, text
    return text


def asked(plane: Server, tool: str, **arguments: Any) -> tuple[bool, str]:
    """Return whether the tool refused, and its text."""

    async def ask() -> Any:
        async with Client(make_server(plane, "claude")) as client:
            return await client.call_tool(tool, arguments)

    answer = asyncio.run(ask())
    return bool(answer.is_error), answer.content[0].text if answer.content else "null"


def proposed(plane: Server) -> Any:
    """A rollout proposed by the agent, of a workload of its person's team."""
    environment, workload = builders.environment(), builders.workload()
    workload.owner.members.add(User.objects.get(username="platform-engineer"))
    builders.served(environment, workload)
    builders.version(workload, rules=[])
    body = {"environment": environment.name, "workload": workload.name, "version": 2, "reason": "cheaper"}
    found = called(plane, "propose_rollout", **body)
    assert found["workload"] == workload.name
    return found


def test_it_offers_no_tool_for_approvals_guards_or_keys(plane: Server) -> None:
    async def names() -> list[str]:
        async with Client(make_server(plane, "claude")) as client:
            return [tool.name for tool in (await client.list_tools()).tools]

    offered = asyncio.run(names())
    assert {"propose_rollout", "roll_back_rollout", "check_policy", "review"} <= set(offered)
    for word in ("approve", "break", "glass", "guardrail", "key", "four_eyes", "start", "serve_", "role"):
        assert not [name for name in offered if word in name.replace("served", "")], word


@pytest.mark.parametrize("action", sorted(FORBIDDEN - {"keys", "memberships", "guardrails"}))
def test_no_argument_reaches_a_forbidden_action(plane: Server, action: str) -> None:
    with pytest.raises(CliError, match="An agent may not do that"):
        AgentServer(plane, "claude").act("rollouts/1", action, "please")


def test_a_proposal_names_the_agent_in_the_audit_log(plane: Server) -> None:
    proposed(plane)
    assert Rollout.objects.get().reason == "[agent claude] cheaper"
    entry = Entry.objects.get(action="rollout.propose")
    assert (entry.actor_kind, entry.actor_label) == ("key", "agent key code assistant of platform-engineer")
    assert entry.reason == "[agent claude] cheaper"


def test_a_rollout_is_withdrawn(person: Server, plane: Server) -> None:
    found = proposed(plane)
    person.act(f"rollouts/{found['id']}", "start", {"reason": "a person starts it"})
    called(plane, "roll_back_rollout", rollout_id=found["id"], reason="answers got worse")
    assert Rollout.objects.get().state in ("rolling_back", "rolled_back")


def test_a_policy_is_checked_without_being_saved(plane: Server) -> None:
    text = "format: 1\nworkload: w\nmodels: {a: {model: x/y}}\ndefault: b\nfallback: [a]\n"
    found = called(plane, "check_policy", text=text)
    problem = found[0] if isinstance(found, list) else found
    assert problem["path"] == "default"


def test_a_policy_is_checked_against_the_catalogue(plane: Server) -> None:
    workload = builders.workload()
    text = f"format: 1\nworkload: {workload.name}\nmodels: {{a: {{model: x/y}}, b: {{model: x/z}}}}\n"
    text += "default: a\nfallback: [b]\n"
    assert called(plane, "check_policy", text=text) in ([], None)
    problem = called(plane, "check_policy", text=text, workload=workload.name)
    assert problem["path"] == "models.a.model"


def test_a_version_is_backtested(plane: Server) -> None:
    workload = builders.workload()
    builders.version(workload)
    columns = f"{SMALL}:success,{LARGE}:success"
    found = called(plane, "backtest", workload=workload.name, versions=[1], tasks=f"{columns}\n1,1\n0,1\n")
    assert found["tasks"]["read"] == 2


def test_the_columns_that_its_description_names_are_read(plane: Server) -> None:
    """Regression: it named `<model>:cost`, which was read as an input of the request: every cost was unknown."""
    workload = builders.workload()
    builders.version(workload)
    figures = re.findall(r"`<model>:(\w+)`", Tools.backtest.__doc__ or "")
    columns = [f"{model}:{figure}" for model in (SMALL, LARGE) for figure in figures]
    table = f"{','.join(columns)}\n" + f"{','.join('1' for _ in columns)}\n" * 2
    found = called(plane, "backtest", workload=workload.name, versions=[1], tasks=table)
    assert len(figures) == 2 and found["tasks"]["priced"] == found["tasks"]["read"] == 2


def test_the_report_of_a_rollout_is_read(plane: Server) -> None:
    found = proposed(plane)
    assert "agent claude" in called_text(plane, "report", rollout_id=found["id"])


def test_a_refusal_is_returned_as_text(plane: Server) -> None:
    assert "not_found" in called(plane, "rollout", rollout_id="00000000-0000-0000-0000-000000000000")
