"""The four stories: which workload moves from which policy to which, by which plan."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rollout_app import recorded
from rollout_app.backtest.tasks import Task
from rollout_app.recorded import GEMINI, HAIKU, STRONG, WEAK

# The subjects in which the weak model does as well as the strong one; SOURCES.md explains the figures.
EASY_SUBJECTS = (
    "high_school_mathematics world_religions college_chemistry marketing high_school_government_and_politics"
    " sociology college_mathematics college_medicine computer_security management college_physics"
    " us_foreign_policy virology high_school_psychology"
)


def _stage(mode: str, share_pcm: int, tasks: int, **more: Any) -> dict[str, Any]:
    # A tenth of a minute of real time: long enough to see, and six minutes of stamped traffic.
    return {"mode": mode, "share_pcm": share_pcm, "min_minutes": 0.1, "min_tasks": tasks, **more}


def _plan(*, mirror_pcm: int = 0, approval: bool = False) -> list[dict[str, Any]]:
    """Return the saved plan `standard` with waiting times short enough for an audience."""
    return [
        _stage("shadow", 0, 1_000, mirror_pcm=mirror_pcm),
        _stage("percentage", 5_000, 50, approval=approval),
        _stage("percentage", 25_000, 50),
        _stage("percentage", 50_000, 50),
        _stage("percentage", 95_000, 50),
        _stage("full", 100_000, 0),
    ]


def _policy(workload: str, models: Mapping[str, str], default: str, **more: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "workload": workload,
        "models": {alias: {"model": model} for alias, model in models.items()},
        "default": default,
        "fallback": [default, *(alias for alias in models if alias != default)],
        **more,
    }


_TWO = {"weak": WEAK, "strong": STRONG}
_SUBJECT = {"subject": {"type": "string"}}


@dataclass(frozen=True, slots=True)
class Story:
    """One rollout: the workload, the two policies, and the plan."""

    letter: str
    title: str
    expected: str
    environment: str
    workload: str
    description: str
    task_type: str
    quality_bar: str
    tasks: Callable[[], list[Task]]
    baseline: dict[str, Any]
    candidate: dict[str, Any]
    plan: list[dict[str, Any]]
    why: str
    # Guardrails that are switched off for the workload, each with the reason for the audit log.
    off: Mapping[str, str]
    approved_by_a_person: bool = False


# Without this the rollout would hold forever, because unknown figures never pass.
_NO_LATENCY = {"latency_tail": "The recordings have no latencies."}

STORIES = (
    Story(
        letter="a",
        title="MMLU: 14 easy subjects to the weak model",
        expected="advances from shadow to full automatically",
        environment="staging",
        workload="mmlu",
        description="Examination questions of 57 subjects (MMLU, as recorded by RouteLLM).",
        task_type="classification",
        quality_bar="0.7900",
        tasks=recorded.mmlu,
        baseline=_policy("mmlu", _TWO, "strong", inputs=_SUBJECT),
        candidate=_policy(
            "mmlu",
            _TWO,
            "strong",
            inputs=_SUBJECT,
            rules=[
                {
                    "id": "easy-subjects",
                    "when": "request.attributes.subject in ["
                    + ", ".join(f'"{subject}"' for subject in EASY_SUBJECTS.split())
                    + "]",
                    "use": "weak",
                    "note": "The weak model's recorded success is as good in these.",
                }
            ],
        ),
        plan=_plan(),
        why="18 % of the tasks cost a hundredth of the price and succeed as often.",
        off=_NO_LATENCY,
    ),
    Story(
        letter="b",
        title="MMLU: the weak model for everything",
        expected="is rolled back automatically at its first share of traffic",
        environment="staging",
        workload="mmlu-all-weak",
        description="The same questions, and a policy that goes too far.",
        task_type="classification",
        quality_bar="0.7900",
        tasks=recorded.mmlu,
        baseline=_policy("mmlu-all-weak", _TWO, "strong"),
        candidate=_policy("mmlu-all-weak", _TWO, "weak"),
        plan=_plan(),
        why="A hundredth of the price; someone thinks that nobody will notice.",
        off=_NO_LATENCY,
    ),
    Story(
        letter="c",
        title="GSM8K: two stages, escalating on the weak model's confidence",
        expected="is cheaper, but outside the quality bar",
        environment="staging",
        workload="gsm8k",
        description="School mathematics (GSM8K, as recorded by RouteLLM).",
        task_type="reasoning",
        quality_bar="0.8400",
        tasks=recorded.gsm8k,
        baseline=_policy("gsm8k", _TWO, "strong"),
        candidate=_policy(
            "gsm8k",
            _TWO,
            "weak",
            escalate={
                "max": 1,
                "to": "strong",
                "on": ["error", "timeout", "refusal"],
                "when": "response.confidence < 0.65",
                "missing_confidence": "accept",
            },
        ),
        plan=_plan(),
        why="The weak model first, the strong one when it is unsure: about half of the tasks.",
        off={
            **_NO_LATENCY,
            "escalation": "The baseline asks the strong model first, so there are no escalations to compare.",
        },
    ),
    Story(
        letter="d",
        title="RouterArena: from haiku to gemini",
        expected="is cheaper and better, and waits for a person's approval",
        environment="production",
        workload="routerarena",
        description="A mix of benchmarks (RouterArena). The more expensive model is the weaker one.",
        task_type="mixed",
        quality_bar="0.5000",
        tasks=recorded.routerarena,
        baseline=_policy("routerarena", {"haiku": HAIKU, "gemini": GEMINI}, "haiku"),
        candidate=_policy("routerarena", {"haiku": HAIKU, "gemini": GEMINI}, "gemini"),
        plan=_plan(mirror_pcm=30_000, approval=True),
        why="Recorded results say that the cheaper model is the better one here.",
        off=_NO_LATENCY,
        approved_by_a_person=True,
    ),
)
