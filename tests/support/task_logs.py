"""A task log of a router, for tests of its readers."""

import json

from policies_app.models import Workload

SMALL = "openai/gpt-4o-mini"


def task_log(workload: Workload, tasks: int) -> str:
    """Return a log of a rollout of version 1 against the same policy under another number; arms are drawn."""
    lines = (
        {
            "task_log": 1, "at": 1.79e9 + at, "workload": workload.name, "decision": f"d{at}", "unit": f"u{at}",
            "arm": "candidate", "version": 1, "propensity": 0.5, "differing": "", "rule": "default", "model": SMALL,
            "other": {"version": 1, "model": SMALL}, "answered": SMALL,
            "attempts": [{"model": SMALL, "cost_nusd": 1_000, "confidence": 0.9}],
            "request": {"prompt_tokens": 9}, "success": at % 4 > 0, "cost_nusd": 1_000,
        }
        for at in range(tasks)
    )  # fmt: skip
    return "".join(f"{json.dumps(line)}\n" for line in lines)
