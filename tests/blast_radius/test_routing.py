"""The possible choices of a policy for a task of which only the deciding rule and the endpoint are known."""

import random
from typing import Any

import pytest

from pointsman.evaluate import compile_policy
from rollout_app.blast_radius.routing import Choice, choices, facts_of

MODELS = {"small": {"model": "s"}, "middle": {"model": "m"}, "large": {"model": "l"}}


def document(*rules: tuple[str, str], default: str = "small", **changes: Any) -> dict[str, Any]:
    named = [{"id": f"r{n}", "when": when, "use": use} for n, (when, use) in enumerate(rules)]
    return {
        "format": 1, "workload": "w", "models": MODELS, "rules": named, "default": default,
        "fallback": ["large", "small"],
    } | changes  # fmt: skip


def chosen(before: dict[str, Any], after: dict[str, Any], rule: str, endpoint: str = "/a") -> list[str]:
    facts = facts_of(before, rule, endpoint, asked=[before, after])
    assert facts is not None
    return [choice.alias for choice in choices(after, facts)]


LONG = "request.prompt_tokens > 8000"


@pytest.mark.parametrize(
    ("rule", "after", "possible"),
    [
        ("r0", document((LONG, "middle")), ["middle"]),  # the same condition holds again
        ("r0", document(("request.prompt_tokens > 4000", "middle")), ["middle"]),  # a weaker one holds, too
        (
            "r0",
            document(("request.prompt_tokens >= 9000", "middle")),
            ["middle", "small"],
        ),  # a stronger one may hold
        ("default", document((LONG, "middle")), ["small"]),
        ("default", document(("request.prompt_tokens > 9000", "middle")), ["small"]),
        ("default", document(("request.prompt_tokens > 4000", "middle")), ["middle", "small"]),
        ("r0", document(("request.prompt_tokens < 100", "middle")), ["small"]),
        ("r0", document(('request.endpoint == "/a"', "middle")), ["middle"]),
        ("r0", document(('request.endpoint.startsWith("/b")', "middle")), ["small"]),
        ("r0", document(('request.endpoint in ["/b", "/c"] && ' + LONG, "middle")), ["small"]),
        ("r0", document(('request.endpoint != "/a" || has(request.prompt_tokens)', "middle")), ["middle"]),
        ("default", document((f"!({LONG})", "middle")), ["middle", "small"]),  # the length may be absent
        ("r0", document((f"!({LONG})", "middle")), ["small"]),
        ("r0", document((LONG, "middle"), inputs={"x": {"type": "int"}}), ["middle", "small"]),
    ],
)
def test_it_concludes_from_the_rule_that_decided(
    rule: str, after: dict[str, Any], possible: list[str]
) -> None:
    assert chosen(document((LONG, "large")), after, rule) == possible


def test_a_rule_that_the_version_does_not_have_shows_nothing() -> None:
    assert facts_of(document(), "pin", "/a") is None


def test_a_missing_or_truncated_endpoint_is_unknown() -> None:
    after = document(('request.endpoint == "/a"', "middle"))
    for endpoint in ("", "/" + "a" * 199):
        assert chosen(document(), after, "default", endpoint) == ["middle", "small"]


LEAVES = [
    "request.prompt_tokens {op} {n}", "{n} {op} request.turns", "request.confidence {op} 0.{d}",
    'request.endpoint == "/{e}"', 'request.endpoint != "/{e}"', 'request.endpoint in ["/a", "/{e}"]',
    'request.language == "{e}"', 'request.language in ["a", "{e}"]', 'request.language.startsWith("{e}")',
    "has(request.turns)", "has(request.language)", "size(request.language) {op} 1",
]  # fmt: skip


def condition(rng: random.Random, depth: int = 2) -> str:
    if depth == 0 or rng.random() < 0.4:
        op = rng.choice(["<", "<=", ">", ">=", "==", "!="])
        return rng.choice(LEAVES).format(
            op=op, n=rng.randrange(5), d=rng.randrange(1, 9), e=rng.choice("abc")
        )
    if rng.random() < 0.25:
        return f"!({condition(rng, depth - 1)})"
    joined = rng.choice([" && ", " || "])
    return "(" + joined.join(condition(rng, depth - 1) for _ in range(2)) + ")"


def policy(rng: random.Random, pool: list[str]) -> dict[str, Any]:
    rules = [
        (rng.choice(pool) if rng.random() < 0.6 else condition(rng), rng.choice(list(MODELS)))
        for _ in range(rng.randrange(4))
    ]
    unique = list(dict(rules).items())
    return document(*unique, default=rng.choice(["small", "middle"]))


def request(rng: random.Random) -> dict[str, Any]:
    values = {
        "prompt_tokens": rng.randrange(6), "turns": rng.randrange(6), "confidence": rng.randrange(11) / 10,
        "endpoint": rng.choice(["/a", "/b", "/c"]), "language": rng.choice(["a", "b", "ab", "c"]),
    }  # fmt: skip
    return {name: value for name, value in values.items() if rng.random() < 0.8}


def test_the_actual_choice_is_always_a_possible_one() -> None:
    rng, certain, asked = random.Random(7), 0, 0
    for _ in range(400):
        pool = [condition(rng) for _ in range(4)]
        documents = [policy(rng, pool) for _ in range(2)]
        try:
            before, after = (compile_policy(each) for each in documents)
        except Exception:  # noqa: S112  # a condition that can never hold is refused
            continue
        for _ in range(25):
            asking = request(rng)
            served, candidate = before.route(asking), after.route(asking)
            facts = facts_of(documents[0], served.rule, asking.get("endpoint", ""), asked=documents)
            assert facts is not None
            found = choices(documents[1], facts)
            assert Choice(candidate.rule, candidate.alias) in found
            asked, certain = asked + 1, certain + (len(found) == 1)
    assert asked > 4_000 and certain > asked / 4
