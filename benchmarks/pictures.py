"""Draws the pictures of `docs/explanation/why-e-values.md`: rollouts as seen by a threshold and by evidence.

The same seed always gives the same pictures, using only the engine's formulas. One line is one rollout of 60 minutes
with 20 tasks of the candidate and 180 of the baseline per minute, of which 8 % fail (more of the candidate's if
the heading says so).
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rollout_app.engine.stats import rates

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "img"
MINUTES, CANDIDATE, BASELINE, FAILS = 60, 20, 180, 0.08
WIDTH, HEIGHT, LEFT, TOP, GAP = 380, 260, 64, 46, 70
INDIGO, RED, GREY = "#4f46e5", "#dc2626", "#94a3b8"


@dataclass(frozen=True)
class Run:
    """After each minute: the estimated difference in points, and ln E against "no harm"."""

    difference: list[float]
    evidence: list[float]


def simulate(harm: float, seed: int) -> Run:
    chance = random.Random(seed)
    strata, llrs = [], [0.0] * len(rates.HARM_PSIS)
    difference, evidence = [], []
    for _ in range(MINUTES):
        xt = sum(chance.random() < FAILS + harm for _ in range(CANDIDATE))
        xc = sum(chance.random() < FAILS for _ in range(BASELINE))
        strata.append((CANDIDATE, xt, BASELINE, xc))
        found = rates.stratum_llrs(CANDIDATE, xt, BASELINE, xc, rates.HARM_PSIS)
        llrs = [total + llr for total, llr in zip(llrs, found, strict=True)]
        shift, weight = rates.mantel_haenszel(strata)
        difference.append(100 * shift / weight)
        evidence.append(rates.log_e_harm(dict(zip(rates.HARM_PSIS, llrs, strict=True))))
    return Run(difference, evidence)


def panel(
    x0: float,
    title: str,
    lines: Sequence[Sequence[float]],
    span: tuple[float, float],
    ticks: dict[float, str],
    limit: float,
) -> str:
    low, high = span

    def at(minute: float, value: float) -> str:
        y = TOP + HEIGHT * (1 - (min(max(value, low), high) - low) / (high - low))
        return f"{x0 + WIDTH * minute / MINUTES:.1f},{y:.1f}"

    parts = [f'<text x="{x0}" y="{TOP - 18}" class="title">{title}</text>']
    for value, words in ticks.items():
        x, y = at(0, value).split(",")
        parts.append(f'<line x1="{x}" y1="{y}" x2="{x0 + WIDTH}" y2="{y}" class="grid"/>')
        parts.append(
            f'<text x="{x0 - 6}" y="{float(y) + 4:.1f}" class="tick" text-anchor="end">{words}</text>'
        )
    for values in lines:
        crossed = any(value >= limit for value in values[2:])
        points = " ".join(at(minute + 1, value) for minute, value in enumerate(values))
        parts.append(f'<polyline points="{points}" class="{"over" if crossed else "under"}"/>')
    _, y = at(0, limit).split(",")
    parts.append(f'<line x1="{x0}" y1="{y}" x2="{x0 + WIDTH}" y2="{y}" class="limit"/>')
    for minute in range(0, MINUTES + 1, 20):
        x = x0 + WIDTH * minute / MINUTES
        parts.append(
            f'<text x="{x}" y="{TOP + HEIGHT + 18}" class="tick" text-anchor="middle">{minute} min</text>'
        )
    return "\n".join(parts)


def picture(runs: Sequence[Run], heading: str) -> str:
    over = [
        sum(any(value >= limit for value in values[2:]) for values in lines)
        for lines, limit in (
            ([run.difference for run in runs], 2.0),
            ([run.evidence for run in runs], math.log(20)),
        )
    ]
    left = panel(
        LEFT, f"A threshold: {over[0]} of {len(runs)} rolled back", [run.difference for run in runs],
        (-10, 14), {-10: "-10", 0: "0", 2: "+2 points", 10: "+10"}, 2.0,
    )  # fmt: skip
    right = panel(
        LEFT + WIDTH + GAP, f"Evidence: {over[1]} of {len(runs)} rolled back", [run.evidence for run in runs],
        (math.log(0.01), math.log(2_000)), {math.log(v): f"{v:g}" for v in (0.01, 0.1, 1, 20, 1_000)}, math.log(20),
    )  # fmt: skip
    width, height = LEFT + 2 * WIDTH + GAP + 20, TOP + HEIGHT + 36
    style = (
        f"text{{font:13px system-ui,sans-serif;fill:#475569}} .title{{font-weight:600}} .tick{{font-size:11px}}"
        f" polyline{{fill:none;stroke-width:1}} .under{{stroke:{GREY}}} .over{{stroke:{INDIGO};stroke-width:1.4}}"
        f" .grid{{stroke:#cbd5e1;stroke-width:.5}} .limit{{stroke:{RED};stroke-width:1.5;stroke-dasharray:5 4}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{heading}">\n'
        f'<style>{style}</style>\n<rect width="{width}" height="{height}" fill="#fff"/>\n{left}\n{right}\n</svg>\n'
    )


def main() -> None:
    for name, harm, heading in (
        ("e-values-identical", 0.0, "Forty rollouts of a candidate that is identical to its baseline"),
        ("e-values-harm", 0.10, "Forty rollouts of a candidate that fails ten points more often"),
    ):
        runs = [simulate(harm, seed) for seed in range(40)]
        (IMAGES / f"{name}.svg").write_text(picture(runs, heading))
        print(f"docs/img/{name}.svg")


if __name__ == "__main__":
    main()
