#!/usr/bin/env python3
"""Compute a rollout's verdicts again, with nothing but Python: recompute_verdicts.py ROLLOUT.json VERDICTS.json

ROLLOUT.json is the answer of /api/v1/rollouts/<id>, VERDICTS.json that of …/verdicts?look=7 (or a list of its rows).
The formulas are those of statistics.md; nothing here is taken from the engine. Prints each row with what was stored and
what comes out, and ends with 1 if any differs.
"""

import json
import math
import sys
from pathlib import Path

HARM = ((1.2, 0.15), (1.5, 0.30), (2.0, 0.30), (3.0, 0.15), (6.0, 0.06), (25.0, 0.04))
SAFE = ((0.65, 0.1), (0.8, 0.2), (1.0, 0.5), (1.1, 0.2))
RESTARTS = (0.7, 0.1, 0.1, 0.1)
STEADY = ("error", "fallback", "retry")
RATIOS = ("cost_per_success", "quality")
LN_20 = math.log(20)


def ln_sum(terms):
    """ln Σ w e^x over (w, x)."""
    terms = [(w, x) for w, x in terms if x is not None]
    top = max((x for _, x in terms), default=None)
    return None if top is None else top + math.log(sum(w * math.exp(x - top) for w, x in terms))


def compute(rollout, row):
    """(result, estimate, ln E harm, ln E safe, margin of the next stage) of one row."""
    data, reference, stages = row["data"], rollout["reference"], rollout["stages"]
    measure = Ratio(data, reference) if data["metric"] in RATIOS else Rate(data, reference)
    compared = [i for i, stage in enumerate(stages) if stage["mode"] == "percentage"]
    after = stages[row["stage"] + 1] if row["stage"] + 1 < len(stages) else None
    share = after["share_pcm"] / 100_000 if after and after["mode"] == "percentage" else 1.0
    margin = measure.margin(share)
    whole = added([sums for _, sums in data["sums"]])
    late = [i for i in compared[1:4] if i in [stage for stage, _ in data["sums"]]]
    parts = [whole, *(added([s for stage, s in data["sums"] if stage >= i]) for i in reversed(late))]
    e = [measure.harm(part) for part in parts]
    harm = ln_sum(zip(RESTARTS, e + [0.0] * (4 - len(e)), strict=True))
    reached = [measure.reached(measure.estimate(part)) for part in parts]
    counted = ln_sum((w, x) for w, x, yes in zip(RESTARTS, e, reached, strict=False) if yes)
    estimate, safe = measure.estimate(whole), measure.safe(whole, margin)
    if estimate is None and safe < LN_20:
        result = "no_data"
    elif counted is not None and counted + math.log(data["weight"]) >= LN_20:
        result = "fail"
    else:
        result = "pass" if safe >= LN_20 else "inconclusive"
    return result, estimate, harm, safe, margin, counted


def added(parts):
    """Sums of several stages, added up field by field (llr: by odds ratio)."""
    total = {}
    for part in parts:
        for name, value in part.items():
            if name == "llr":
                old = dict(map(tuple, total.get("llr", [])))
                value = [[psi, x + old.get(psi, 0.0)] for psi, x in value]
            elif name == "mh":
                value = [x + y for x, y in zip(value, total.get("mh", [0, 0]), strict=False)]
            else:
                value = {key: x + total.get(name, {}).get(key, 0) for key, x in value.items()}
            total[name] = value
    return total


class Rate:
    """x bad of n, against the concurrent baseline or (`…_bound`) a bound."""

    def __init__(self, data, reference):
        self.metric, self.d, self.deff = data["metric"], data["margin"], data["deff"]
        self.bound = data["name"] != data["metric"]
        self.p_ref = reference["rates"].get(self.metric, 0.0)

    def margin(self, share):
        if not self.bound:
            return min(0.2, self.d / share)
        room = self.d - self.p_ref
        return self.p_ref + min(0.2, room / share) if room > 0 else self.d

    def estimate(self, sums):
        if not sums:
            return None
        if self.bound:
            n, x = sums["candidate"]["n"], sums["candidate"]["x"]
            return x / n if n else None
        numerator, denominator = sums["mh"]
        return numerator / denominator if denominator else None

    def reached(self, estimate):
        return estimate is not None and estimate >= self.d

    def harm(self, sums):
        if not sums:
            return 0.0
        if not self.bound:
            llr = dict(map(tuple, sums["llr"]))
            return ln_sum((w, llr[psi] / self.deff) for psi, w in HARM)
        n, x, b = sums["candidate"]["n"], sums["candidate"]["x"], self.d
        if not n:
            return 0.0
        return ln_sum((w, (x * math.log(psi) - n * math.log(1 - b + b * psi)) / self.deff) for psi, w in HARM)

    def safe(self, sums, margin):
        if not sums:
            return 0.0
        if self.bound:
            return self.alone(sums, margin)
        alone = self.alone(sums, margin + (self.p_ref if self.metric in STEADY else 0.0))
        p = self.p_ref
        if p <= 0:
            return alone
        bad = min(p + margin, (1 + p) / 2)
        llr, border = dict(map(tuple, sums["llr"])), bad / (1 - bad) / (p / (1 - p))
        psi_m = min(llr, key=lambda psi: abs(psi - border))
        grid = [(psi, w) for psi, w in SAFE if psi < psi_m]
        total = sum(w for _, w in grid)
        return max(alone, ln_sum((w / total, (llr[psi] - llr[psi_m]) / self.deff) for psi, w in grid))

    def alone(self, sums, pm):
        n, x = sums["candidate"]["n"], sums["candidate"]["x"]
        if not n or not 0 < pm < 1:
            return 0.0
        pa = max(self.p_ref, pm / 10)
        pa = pm / 2 if pa >= pm else pa
        return (x * math.log(pa / pm) + (n - x) * math.log((1 - pa) / (1 - pm))) / self.deff


class Ratio:
    """Cost per success or mean quality, against the concurrent baseline or a bound."""

    def __init__(self, data, reference):
        self.d, self.deff, self.bound = data["margin"], data["deff"], data["name"] != data["metric"]
        cost = data["metric"] == "cost_per_success"
        self.sign = 1 if cost else -1
        self.v_ref = reference["cost_v" if cost else "quality_v"] or 3.3
        self.curve = reference["cost_curve"] if cost else []
        self.ref = reference["cost_per_success" if cost else "mean_quality"]
        self.kept = reference["cost_kept"]
        whole = reference.get(
            "cost_uncapped_v", reference.get("cost_whole_v")
        )  # older rollouts have the second name
        v = reference["cost_v"]
        self.noise = max(1.0, whole / v) if cost and whole and v else 1.0
        self.alpha = 0.05 * data["weight"]

    def margin(self, share):
        if not self.bound:
            return min(1.0, self.d / share)
        if not self.ref or self.sign < 0 or self.d <= self.ref:
            return self.d
        return self.ref * (1 + min(1.0, (self.d / self.ref - 1) / share))

    def estimate(self, sums):
        if not sums or not sums["candidate"]["d"]:
            return None
        whole, error = sums["whole"], self.error(sums)
        if self.bound:
            ratio = sums["candidate"]["y"] / sums["candidate"]["d"]
            if ratio and error and self.curve and whole["y"] and self.noise * error[0] <= 0.05**2:
                return whole["y"] / sums["candidate"]["d"]
            return self.ref * self.true(ratio / (self.ref * self.kept)) if self.curve and self.ref else ratio
        a, b = sums["contrast"]["a"], sums["contrast"]["b"]
        if a <= 0 or b <= 0:
            return None
        precise = error and self.noise * error[0] <= (self.d / 2) ** 2
        if self.curve and precise and whole["a"] > 0 and whole["b"] > 0:
            return self.sign * (whole["a"] / whole["b"] - 1)
        return self.sign * (self.true(a / b) - 1)

    def reached(self, estimate):
        sign = self.sign if self.bound else 1
        return estimate is not None and sign * estimate >= sign * self.d

    def error(self, sums):
        """Squared errors of ln ratio: as observed, and for a claim of safety."""
        arms = [arm for arm in ("candidate", "baseline") if not self.bound or arm == "candidate"]
        if any(not sums[arm]["d"] or not sums[arm]["y"] or sums[arm]["n"] < 2 for arm in arms):
            return None
        v = [self.variance(sums[arm]) for arm in arms]
        if self.bound:
            n, d = sums["candidate"]["n"], sums["candidate"]["d"]
            error = self.deff * v[0] * n / d**2
            return (error, error) if error > 0 else None
        c, (r_t, r_c) = sums["contrast"], [sums[arm]["y"] / sums[arm]["d"] for arm in arms]
        if c["a"] <= 0 or c["b"] <= 0:
            return None
        t, b = c["qa"] * (r_t / c["a"]) ** 2, c["qb"] * (r_c / c["b"]) ** 2
        own = self.deff * (t * v[0] + b * v[1])
        return (own, self.deff * (t * max(v) + b * v[1])) if own > 0 else None

    def variance(self, arm):
        n, y, d = arm["n"], arm["y"], arm["d"]
        r, my, md = y / d, y / n, d / n
        spread = arm["yy"] / n - my**2 - 2 * r * (arm["yd"] / n - my * md) + r**2 * (arm["dd"] / n - md**2)
        return max(0.0, spread) / r**2 * n / (n - 1)

    def harm(self, sums):
        return self.evidence(sums, self.d if self.bound else None, self.sign, self.alpha, 0)

    def safe(self, sums, margin):
        estimate = self.estimate(sums)
        sign = self.sign if self.bound else 1
        if (
            estimate is None
            or sign * estimate >= sign * margin
            or (not self.bound and self.sign * margin <= -1)
        ):
            return 0.0
        return self.evidence(sums, margin, -self.sign, 0.05, 1)

    def evidence(self, sums, limit, sign, alpha, which):
        """The one-sided normal mixture against "ratio <= limit" (None: no change); sign -1 turns it round."""
        arms = ("candidate",) if self.bound else ("candidate", "baseline")
        error = self.error(sums) if sums else None
        if error is None or min(sums[arm]["n"] for arm in arms) < 100:
            return 0.0
        if self.bound:
            ratio = sums["candidate"]["y"] / sums["candidate"]["d"]
            capped = self.curve and self.ref
            border = self.ref * self.kept * self.seen(limit / self.ref) if capped else limit
        else:
            ratio = sums["contrast"]["a"] / sums["contrast"]["b"]
            border = 1.0 if limit is None else self.seen(1 + self.sign * limit)
        v = 1 / error[which]
        s = sign * (math.log(ratio) - math.log(border)) * v
        rho = 500 / self.v_ref / (-lambert(-((2 * alpha) ** 2) / math.e) - 1)
        z = s / math.sqrt(v + rho)
        return math.log(2) + 0.5 * math.log(rho / (v + rho)) + z * z / 2 + ln_phi(z)

    def seen(self, factor):
        return along(self.curve, factor, 0, 1)

    def true(self, factor):
        return along(self.curve, factor, 1, 0)


def ln_phi(z):
    """ln of the standard normal distribution function; far out by its asymptotic series."""
    if z > -30:
        return math.log(0.5 * math.erfc(-z / math.sqrt(2)))
    return -z * z / 2 - math.log(-z * math.sqrt(2 * math.pi)) + math.log1p(-1 / z**2 + 3 / z**4)


def along(curve, x, of, to):
    """What lies at x on the curve of (true, capped) factors: straight between logarithms, in proportion beyond."""
    if not curve:
        return x
    above = next((i for i, point in enumerate(curve) if point[of] >= x), len(curve))
    if above in (0, len(curve)):
        end = curve[min(above, len(curve) - 1)]
        return end[to] * x / end[of]
    p, q = curve[above - 1], curve[above]
    return (
        p[to]
        if q[of] <= p[of]
        else p[to] * (q[to] / p[to]) ** (math.log(x / p[of]) / math.log(q[of] / p[of]))
    )


def lambert(x):
    """The lower branch of Lambert's W: w e^w = x with w <= -1, by halving."""
    low, high = -800.0, -1.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if middle * math.exp(middle) > x else (low, middle)
    return low


def same(stored, computed):
    if stored is None or computed is None:
        return stored is computed
    return math.isclose(stored, computed, rel_tol=1e-6, abs_tol=1e-6)


def differences(rollout, row):
    """What was stored and does not come out, by name."""
    result, *figures = compute(rollout, row)
    names = ("estimate", "log_e_harm", "log_e_safe", "stage_margin", "log_e_counted")
    found = {} if result == row["verdict"] else {"verdict": (row["verdict"], result)}
    pairs = {name: (row["data"][name], figure) for name, figure in zip(names, figures, strict=True)}
    return found | {name: pair for name, pair in pairs.items() if not same(*pair)}


if __name__ == "__main__":
    rollout, rows = (json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:3])
    wrong = 0
    for row in rows["items"] if isinstance(rows, dict) else rows:
        found = differences(rollout, row)
        wrong += bool(found)
        print(f"look {row['look']}, {row['guardrail']}: {row['verdict']}", found or "comes out again")
    sys.exit(1 if wrong else 0)
