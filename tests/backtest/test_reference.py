"""The reference page names every field of the answers."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rollout_app import recorded
from rollout_app.backtest.report import agreement_document, as_document
from rollout_app.backtest.run import backtest
from rollout_app.backtest.single_log import LogComparison
from tests.backtest.test_recorded_figures import always

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
NAMES_OF_DATA = {"left_out", "unpriced", "rules", "first_model", "last_model", "missing_inputs"}


def fields(content: Any) -> Iterator[str]:
    """Yield the names of all fields. The keys of counts by model or rule are data."""
    for each in content if isinstance(content, list) else []:
        yield from fields(each)
    for name, value in content.items() if isinstance(content, dict) else []:
        yield name
        if name not in NAMES_OF_DATA:
            yield from fields(value)


def test_the_page_names_every_field_of_a_backtest() -> None:
    tasks = recorded.gsm8k()[:200]
    policy = always(recorded.STRONG, recorded.WEAK)
    compared = LogComparison(policy)
    compared.add(tasks[0])
    result = as_document(backtest({"it": policy}, tasks, score="prompt_tokens"))
    result["scores"] = list(result["scores"].values())
    named = set(re.findall(r"[a-z_0-9]+", (REFERENCE / "backtest.md").read_text()))
    assert set(fields(result)) | set(fields(agreement_document(compared.result()))) <= named
