"""Random conditions on random inputs, compared with Google's CEL: the same result wherever CEL has one."""

import random
from typing import Any

import pytest
from cel_expr_python import cel

from pointsman.conditions import SECOND_STAGE, UNKNOWN, Condition, Input, compile_condition
from pointsman.errors import PolicyInvalid

INPUTS = {
    **SECOND_STAGE,
    **{
        f"request.attributes.{entry.name}": entry
        for entry in (
            Input("vip", "bool"),
            Input("value", "double"),
            Input("region", "string"),
            Input("seats", "int"),
        )
    },
}
INPUTS = {
    name: Input(name, entry.type) for name, entry in INPUTS.items()
}  # without ranges nothing is refused
WORDS = ["", "a", "ab", "gold", "critical", "é", "ab😀", 'q"uote', "\\", "\n"]
OPERATORS = ["==", "!=", "<", "<=", ">", ">="]
# Between 2^53 and 2^63 the C++ library rounds an int before it compares it with a double. We compare exactly, as
# CEL's definition requires ("as if on a continuous number line"). Such pairs are not drawn.
CASES = 4_000
DRAWS = 6


def quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def number(random_: random.Random, kind: str) -> str:
    whole = random_.choice([0, 1, 2, 5, -3, 2**53, -(2**63), 2**63 - 1, 8000])
    return (
        str(whole)
        if kind == "int"
        else random_.choice(["0.0", "0.5", "1.0", "-2.5", "1e300", "9007199254740993.0", ".25"])
    )


def leaf(random_: random.Random) -> str:
    name = random_.choice(list(INPUTS))
    kind = INPUTS[name].type
    operator = random_.choice(OPERATORS)
    if random_.random() < 0.12:
        return f"has({name})"
    if kind == "bool":
        return random_.choice([name, f"{name} == true", f"{name} != false", f"{name} in [true]"])
    if kind == "string":
        words = [quoted(random_.choice(WORDS)) for _ in range(random_.randint(1, 4))]
        method = random_.choice(["startsWith", "endsWith", "contains"])
        return random_.choice(
            [
                f"{name} {operator} {words[0]}",
                f"{words[0]} {operator} {name}",
                f"{name} in [{', '.join(words)}]",
                f"{name}.{method}({words[0]})",
                f"size({name}) {operator} {random_.randint(0, 4)}",
            ]
        )
    literals = [number(random_, random_.choice(["int", "double"])) for _ in range(3)]
    others = [other for other in INPUTS if INPUTS[other].type in ("int", "double")]
    return random_.choice(
        [
            f"{name} {operator} {literals[0]}",
            f"{literals[0]} {operator} {name}",
            f"{name} {operator} {random_.choice(others)}",
            f"{name} in [{', '.join(literals)}]",
        ]
    )


def expression(random_: random.Random, depth: int) -> str:
    if depth == 0 or random_.random() < 0.3:
        return leaf(random_)
    if random_.random() < 0.2:
        return f"!({expression(random_, depth - 1)})"
    parts = [expression(random_, depth - 1) for _ in range(random_.randint(2, 3))]
    return f"({random_.choice([' && ', ' || ']).join(parts)})"


def possible(random_: random.Random) -> Condition:
    """Draw a condition, again if ours is refused because it can never hold."""
    while True:
        try:
            return compile_condition(expression(random_, 3), INPUTS)
        except PolicyInvalid as invalid:
            assert {problem.code for problem in invalid.problems} <= {"never_holds", "always_holds"}


def value(random_: random.Random, kind: str) -> Any:
    if kind == "bool":
        return random_.random() < 0.5
    if kind == "string":
        return random_.choice(WORDS)
    if kind == "int":
        return random_.choice([0, 1, 2, 5, -3, 2**53, 2**63 - 1, 7999, 8000])
    return random_.choice([0.0, -0.0, 0.5, 1.0, -2.5, 1e300, float("nan"), float("inf"), 2.0**53, 0.25])


def draw(random_: random.Random) -> dict[str, dict[str, Any]]:
    """Inputs for CEL; about a third are absent."""
    data: dict[str, dict[str, Any]] = {"request": {"attributes": {}}, "history": {}, "response": {}}
    for name, entry in INPUTS.items():
        if random_.random() < 0.33:
            continue
        root, _, key = name.rpartition(".")
        owner = data["request"]["attributes"] if root == "request.attributes" else data[root]
        owner[key] = value(random_, entry.type)
    return data


def ours(condition: Condition, data: dict[str, dict[str, Any]]) -> bool | None:
    return condition(data["request"], data["response"], data["history"])


@pytest.fixture(scope="module")
def environment() -> Any:
    fields = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
    return cel.NewEnv(variables={"request": fields, "history": fields, "response": fields})


def test_it_agrees_with_cel_wherever_cel_answers(environment: Any) -> None:
    random_ = random.Random(20_261_124)
    answered = unknown = 0
    for _ in range(CASES):
        condition = possible(random_)
        text = condition.text
        oracle = environment.compile(text)
        for _ in range(DRAWS):
            data = draw(random_)
            theirs = oracle.eval(data=data).value()
            if isinstance(theirs, bool):
                answered += 1
                assert ours(condition, data) is theirs, (text, data)
            else:
                # CEL fails, because its result depends on an absent input; so does ours.
                unknown += 1
                assert ours(condition, data) is UNKNOWN, (text, data, theirs)
    assert answered + unknown == CASES * DRAWS >= 20_000
    assert answered > 10_000
    assert unknown > 1_000
