"""How often the doubly robust intervals cover the truth: `python benchmarks/drawn.py [RUNS]`.

Logs are simulated with a known truth, and with an outcome model that sees a random number instead of the task's
difficulty (`tests/support/drawn.py`). For each log and figure, prints the share of 95 % intervals that cover the truth,
and the mean error.
"""

import sys

from rollout_app.backtest.doubly_robust import change_of, value_of
from tests.support.drawn import DrawnLog

LOGS = {
    "a fifth, 2,000 tasks": DrawnLog(2_000, 0.2),
    "a twentieth, 2,000 tasks": DrawnLog(2_000, 0.05),
    "a hundredth, 5,000 tasks": DrawnLog(5_000, 0.01),
    "units of 10 tasks, rates ± 15 points": DrawnLog(4_000, 0.25, (0.75, 0.7), per_unit=10, unlike=0.15),
    "30 % of the candidate's grades missing": DrawnLog(2_000, 0.2, ungraded=(0.02, 0.3)),
    "98.5 % succeed": DrawnLog(1_500, 0.2, (0.99, 0.985)),
    "half of the tasks, 400": DrawnLog(400, 0.5),
}


def main(runs: int) -> None:
    for name, log in LOGS.items():
        covered, error = dict.fromkeys(log.truth, 0), dict.fromkeys(log.truth, 0.0)
        for seed in range(runs):
            ours, theirs = log.draw(10_000 + seed)
            for figure, found in log.figures(value_of(ours), change_of(ours, theirs)).items():
                known = found.low is not None and found.high is not None
                covered[figure] += known and found.low <= log.truth[figure] <= found.high  # type: ignore[operator]
                error[figure] += ((found.value or 0.0) - log.truth[figure]) / runs
        told = ", ".join(
            f"{figure} {count / runs:.1%} ({error[figure] / abs(log.truth[figure]):+.2%})"
            for figure, count in covered.items()
        )
        print(f"{name}: {told}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
