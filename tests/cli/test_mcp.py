"""The MCP server over the real admin API, asked by the official SDK's own client."""

import asyncio
import json
import os
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the MCP SDK is not installed here")

from mcp import Client  # noqa: E402

from controlplane.audit.models import Entry  # noqa: E402
from pointsman.cli.output import CliError  # noqa: E402
from pointsman.cli.server import Server  # noqa: E402
from pointsman.integrations.mcp import FORBIDDEN, AgentServer, make_server  # noqa: E402
from rollout_app.models import Rollout  # noqa: E402
from tests.cli.conftest import Run  # noqa: E402
from tests.support import builders  # noqa: E402

pytestmark = pytest.mark.django_db(
    transaction=True
)  # the SDK runs tools in threads, with connections of their own


@pytest.fixture
def plane(run: Run, admin_key: str, monkeypatch: pytest.MonkeyPatch) -> Server:
    """`run` sends the requests of this process to Django."""
    monkeypatch.setenv(
        "DJANGO_ALLOW_ASYNC_UNSAFE", "true"
    )  # Django answers inside the client's event loop here
    return Server(os.environ["POINTSMAN_URL"], admin_key)


def called(plane: Server, tool: str, **arguments: Any) -> Any:
    async def ask() -> Any:
        async with Client(make_server(plane, "claude")) as client:
            return await client.call_tool(tool, arguments)

    answer = asyncio.run(ask())
    text = answer.content[0].text if answer.content else "null"
    return text if answer.is_error else json.loads(text)


def test_it_offers_no_tool_that_approves_or_touches_guards_and_keys(plane: Server) -> None:
    async def names() -> list[str]:
        async with Client(make_server(plane, "claude")) as client:
            return [tool.name for tool in (await client.list_tools()).tools]

    offered = asyncio.run(names())
    assert {"propose_rollout", "roll_back_rollout", "check_policy", "review"} <= set(offered)
    for word in ("approve", "break", "glass", "guardrail", "key", "four_eyes", "start", "serve_", "role"):
        assert not [name for name in offered if word in name.replace("served", "")], word


@pytest.mark.parametrize("action", sorted(FORBIDDEN - {"keys", "memberships", "guardrails"}))
def test_no_argument_of_a_tool_leads_to_what_is_forbidden(plane: Server, action: str) -> None:
    with pytest.raises(CliError, match="An agent may not do that"):
        AgentServer(plane, "claude").act("rollouts/1", action, "please")


def test_a_proposal_names_the_agent_in_the_audit_log(plane: Server) -> None:
    environment, workload = builders.environment(), builders.workload()
    builders.served(environment, workload)
    builders.version(workload, rules=[])
    found = called(
        plane,
        "propose_rollout",
        environment=environment.name,
        workload=workload.name,
        version=2,
        reason="cheaper",
    )
    assert found["workload"] == workload.name
    assert Rollout.objects.get().reason == "[agent claude] cheaper"
    assert Entry.objects.filter(action="rollout.propose", reason="[agent claude] cheaper").exists()


def test_a_rollout_is_taken_back(plane: Server) -> None:
    environment, workload = builders.environment(), builders.workload()
    builders.served(environment, workload)
    builders.version(workload, rules=[])
    found = called(
        plane,
        "propose_rollout",
        environment=environment.name,
        workload=workload.name,
        version=2,
        reason="cheaper",
    )
    plane.act(f"rollouts/{found['id']}", "start", {"reason": "a person starts it"})
    called(plane, "roll_back_rollout", rollout_id=found["id"], reason="answers got worse")
    assert Rollout.objects.get().state in ("rolling_back", "rolled_back")


def test_a_policy_is_checked_without_being_kept(plane: Server) -> None:
    text = "format: 1\nworkload: w\nmodels: {a: {model: x/y}}\ndefault: b\nfallback: [a]\n"
    found = called(plane, "check_policy", text=text)
    problem = found[0] if isinstance(found, list) else found
    assert problem["path"] == "default"


def test_a_refusal_is_an_answer_in_words(plane: Server) -> None:
    assert "not_found" in called(plane, "rollout", rollout_id="00000000-0000-0000-0000-000000000000")
