"""Recorded tasks that are included in Pointsman. SOURCES.md lists their content, origin and licences."""

import csv
import gzip
import io
import math
from collections.abc import Iterator
from pathlib import Path

from rollout_app.backtest.tasks import Answer, Task

WEAK, STRONG = "mistralai/mixtral-8x7b-instruct-v0.1", "openai/gpt-4-1106-preview"
HAIKU, GEMINI = "anthropic/claude-3-haiku", "google/gemini-2.0-flash"
# Nano-USD per token, the same for input and output (SOURCES.md).
TOKEN_NUSD = {WEAK: 240, STRONG: 24_700}
CHARACTERS_A_TOKEN = 4
# The lowest score at which a RouterArena task counts as a success.
SUCCESS_FROM = 0.5

# Every other subject is `other`, as in MMLU's groups.
FAMILIES = {
    "stem": (
        "abstract_algebra anatomy astronomy college_biology college_chemistry college_computer_science"
        " college_mathematics college_physics computer_security conceptual_physics electrical_engineering"
        " elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science"
        " high_school_mathematics high_school_physics high_school_statistics machine_learning"
    ),
    "humanities": (
        "formal_logic high_school_european_history high_school_us_history high_school_world_history"
        " international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy"
        " prehistory professional_law world_religions"
    ),
    "social-sciences": (
        "econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics"
        " high_school_microeconomics high_school_psychology human_sexuality professional_psychology"
        " public_relations security_studies sociology us_foreign_policy"
    ),
}
_FAMILY = {subject: family for family, subjects in FAMILIES.items() for subject in subjects.split()}


def gsm8k() -> list[Task]:
    """Return school mathematics tasks. The weak model's confidence is known, so a second stage can use it."""
    return [
        Task(
            {"task_type": "reasoning", "endpoint": "/gsm8k", "prompt_tokens": _tokens(row["prompt_chars"])},
            {
                WEAK: Answer(
                    row["weak_correct"] == "1",
                    _cost(WEAK, row["prompt_chars"], row["weak_response_chars"]),
                    confidence=float(row["weak_confidence"]),
                ),
                STRONG: Answer(
                    row["strong_correct"] == "1",
                    _cost(STRONG, row["prompt_chars"], row["strong_response_chars"]),
                ),
            },
        )
        for row in _rows("gsm8k")
    ]


def mmlu() -> list[Task]:
    """Return examination questions. The endpoint is the subject's family, and the subject is an attribute."""
    return [
        Task(
            {
                "task_type": "classification",
                "endpoint": f"/mmlu/{_FAMILY.get(row['subject'], 'other')}",
                "prompt_tokens": _tokens(row["prompt_chars"]),
                "attributes": {"subject": row["subject"]},
            },
            {
                WEAK: Answer(row["weak_correct"] == "1", _cost(WEAK, row["prompt_chars"])),
                STRONG: Answer(row["strong_correct"] == "1", _cost(STRONG, row["prompt_chars"])),
            },
        )
        for row in _rows("mmlu")
    ]


def routerarena() -> list[Task]:
    """Return a mix of benchmarks, in which the more expensive model is the weaker one. The endpoint is the
    benchmark.
    """
    return [
        Task(
            {
                "task_type": "mixed",
                "endpoint": f"/routerarena/{row['dataset'].split('_')[0].lower()}",
                "prompt_tokens": int(row["haiku_input_tokens"]),
            },
            {model: _scored(row, name) for name, model in (("haiku", HAIKU), ("gemini", GEMINI))},
        )
        for row in _rows("routerarena")
    ]


def _rows(name: str) -> Iterator[dict[str, str]]:
    packed = Path(__file__).with_name(f"{name}.csv.gz").read_bytes()
    return csv.DictReader(io.StringIO(gzip.decompress(packed).decode()))


def _tokens(characters: str) -> int:
    return math.ceil(int(characters) / CHARACTERS_A_TOKEN)


def _cost(model: str, *characters: str) -> int:
    return TOKEN_NUSD[model] * sum(map(_tokens, characters))


def _scored(row: dict[str, str], name: str) -> Answer:
    score = float(row[f"{name}_score"])
    quality = min(1.0, max(0.0, score))  # one recorded score is slightly below 0
    return Answer(score >= SUCCESS_FROM, round(float(row[f"{name}_cost_usd"]) * 1e9), quality=quality)
