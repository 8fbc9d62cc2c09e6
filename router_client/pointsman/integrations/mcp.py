"""An MCP server that lets an agent read, validate, propose, pause and roll back. Needs the extra `mcp`.

    POINTSMAN_URL=… POINTSMAN_KEY=pma_… POINTSMAN_AGENT=claude python -m pointsman.integrations.mcp

It has no tools that approve, use break-glass, start a rollout, switch off a guardrail or four eyes, or manage
keys. But the protection is the key, not the missing tools: use one whose only scope is `agent`, with which the control
plane refuses everything else. The audit log records the key's label as the actor ("agent …"), and the agent's
name before every reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

try:
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
except ImportError as error:
    raise ImportError("The MCP server needs its extra: pip install 'pointsman[mcp]'") from error

from pointsman.cli.output import CliError
from pointsman.cli.server import Server, path
from pointsman.errors import PolicyInvalid
from pointsman.policy import parse, validate
from pointsman.problems import first_of

__all__ = ["main", "make_server"]

# API actions that no tool may send, whatever its arguments.
FORBIDDEN = frozenset(
    {"approve", "break-glass", "four-eyes-off", "keys", "memberships", "guardrails", "serve", "stop"}
)


COMPUTE_S = 300.0  # a backtest of thousands of tasks under several versions


class AgentServer:
    """The control plane as an agent may use it: every write has the agent's name, and some endpoints are blocked."""

    def __init__(self, server: Server, agent: str) -> None:
        self._server, self._agent = server, agent

    def get(self, where: str, **query: Any) -> Any:
        """Get a document."""
        return self._server.get(where, **query)

    def items(self, where: str, limit: int = 50, **query: Any) -> list[Any]:
        """Return the first items of a list."""
        return list(self._server.get(where, limit=max(1, min(limit, 200)), **query)["items"])

    def text(self, where: str) -> str:
        """Return a response that is not JSON."""
        return self._server.text(where)

    def compute(self, where: str, body: dict[str, Any]) -> Any:
        """Post a computation that changes nothing."""
        self._allowed(where)
        return self._server.compute(where, body, COMPUTE_S)

    def post(self, where: str, body: dict[str, Any]) -> Any:
        """Create an object."""
        self._allowed(where)
        return self._server.post(where, body)

    def act(self, thing: str, action: str, reason: str) -> Any:
        """Post an action on an object's current state."""
        self._allowed(f"{thing}/{action}")
        return self._server.act(thing, action, {"reason": self.reason(reason)})

    def reason(self, text: str) -> str:
        """Return the reason, prefixed with the agent's name and cut to 400 characters."""
        return f"[agent {self._agent}] {text}"[:400]

    def _allowed(self, where: str) -> None:
        if FORBIDDEN & set(where.split("/")):
            raise CliError("An agent may not do that. A person can do it in the console.")


class Tools:
    """The agent's tools, one method each. The docstrings are shown to the agent."""

    def __init__(self, plane: AgentServer) -> None:
        self._plane = plane

    def all(self) -> list[Callable[..., Any]]:
        """Return the tools."""
        return [
            self.list_workloads,
            self.served,
            self.policy,
            self.compare_policies,
            self.check_policy,
            self.backtest,
            self.add_version,
            self.review,
            self.list_rollouts,
            self.rollout,
            self.evidence,
            self.shadow_report,
            self.report,
            self.propose_rollout,
            self.pause_rollout,
            self.roll_back_rollout,
            self.audit_entries,
        ]

    def list_workloads(self) -> list[Any]:
        """List all workloads with task type, owner, quality bar and success signal."""
        return self._plane.items("workloads", 200)

    def served(self, environment: str, workload: str) -> Any:
        """Show what an environment currently serves for a workload: baseline, candidate, rollout, pin."""
        return self._plane.get(path("environments", environment, "assignments", workload))

    def policy(self, workload: str, version: int) -> Any:
        """Show a policy version with its document and digest."""
        return self._plane.get(path("workloads", workload, "versions", version))

    def compare_policies(self, workload: str, version: int, other: int) -> Any:
        """Show the differences between two versions of a workload."""
        return self._plane.get(path("workloads", workload, "versions", version, "diff", other))

    def check_policy(self, text: str, workload: str = "") -> list[dict[str, Any]]:
        """List all problems of a policy document (YAML or JSON), with line and column. An empty list means it is valid.

        With a workload, also check it against the catalogue and the workload's limits.
        """
        if workload:
            checked = self._plane.compute(path("workloads", workload, "versions", "validate"), {"text": text})
            return list(checked["problems"])
        try:
            document = parse(text)
        except PolicyInvalid as invalid:
            return [problem.as_dict() for problem in invalid.problems]
        problems = first_of(validate(document.data, locate=document.locate))
        return [problem.as_dict() for problem in problems]

    def backtest(
        self, workload: str, versions: list[int], draft: str = "", recorded: str = "", tasks: str = ""
    ) -> Any:
        """Compute the success and cost of versions, or of a draft that is not a version yet, over recorded tasks.

        recorded  an included data set: gsm8k, mmlu, routerarena
        tasks     alternatively CSV text, for each model the columns `<model>:success` and `<model>:cost_usd`
        """
        body: dict[str, Any] = {"versions": versions, "draft": draft, "recorded": recorded}
        if tasks:
            body["file"] = {"name": "tasks.csv", "text": tasks}
        given = {name: value for name, value in body.items() if value}
        return self._plane.compute(path("workloads", workload, "backtest"), given)

    def add_version(self, workload: str, text: str, note: str) -> Any:
        """Store a policy document as a new version. It gets no traffic until it is rolled out."""
        where = path("workloads", workload, "versions")
        return self._plane.post(where, {"text": text, "note": self._plane.reason(note)})

    def review(self, environment: str, workload: str, days: int = 7) -> Any:
        """Compare cost per successful task, quality, route mix and owner impact of the last days with those before."""
        return self._plane.get(path("environments", environment, "review", workload), days=days)

    def list_rollouts(self, environment: str = "", workload: str = "", state: str = "") -> list[Any]:
        """List rollouts, newest first. States: awaiting_approval, running, paused, rolled_back, completed …"""
        named = {"environment": environment or None, "workload": workload or None, "state": state or None}
        return self._plane.items("rollouts", 50, **named)

    def rollout(self, rollout_id: str) -> Any:
        """Show a rollout: its stage, why it is held, what would advance it, and the possible actions."""
        return self._plane.get(path("rollouts", rollout_id))

    def evidence(self, rollout_id: str) -> Any:
        """Show the guardrails' verdicts on a rollout with their figures."""
        return self._plane.get(path("rollouts", rollout_id, "judgement"))

    def shadow_report(self, rollout_id: str) -> Any:
        """Show the results of the shadow stage: agreement, route mix, projected cost."""
        return self._plane.get(path("rollouts", rollout_id, "shadow"))

    def report(self, rollout_id: str) -> str:
        """Return the evidence report of a rollout in Markdown: what, who, why, blast radius, verdicts, result."""
        return self._plane.text(path("rollouts", rollout_id, "report.md"))

    def propose_rollout(
        self, environment: str, workload: str, version: int, reason: str, plan: str = "standard"
    ) -> Any:
        """Propose a rollout of a version. With four eyes, a person must approve it before it starts."""
        body = {"environment": environment, "workload": workload, "candidate": version, "plan": plan,
                "reason": self._plane.reason(reason)}  # fmt: skip
        return self._plane.post("rollouts", body)

    def pause_rollout(self, rollout_id: str, reason: str) -> Any:
        """Pause a rollout; automatic rollback stays active."""
        return self._plane.act(path("rollouts", rollout_id), "pause", reason)

    def roll_back_rollout(self, rollout_id: str, reason: str) -> Any:
        """Roll back the candidate at once."""
        return self._plane.act(path("rollouts", rollout_id), "roll-back", reason)

    def audit_entries(self, limit: int = 20, workload: str = "") -> list[Any]:
        """Show the last entries of the audit log: who changed what, why, on what evidence."""
        return self._plane.items("audit", limit, workload=workload or None)


def make_server(control_plane: Server, agent: str) -> MCPServer[Any]:
    """Create the MCP server with its tools."""
    server: MCPServer[Any] = MCPServer(
        "pointsman",
        instructions="Router policies: read them, check them, propose rollouts of them, pause and roll back. You can't "
        "approve: a person does. Say why in every reason; it goes to the audit log.",
    )
    for tool in Tools(AgentServer(control_plane, agent)).all():
        server.add_tool(_with_readable_errors(tool))
    return server


def _with_readable_errors(tool: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a tool so that a refusal becomes a response that the agent can read."""

    @wraps(tool)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        try:
            return tool(*arguments, **named)
        except CliError as error:
            raise ToolError(str(error)) from None

    return wrapped


def main() -> None:
    """Serve over standard input and output, as MCP clients expect."""
    control_plane = Server(os.environ.get("POINTSMAN_URL", ""), os.environ.get("POINTSMAN_KEY", ""))
    make_server(control_plane, os.environ.get("POINTSMAN_AGENT", "unnamed")).run()


if __name__ == "__main__":
    main()
