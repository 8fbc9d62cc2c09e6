"""The scenarios of both tables. `was`: the result of the previous engine (commit fed308a), where known."""

from benchmarks.simulated.scenario import Missing, Scenario, Units

_SLOW = {"per_minute": 1, "step": 20, "evaluations": 4_320, "plan": "low-traffic"}
_ENDPOINTS = {"/a": 0.05, "/b": 0.35, "/c": 0.30, "/d": 0.20, "/e": 0.10}
_HEAVY, _USERS = Units(heavy=0.3), Units(users=True)
_FEW, _MANY = Units(tenants=300), Units(tenants=3_000)

FIRST = (
    Scenario("identical", was="2.5 / 97.5 / 0; full after 28 k"),
    Scenario("identical, standard plan", plan="standard"),
    Scenario("identical, success drifts 95 to 89 %", drift="linear", was="2.6 / 97.4 / 0"),
    Scenario("identical, diurnal success and volume", drift="diurnal"),
    Scenario("identical, 5-minute outage in both arms", outage=True),
    Scenario("identical, cost lognormal sigma 2", sigma=2.0),
    Scenario("identical, outcomes 15 minutes late", delay=15),
    Scenario("identical, 20 tasks an hour, 60 days", **_SLOW),  # type: ignore[arg-type]
    Scenario("success -1 point (half the margin)", success=-0.01),
    Scenario("success -2 points (the margin)", success=-0.02, was="92.9 / 1.5 / 5.6; 2,514 / 25,586"),
    Scenario("success -5 points", success=-0.05, was="100; 340 / 1,130"),
    Scenario("success -10 points", success=-0.10, was="100; 98 / 246"),
    Scenario("everything fails", success=-0.92, was="100; 5 / 7"),
    Scenario("success -5 points, from 50 % on", success=-0.05, late_stage=3),
    Scenario("success -5 points, outcomes 15 minutes late", success=-0.05, delay=15),
    Scenario("success -10 points, 20 tasks an hour", success=-0.10, **_SLOW),  # type: ignore[arg-type]
    Scenario("cost per success +5 % (half the margin)", cost=1.05),
    Scenario("cost per success +10 %", cost=1.10, was="88.7, 0.9 pass; 4,819"),
    Scenario("cost per success +25 %", cost=1.25, was="100; 622"),
    Scenario("cost per success doubled", cost=2.0),
    Scenario("cost per success +25 %, sigma 2", cost=1.25, sigma=2.0),
    Scenario("cost per success +10 %: 1.4 % of tasks cost eightfold", expensive=0.1 / 7),
    Scenario("p95 latency +20 %", latency=1.20, was="99.9; 998"),
    Scenario("p95 latency +50 %", latency=1.50, was="100; 142"),
)

MISSING = (
    Scenario(
        "3 times dearer on 40 % of tasks, whose cost is unknown",
        missing=Missing(unpriced=0.4, unpriced_factor=3.0), was="full", goal="never full",
    ),
    Scenario(
        "-5 points, 60 % of its failures ungraded", success=-0.05,
        missing=Missing(ungraded_failures=0.6), was="43 % full", goal="<= 5 % full",
    ),
    Scenario(
        "-5 points, 70 % of its failures after the lag", success=-0.05,
        missing=Missing(late_failures=0.7), was="81 % full", goal="<= 5 % full",
    ),
    Scenario(
        "identical, 30 % of successes late", missing=Missing(late_successes=0.3),
        was="81 % rolled back", goal="<= 5 % rolled back",
    ),
    Scenario(
        "identical, 40 % of successes ungraded", missing=Missing(ungraded_successes=0.4),
        was="100 % rolled back", goal="<= 5 % rolled back",
    ),
    *(
        Scenario(
            f"identical, graded share {percent} % at random", missing=Missing(both_ungraded=1 - percent / 100),
            was=f"{was} % rolled back", goal="<= 1 % rolled back",
        )
        for percent, was in ((10, 2), (5, 32), (2, 53), (1, 75))
    ),
    Scenario(
        "-2 points, 0.8 more hidden as ungraded", success=-0.02,
        missing=Missing(ungraded_failures=0.08), goal="<= 2 % full",
    ),
    *(
        Scenario(
            f"{name}, {share} % unfinished in both arms", success=success,
            missing=Missing(both_unfinished=share / 100), goal=goal,
        )
        for share in (1, 10, 50)
        for name, success, goal in (
            ("identical", 0.0, "tasks until full <= 1.1 x at <= 10 %, >= 70 % full at 50 %"),
            ("-5 points", -0.05, "<= 1.15 x"),
        )
    ),
)  # fmt: skip

UNITS = (
    Scenario("one unit of 30 %: identical", units=_HEAVY, was="93 % hold", goal=">= 90 % full"),
    Scenario("one unit of 30 %: -5 points", units=_HEAVY, success=-0.05, was="0 %", goal=">= 98 % rolled back"),
    Scenario(
        "one unit of 30 %: everything fails", units=_HEAVY, success=-0.95, was="8 %", goal="within 10 tasks"
    ),
    Scenario("one unit of 5 %: identical", units=Units(heavy=0.05), goal="<= 7 % rolled back"),
    Scenario(
        "one unit of 30 %, comes after an hour: identical",
        units=Units(heavy=0.3, arrives=60), goal="<= 7 % rolled back",
    ),
    *(
        Scenario(
            f"{tenants} tenants, from {first} %: {name}", units=_FEW if tenants == 300 else _MANY,
            before=20_000, success=success, plan=f"cautious {first}", goal=goal,
        )
        for tenants, first, name, success, goal in (
            (300, 5, "identical", 0.0, ">= 85 % full"),
            (300, 5, "-10 points", -0.10, ">= 97 % rolled back"),
            (300, 5, "-5 points", -0.05, ">= 93 % rolled back"),
            (300, 1, "identical", 0.0, ">= 65 % full"),
            (300, 1, "-10 points", -0.10, ">= 72 % rolled back"),
            (300, 1, "-5 points", -0.05, ">= 72 % rolled back"),
            (3_000, 1, "identical", 0.0, ">= 90 % full"),
            (3_000, 1, "-10 points", -0.10, ">= 98 % rolled back"),
        )
    ),
    Scenario("300 tenants, 2,000 tasks before: identical", units=_FEW, plan="cautious 5", goal=">= 50 % full"),
    Scenario("users, correlated .3: identical", units=_USERS, goal=">= 82 % full"),
    Scenario("users, correlated .3: -5 points", units=_USERS, success=-0.05, goal=">= 93 % rolled back"),
)  # fmt: skip

OTHERS = (
    Scenario(
        "weak first, 40 % escalated, cost -50 %", weak_first=0.4, was="rolled back", goal=">= 95 % full"
    ),
    Scenario(
        "weak first, tolerance declared at 3 x p95", weak_first=0.4, tolerance_ms=7_250.0, goal=">= 95 % full"
    ),
    Scenario(
        "0.5 % of tasks cost 50-fold", expensive=0.005, expensive_factor=50.0, goal=">= 75 % rolled back, <= 10 % full"
    ),
    Scenario(
        "one endpoint of 5 % at -30 points", success=-0.30, endpoints=_ENDPOINTS, hurt="/a",
        was="19 % full", goal="<= 3 % full, its name in the reason",
    ),
    Scenario("identical, five endpoints", endpoints=_ENDPOINTS),
    Scenario(
        "baseline 99.85 %, one success, then only failures", base_failures=0.0015, after_first=True,
        per_minute=100, plan="cautious 25", was="stays", goal="rolled back",
    ),
    Scenario(
        "failures 1 % before, 5 % in both arms now", base_failures=0.05, failed_before=0.01, goal="<= 7 % rolled back"
    ),
    Scenario(
        "failures 1 % before, 5 % now: -3 points", base_failures=0.05, failed_before=0.01, success=-0.03,
        goal="<= 2 % full",
    ),
    Scenario("20 % differ: identical", differing=0.2),
    Scenario("20 % differ: -5 points", success=-0.05, differing=0.2, was="339", goal="median <= 180"),
    Scenario("20 % differ: -2 points", success=-0.02, differing=0.2, was="2,861", goal="median <= 800"),
    Scenario("plan evidence: identical", plan="evidence", goal="full in <= 16,000 tasks"),
    Scenario("plan evidence: -5 points", plan="evidence", success=-0.05),
    Scenario("plan evidence: -10 points", plan="evidence", success=-0.10),
)  # fmt: skip

ALL = (*FIRST, *MISSING, *UNITS, *OTHERS)
