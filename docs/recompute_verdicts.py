#!/usr/bin/env python3
"""Recompute a rollout's verdicts, using only Python's standard library.

Usage: recompute_verdicts.py ROLLOUT.json VERDICTS.json

ROLLOUT.json is the response of /api/v1/rollouts/<id>; VERDICTS.json is the response of …/verdicts?evaluation=7, or a
list of its rows. The formulas are those of statistics.md; no code is shared with the engine. Prints each row, with the
stored and the computed value where they differ. The exit status is 1 if any row differs.
"""

import json
import math
import sys
from pathlib import Path

HARM = ((1.2, 0.15), (1.5, 0.30), (2.0, 0.30), (3.0, 0.15), (6.0, 0.06), (25.0, 0.04))
SAFE = ((0.65, 0.1), (0.8, 0.2), (1.0, 0.5), (1.1, 0.2))
SHIFT = ((12.0, 0.4), (25.0, 0.3), (100.0, 0.3))
OVER = ("over 50", "over 75", "over 90")
WITHIN = (0.05, 0.2, 0.5, 0.7, 0.85)
NEARER = 0.1  # the weight of candidates nearer to the margin
STEADY = ("error", "fallback", "retry")
GRADED = ("failure", "quality", "cost_per_success")
RATIOS = ("cost_per_success", "quality")
LN_20, CERTAIN = math.log(20), math.log(1000)
LEAST_COSTS, APART = 50, 0.5


def ln_sum(terms):
    """Return ln of the weighted sum of e-values, given as (weight, ln E), or None if there are none."""
    terms = [(w, x) for w, x in terms if x is not None and w > 0]
    top = max((x for _, x in terms), default=None)
    return None if top is None else top + math.log(sum(w * math.exp(x - top) for w, x in terms))


def compute(rollout, row):
    """Return (result, estimate, ln E harm, ln E safe, margin of the next stage, ln E counted) of one row."""
    data, stages = row["data"], rollout["stages"]
    measure = (Ratio if data["metric"] in RATIOS else Rate)(data, rollout["reference"])
    after = stages[row["stage"] + 1] if row["stage"] + 1 < len(stages) else None
    share = after["share_pcm"] / 100_000 if after and after["mode"] == "percentage" else 1.0
    margin = measure.margin(share / (after or {}).get("tolerance", 1.0))
    parts = [(part["weight"], *measure.part(part["name"]), part) for part in data["parts"]]
    harm = ln_sum((w, x) for w, x, _, _ in parts) if parts else 0.0
    # A guardrail that was set aside does not count, whatever its own estimate.
    aside = data["note"] and not any(part["counted"] for part in data["parts"])
    counted = None if aside else ln_sum((w, x) for w, x, yes, _ in parts if yes)
    estimate = measure.estimate("all")
    safe = measure.safe(margin) if parts else 0.0
    if not parts or (estimate is None and (safe is None or safe < LN_20)):
        result = "no_data"
    elif counted is not None and counted + math.log(data["weight"]) >= LN_20:
        result = "fail"
    else:
        result = "pass" if safe is not None and safe >= LN_20 else "inconclusive"
    return result, estimate, harm, safe, margin, counted


class Missing:
    """The excess of missing data in one arm, z standard errors towards 0: its share e, its tasks K, and the arm."""

    def __init__(self, sums, z, deff):
        self.e, self.k, self.candidate = 0.0, 0.0, True
        t, c, (numerator, weight) = sums["candidate"], sums["baseline"], sums["mh"]
        if not weight or not t["missing"] + c["missing"]:
            return
        p, d = (t["missing"] + c["missing"]) / (t["n"] + c["n"]), numerator / weight
        kept = abs(d) - z * math.sqrt(max(p * (1 - p), 0) / (weight / deff))
        other, own = (c, t) if d > 0 else (t, c)
        if kept > 0 and other["missing"] < other["n"]:
            self.e = min(kept / (1 - other["missing"] / other["n"]), 1.0)
            self.k, self.candidate = kept * own["n"], d > 0


class Measure:
    def __init__(self, data, reference):
        self.metric, self.d, self.deff = data["metric"], data["margin"], data["deff"]
        self.bound, self.weight = data["name"] != data["metric"], data["weight"]
        self.sums, self.differing, self.reference = dict(data["sums"]), data["differing"], reference
        # A bound applies to the candidate alone, so its units are not compared with those of the baseline.
        self.shift = {} if self.bound else data["success_shift"]

    def missing(self, name, z):
        none = {"candidate": {"n": 0, "missing": 0}, "baseline": {"n": 0, "missing": 0}, "mh": [0, 0]}
        own = Missing(self.sums[name].get("missing", none), z, self.deff)
        if self.metric in RATIOS or self.bound or name == "all":
            return own
        whole = Missing(self.sums["all"].get("missing", none), z, self.deff)
        if whole.e <= own.e:
            return own
        arm = self.sums[name]["missing"]["candidate" if whole.candidate else "baseline"]
        whole.k = whole.e * arm["n"]
        return whole

    def mixture(self, llrs, weights, deff):
        return ln_sum((w, x / deff) for x, w in zip(llrs, weights, strict=True))

    def above(self, sums, psi):
        """Return ln E against "odds ratio <= psi"."""
        llr = dict(map(tuple, sums["llr"]))
        if psi <= 1:
            ln_e = self.mixture([llr[p] for p, _ in HARM], [w for _, w in HARM], self.deff)
            # Only rows from earlier releases have a gain.
            return ln_e + (sums.get("gain", 0.0) if self.deff <= 1 else 0.0)
        grid = [(p, w) for p, w in HARM if p > psi]
        if not grid:
            return 0.0
        null, total = at(sums["llr"], psi), sum(w for _, w in grid)
        return self.mixture([llr[p] - null for p, _ in grid], [w / total for _, w in grid], self.deff)


def shifted_odds(pc, missing):
    """Return the odds ratio that equal arms would show in the best case for the excess of missing data."""
    e = missing.e
    if not e or not 0 < pc < 1:
        return 1.0
    p = pc / (1 - e) if missing.candidate and e < 1 else pc * (1 - e) + e if not missing.candidate else 1.0
    return math.inf if p >= 1 or e >= 1 else p / (1 - p) / (pc / (1 - pc))


def at(llr, psi):
    """Interpolate the log likelihood ratio at any odds ratio: a cubic in ln psi through the four nearest points."""
    points = []
    for p, x in sorted([(1.0, 0.0), *((p, x) for p, x in llr if x > -1e6 and p != 1.0)]):
        if not points or math.log(p) - points[-1][0] > 1e-3:
            points.append((math.log(p), x))
    t = math.log(psi)
    near = min(points, key=lambda point: abs(point[0] - t))
    if abs(near[0] - t) < 1e-9:
        return near[1]
    above = next((i for i, point in enumerate(points) if point[0] > t), len(points))
    first = min(max(above - 2, 0), max(len(points) - 4, 0))
    some = points[first : first + 4]
    return sum(x * math.prod((t - u) / (s - u) for u, _ in some if u != s) for s, x in some)


class Rate(Measure):
    """A rate, x bad of n tasks, compared with the concurrent baseline or (`…_bound`) with a bound."""

    def __init__(self, data, reference):
        super().__init__(data, reference)
        self.p_ref = reference["rates"].get(self.metric, 0.0)

    def margin(self, share):
        if not self.bound:
            return max(self.d, min(0.2, self.d / share))
        room = self.d - self.p_ref
        if room <= 0:
            return self.d
        return min(self.p_ref + max(room, min(0.2, room / share)), max(self.d, (1 + self.p_ref) / 2))

    def estimate(self, name):
        sums = self.sums[name]
        if self.bound:
            n, x = sums["candidate"]["n"], sums["candidate"]["x"]
            return x / n if n else None
        numerator, denominator = sums["mh"]
        return numerator / denominator if denominator else None

    def tasks(self, name):
        return self.sums[name]["candidate"]["n"] + self.sums[name]["baseline"]["n"]

    def part(self, name):
        """Return (ln E of harm, whether it counts)."""
        if name == "later":
            return 0.0, False
        if name == "shift":
            llr = dict(map(tuple, self.sums["all"]["llr"]))
            ln_e = self.mixture([llr[p] - llr[6.0] for p, _ in SHIFT], [w for _, w in SHIFT], 1.0)
            return ln_e, self.part("all")[1]
        sums, estimate = self.sums[name], self.estimate(name)
        if estimate is None:
            return 0.0, False
        missing = self.missing(name, 1.0)
        if self.bound:
            n = sums["candidate"]["n"] + (round(missing.k) if missing.candidate else 0)
            x, b = sums["candidate"]["x"], self.d
            odds = ((w, (x * math.log(p) - n * math.log(1 - b + b * p)) / self.deff) for p, w in HARM)
            return ln_sum(odds), x / n >= self.d
        pt, pc = (sums[arm]["x"] / sums[arm]["n"] for arm in ("candidate", "baseline"))
        best = estimate - missing.e * (pt if missing.candidate else 1 - pc)
        ln_e = self.above(sums, shifted_odds(pc, missing))
        of_all = best * self.tasks(name) / max(1, self.tasks("all"))
        if name == "differing":
            return ln_e, of_all >= self.d
        return ln_e, best >= self.d and (not name.startswith("slice") or of_all >= self.d / 4)

    def safe(self, margin):
        missing = self.missing("all", 2.0)
        extra = round(missing.k) if missing.candidate else 0
        if self.bound:
            return self.within(margin, extra)
        if self.differing is not None and self.differing <= margin:
            return CERTAIN
        alone = self.alone(margin + (self.p_ref if self.metric in STEADY else 0.0), extra)
        whole = max(alone, self.compared("all", self.p_now(), margin))
        if self.differing is None or "differing" not in self.sums:
            return whole
        c = self.sums["differing"]["baseline"]
        p = (c["x"] + 50 * self.p_ref) / (c["n"] + 50)
        return ln_sum([(1 - APART, whole), (APART, self.compared("differing", p, margin / self.differing))])

    def p_now(self):
        """Return the rate before the rollout, or the baseline's present one less a standard error if that is higher."""
        n, x = (self.sums["all"]["baseline"][key] for key in ("n", "x"))
        p = x / n if n else 0.0
        return max(self.p_ref, p - math.sqrt(self.deff * p * (1 - p) / n) if n else 0.0)

    def within(self, pm, extra):
        """Return the candidate's evidence of staying below a bound: the average over guesses below it."""
        n, x = (self.sums["all"]["candidate"][key] + extra for key in ("n", "x"))
        if not n or not 0 < pm < 1:
            return 0.0
        guesses = [odds * pm / (1 - pm + odds * pm) for odds in WITHIN]
        guesses += [self.p_ref] if 0 < self.p_ref < pm else []
        lines = [x * math.log(p / pm) + (n - x) * math.log((1 - p) / (1 - pm)) for p in guesses]
        return ln_sum([(1 / len(lines), line / self.deff) for line in lines])

    def compared(self, name, p, margin):
        missing = self.missing(name, 2.0)
        e = missing.e
        if e and missing.candidate:
            margin = (margin - e * (1 - p)) / (1 - e) if e < 1 else -math.inf
        elif e:
            margin -= e * p
        if margin <= 0:
            return -math.inf
        bad = min(p + margin, (1 + p) / 2)
        llr = self.sums[name]["llr"]
        if p <= 0 or bad >= 1:
            return 0.0
        psi_m = min(bad / (1 - bad) / (p / (1 - p)), HARM[-1][0])
        grid, known = [(psi, w) for psi, w in SAFE if psi < psi_m], dict(map(tuple, llr))
        exact = [psi for psi in known if math.isclose(psi, psi_m, rel_tol=1e-12)]
        border, total = known[exact[0]] if exact else at(llr, psi_m), sum(w for _, w in grid)
        nearer = [psi for psi, _ in HARM[1:] if psi <= psi_m / 1.4]
        grid = [(psi, w / total * (1 - NEARER if nearer else 1)) for psi, w in grid]
        grid += [(psi, NEARER / len(nearer)) for psi in nearer]
        return self.mixture([known[psi] - border for psi, _ in grid], [w for _, w in grid], self.deff)

    def alone(self, pm, extra):
        return ln_sum([(1 - NEARER, self.below(pm, extra)), (NEARER, self.within(pm, extra))])

    def below(self, pm, extra):
        n, x = (self.sums["all"]["candidate"][key] + extra for key in ("n", "x"))
        if not n or not 0 < pm < 1:
            return 0.0
        pa = max(self.p_ref, pm / 10)
        pa = pm / 2 if pa >= pm else pa
        return (x * math.log(pa / pm) + (n - x) * math.log((1 - pa) / (1 - pm))) / self.deff


class Ratio(Measure):
    """Cost per success or mean quality, compared with the concurrent baseline or with a bound."""

    def __init__(self, data, reference):
        super().__init__(data, reference)
        self.cost = cost = data["metric"] == "cost_per_success"
        self.sign = 1 if cost else -1
        self.v_ref = max(reference["cost_v" if cost else "quality_v"] or 3.3, 0.01)
        self.curve = reference["cost_curve"] if cost else []
        self.ref = reference["cost_per_success" if cost else "mean_quality"]
        self.kept, self.cap = reference["cost_kept"], reference["cost_cap_nusd"]
        full, v = reference.get("cost_uncapped_v", reference.get("cost_whole_v")), reference["cost_v"]
        self.noise = max(1.0, full / v) if cost and full and v else 1.0
        self.alpha = 0.05 * self.weight

    def margin(self, share):
        if not self.bound:
            return max(self.d, min(1.0, self.d / share))
        if not self.ref or self.sign < 0 or self.d <= self.ref:
            return self.d
        room = self.d / self.ref - 1
        return self.ref * (1 + max(room, min(1.0, room / share)))

    def enough(self, name):
        arms = ("candidate",) if self.bound else ("candidate", "baseline")
        return min(self.sums[name][arm]["n"] for arm in arms) >= LEAST_COSTS

    def free(self, name):
        t, c = self.sums[name]["candidate"], self.sums[name]["baseline"]
        if self.bound:
            return self.cost and self.enough(name) and t["d"] > 0 and not t["y"]
        return self.cost and self.enough(name) and not t["y"] and not c["y"]

    def ln_ratio(self, name):
        t, c = self.sums[name]["candidate"], self.sums[name]["contrast"]
        if self.bound and t["y"] > 0:
            return math.log(t["y"] / t["d"]) if t["d"] > 0 else None
        if self.bound:
            return math.log(0.5 / t["n"]) if not self.cost and t["d"] > 0 else None
        if c["b"] <= 0:
            return None
        if c["a"] > 0:
            return math.log(c["a"]) - math.log(c["b"])
        return math.log(0.5 / t["n"]) if t["n"] and t["d"] > 0 and not t["y"] else None

    def estimate(self, name):
        sums = self.sums[name]
        t, error, full = sums["candidate"], self.error(name), sums["uncapped"]
        if self.bound:
            if not t["d"]:
                return None
            ratio = t["y"] / t["d"]
            if ratio and error and self.curve and full["y"] and self.noise * error[0] <= 0.05**2:
                return full["y"] / t["d"]
            return (
                self.ref * self.uncapped(ratio / (self.ref * self.kept)) if self.curve and self.ref else ratio
            )
        if self.free(name):
            return 0.0
        a, b = sums["contrast"]["a"], sums["contrast"]["b"]
        if b <= 0 or not t["d"]:
            return None
        if a <= 0:
            return -1.0 * self.sign if self.ln_ratio(name) is not None else None
        precise = error and self.noise * error[0] <= (self.d / 2) ** 2
        if self.curve and precise and full["a"] > 0 and full["b"] > 0:
            return self.sign * (full["a"] / full["b"] - 1)
        return self.sign * (self.uncapped(a / b) - 1)

    def shifted(self, name):
        estimate, shift = self.estimate(name), self.shift.get(name, 0.0)
        return estimate if estimate is None or not shift else (1 + estimate) * math.exp(shift) - 1

    def error(self, name):
        """Return the squared errors of ln ratio: as observed, and for a claim of safety.

        The variance of an arm is at least 1/n.
        """
        sums = self.sums[name]
        t, c = sums["candidate"], sums["baseline"]
        if self.bound:
            if self.ln_ratio(name) is None or t["n"] < 2:
                return None
            error = self.deff * self.variance(t) * t["n"] / t["d"] ** 2
            return error, error
        between = sums["contrast"]
        if between["b"] <= 0 or not c["d"] or not c["y"] or min(t["n"], c["n"]) < 2 or t["d"] <= 0:
            return None
        v_t, v_c = self.variance(t), self.variance(c)
        w_c = c["y"] / c["d"] / between["b"]
        w_t = t["y"] / t["d"] / between["a"] if between["a"] > 0 else w_c
        t_part, c_part = between["qa"] * w_t**2, between["qb"] * w_c**2
        own = self.deff * (t_part * v_t + c_part * v_c)
        return (own, self.deff * (t_part * max(v_t, v_c) + c_part * v_c)) if own > 0 else None

    def variance(self, arm):
        n, y, d = arm["n"], arm["y"], arm["d"]
        if d <= 0 or y <= 0:
            return 1 / n
        r, my, md = y / d, y / n, d / n
        spread = arm["yy"] / n - my**2 - 2 * r * (arm["yd"] / n - my * md) + r**2 * (arm["dd"] / n - md**2)
        return max(max(0.0, spread) / r**2 * n / (n - 1), 1 / n)

    def lost(self, name, safe):
        """Return the correction of ln ratio for missing data (positive is harm): worst case if `safe`, else best."""
        missing, sums = self.missing(name, 2.0 if safe else 1.0), self.sums[name]
        if not missing.e or (self.bound and not missing.candidate):
            return 0.0
        t, c = sums["candidate"], sums["baseline"]
        if not self.cost:
            return self.quality_lost(missing, t if missing.candidate else c, safe)
        half = 0.5 * c["y"] / max(1, c["n"])
        spent, good = (t["y"] or half, c["d"]) if safe else (c["y"], t["d"])
        by_cap = missing.candidate is safe
        if by_cap:
            size = math.log1p(missing.k * self.cap / spent) if self.cap and spent > 0 else math.inf
        else:
            size = math.log1p(missing.k / good) if good > 0 else math.inf
        return size if safe else -size

    def quality_lost(self, missing, arm, safe):
        mean, e = (arm["y"] / arm["d"] if arm["d"] else 0), missing.e
        if not mean or e >= 1:
            return math.inf if safe else -math.inf
        low, high = math.log1p(-e), max(math.log(mean * (1 - e) + e) - math.log(mean), 0.0)
        if missing.candidate:
            return -low if safe else -high
        return high if safe else low

    def part(self, name):
        if name == "later":
            return 0.0, False
        if name == "exact":
            return self.exact()
        lost, ln_r, error = self.lost(name, False), self.ln_ratio(name), self.error(name)
        counted = self.counts(name, lost)
        if ln_r is None or error is None or math.isinf(lost) or not self.enough(name):
            return 0.0, counted
        ln_r += self.shift.get(name, 0.0)
        if self.bound:
            border = math.log(self.capped_bound(self.d))
            return self.evidence(self.sign * (ln_r - border) + lost, error[0], self.alpha), counted
        return self.evidence(self.sign * ln_r + lost, error[0], self.alpha), counted

    def counts(self, name, lost):
        estimate = self.shifted(name)
        if estimate is None:
            return False
        if self.bound:
            return self.sign * estimate * math.exp(self.sign * max(lost, -50.0)) >= self.sign * self.d
        if lost:
            if math.isinf(lost):
                return False
            estimate = self.sign * ((1 + self.sign * estimate) * math.exp(self.sign * lost) - 1)
        return estimate * (self.share() if name == "differing" else 1.0) >= self.d

    def share(self):
        """Return the differing tasks' share of the baseline's cost or of its successes, whichever is greater."""
        ours, whole = self.sums["differing"]["baseline"], self.sums["all"]["baseline"]
        return (
            min(1.0, max(ours["y"] / whole["y"], ours["d"] / whole["d"]))
            if whole["y"] and whole["d"]
            else 1.0
        )

    def exact(self):
        found = []
        for name in OVER:
            sums = self.sums[name]
            missing = Missing(sums["missing"], 1.0, self.deff)
            pc = sums["baseline"]["x"] / sums["baseline"]["n"] if sums["baseline"]["n"] else 0.0
            found.append((1 / len(OVER), self.above(sums, shifted_odds(pc, missing))))
        return ln_sum(found), self.enough("all") and self.counts("all", self.lost("all", False))

    def safe(self, margin):
        whole = self.safe_part("all", margin)
        if self.differing is None or "differing" not in self.sums:
            return whole
        n = max(1.0, self.sums["differing"]["baseline"]["n"])
        share = min(1.0, self.share() * (1 + 2 * math.sqrt(self.v_ref / n)))
        among = self.safe_part("differing", margin / share) if share else 0.0
        return ln_sum([(1 - APART, whole), (APART, among)])

    def safe_part(self, name, margin):
        if self.free(name):
            excess = self.missing(name, 2.0)
            return 0.0 if excess.e and excess.candidate else CERTAIN
        lost, ln_r, error, estimate = (
            self.lost(name, True),
            self.ln_ratio(name),
            self.error(name),
            self.shifted(name),
        )
        if error is None or ln_r is None or estimate is None or math.isinf(lost) or not self.enough(name):
            return 0.0
        sign = self.sign if self.bound else 1
        if not self.bound and self.sign * margin <= -1:
            return CERTAIN if self.sums[name]["candidate"]["y"] > 0 else 0.0
        if sign * estimate >= sign * margin:
            return 0.0
        border = self.capped_bound(margin) if self.bound else self.capped(1 + self.sign * margin)
        shown = -self.sign * (ln_r + self.shift.get(name, 0.0) - math.log(border)) - lost
        return self.evidence(shown, error[1], 0.05)

    def evidence(self, shown, error, alpha):
        """Return ln E of the one-sided normal mixture against "shown <= 0"."""
        v = 1 / error
        rho = 500 / self.v_ref / (-lambert(-((2 * alpha) ** 2) / math.e) - 1)
        z = shown * v / math.sqrt(v + rho)
        return math.log(2) + 0.5 * math.log(rho / (v + rho)) + z * z / 2 + ln_phi(z)

    def capped_bound(self, limit):
        read = self.curve and self.ref
        return self.ref * self.kept * self.capped(limit / self.ref) if read else limit

    def capped(self, factor):
        return along(self.curve, factor, 0, 1)

    def uncapped(self, factor):
        return along(self.curve, factor, 1, 0)


def ln_phi(z):
    """Return ln of the standard normal distribution function. Far in the tail, use its asymptotic series."""
    if z > -30:
        return math.log(0.5 * math.erfc(-z / math.sqrt(2)))
    return -z * z / 2 - math.log(-z * math.sqrt(2 * math.pi)) + math.log1p(-1 / z**2 + 3 / z**4)


def along(curve, x, of, to):
    """Read the curve of (true, capped) factors at x: linear in the logarithms, proportional beyond its ends."""
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
    """Return the lower branch of Lambert's W (w e^w = x with w <= -1), by bisection."""
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
    """Return the values that differ, by name: (stored, computed)."""
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
