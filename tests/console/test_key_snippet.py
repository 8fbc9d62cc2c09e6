"""The code that the page of a new router key shows, run unchanged."""

import html
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from django.urls import reverse

from pointsman.testing import FakeControlPlane
from policies_app.models import Environment
from tests.client.policies import always
from tests.support.people import People

PRICES = {
    name: {"input": 10**9, "output": 2 * 10**9, "cache_read": None, "cache_write": None}
    for name in ("vendor/small", "vendor/large")
}


def _snippet(page: str) -> str:
    (found,) = re.findall(r'<pre [^>]*id="snippet">(.*?)</pre>', page, re.DOTALL)
    return html.unescape(found)


def test_it_decides_at_once_and_reports_what_a_shadow_stage_needs(
    people: People, production: Environment, tmp_path: Path
) -> None:
    """The other model's cost is computed from tokens: with a cost in dollars alone the rollout stays in shadow."""
    form = {"kind": "router", "environment": "production", "label": "gateway"}
    page = people("ada", "admin").post(reverse("console:new_key"), form).content.decode()
    code = _snippet(page).replace("/var/lib/gateway/pointsman", str(tmp_path / "store"))
    (key,) = re.findall(r'key="(pmr_\w+)"', code)
    called: list[str] = []

    def call(model: str, params: Any) -> SimpleNamespace:
        called.append(model)
        return SimpleNamespace(text="ok", cost=0.002, prompt_tokens=900, completion_tokens=100, ms=812)

    with FakeControlPlane(key=key) as plane:
        plane.prices = PRICES
        plane.serve("support-summaries", {**always("large"), "workload": "support-summaries"})
        plane.roll_out(
            "support-summaries", {**always("small"), "workload": "support-summaries"}, mode="shadow"
        )
        names: dict[str, Any] = {"call": call, "is_good": lambda answer: True}
        exec(compile(code.replace("http://testserver", plane.url), "snippet", "exec"), names)  # noqa: S102 — our own page
        names["router"].close()
        assert called == ["vendor/large"]
        (bucket,) = plane.buckets("support-summaries")
    assert (bucket["tasks"], bucket["successes"], bucket["cost_nusd"]["n"]) == (1, 1, 1)
    assert (bucket["shadow"]["baseline_priced"], bucket["shadow"]["candidate_priced"]) == (1, 1)
