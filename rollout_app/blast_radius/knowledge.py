"""What follows for a task if only its endpoint and the rule that decided are known. Pure.

The inputs of tasks are not stored. But if rule `heavy` decided, then `heavy` holds and the rules before it do not; so
`prompt_tokens > 8000` implies `prompt_tokens > 4000`. A condition is true, false or unknown (an input is absent);
`possible` returns which of the three are still possible.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from pointsman.conditions.nodes import And, Compare, Has, In, Lit, Node, Not, Op, Or, Ref, Test, Truth
from pointsman.conditions.ranges import Range, flipped, narrowed

TRUE: Final = 1
FALSE: Final = 2
ABSENT: Final = 4
ANY: Final = TRUE | FALSE | ABSENT
Answers = int  # a bit set of the possible answers
_NEGATED: dict[Op, Op] = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_TESTS = {"startsWith": str.startswith, "endsWith": str.endswith, "contains": str.__contains__}


@dataclass(slots=True)
class Facts:
    """Facts about one kind of task.

    inside    numbers: the interval that contains an input, which is present
    outside   intervals that do not contain it, if it is present
    among     texts: the possible values of an input, which is present
    never     values that it does not have, if it is present
    holds, fails   whole conditions that are true; that are not true
    """

    inside: dict[Ref, Range] = field(default_factory=dict)
    outside: dict[Ref, list[Range]] = field(default_factory=dict)
    among: dict[Ref, frozenset[str]] = field(default_factory=dict)
    never: dict[Ref, frozenset[str]] = field(default_factory=dict)
    holds: set[Node] = field(default_factory=set)
    fails: set[Node] = field(default_factory=set)

    def of_endpoint(self, endpoint: str, longest: int = 200) -> None:
        """Learn the reported endpoint. Ignore a long one, which may be truncated, and an empty one."""
        if endpoint and len(endpoint) < longest:
            self.among[_ENDPOINT] = frozenset([endpoint])

    def learn(self, node: Node) -> None:
        """Learn that the condition is true."""
        self.holds.add(node)
        if isinstance(node, And):
            for part in node.parts:
                self.learn(part)
        elif isinstance(node, Not) and isinstance(node.part, Compare):
            self.learn(replace(node.part, op=_NEGATED[node.part.op]))
        elif isinstance(node, Compare) and (found := _interval(node)) is not None:
            ref, interval = found
            self.inside[ref] = self.inside.get(ref, Range()) & interval
        elif (texts := _texts(node)) is not None:
            ref, values = texts
            self.among[ref] = self.among.get(ref, values) & values

    def learn_not(self, node: Node) -> None:
        """Learn that the condition is not true: it is false, or an input is absent."""
        self.fails.add(node)
        if isinstance(node, Or):
            for part in node.parts:
                self.learn_not(part)
        elif isinstance(node, Compare) and (found := _interval(node)) is not None:
            self.outside.setdefault(found[0], []).append(found[1])
        elif (texts := _texts(node)) is not None:
            self.never[texts[0]] = self.never.get(texts[0], frozenset()) | texts[1]


def possible(node: Node, facts: Facts) -> Answers:
    """Return the answers that the condition can give for such a task."""
    if node in facts.holds:
        return TRUE
    found = _possible(node, facts)
    return found & ~TRUE if node in facts.fails else found


def _possible(node: Node, facts: Facts) -> Answers:
    if isinstance(node, Not):
        return _negated(possible(node.part, facts))
    if isinstance(node, And):
        return _all(possible(part, facts) for part in node.parts)
    if isinstance(node, Or):
        return _negated(_all(_negated(possible(part, facts)) for part in node.parts))
    if isinstance(node, Has):
        return TRUE if _is_present(node.ref, facts) else TRUE | FALSE
    if isinstance(node, Compare):
        return _compared(node, facts)
    return _among(node, facts)


def _negated(answers: Answers) -> Answers:
    return (answers & ABSENT) | (FALSE if answers & TRUE else 0) | (TRUE if answers & FALSE else 0)


def _all(parts: Iterable[Answers]) -> Answers:
    """Combine independent parts by Kleene's `&&`. May return more than is really possible, never less."""
    answers = list(parts)
    found = 0
    if all(answer & TRUE for answer in answers):
        found |= TRUE
    if any(answer & FALSE for answer in answers):
        found |= FALSE
    if any(answer & ABSENT for answer in answers) and all(answer & (TRUE | ABSENT) for answer in answers):
        found |= ABSENT
    return found


def _compared(node: Compare, facts: Facts) -> Answers:
    plain = flipped(node)
    if plain is None:
        return ANY
    op, ref, literal = plain
    if literal.kind == "string":
        return _among(node, facts)
    if literal.kind not in ("int", "double"):
        return ANY
    holds = narrowed(op, float(literal.value)) if op != "!=" else None
    if (inside := facts.inside.get(ref)) is not None:
        point = narrowed("==", float(literal.value))
        if holds is None:
            return TRUE if (inside & point).empty else FALSE if point.covers(inside) else TRUE | FALSE
        return TRUE if holds.covers(inside) else FALSE if (inside & holds).empty else TRUE | FALSE
    if holds is not None and any(interval.covers(holds) for interval in facts.outside.get(ref, ())):
        return FALSE | ABSENT
    return ANY


def _among(node: Node, facts: Facts) -> Answers:
    """Return the answers for a text with known possible or impossible values."""
    ref = _ref(node)
    if ref is None or ref.size:
        return ANY
    if (values := facts.among.get(ref)) is not None:
        answers = {_holds(node, value) for value in values}
        if None not in answers:
            return sum({True: TRUE, False: FALSE}[bool(answer)] for answer in answers)
    texts = _texts(node)
    if texts is not None and texts[1] <= facts.never.get(ref, frozenset()):
        return FALSE | ABSENT
    return ANY


def _is_present(ref: Ref, facts: Facts) -> bool:
    return ref in facts.inside or ref in facts.among


def _holds(node: Node, value: str) -> bool | None:
    if isinstance(node, Test):
        return bool(_TESTS[node.method](value, node.text))
    texts = _texts(node)
    if texts is not None:
        return value in texts[1]
    if isinstance(node, Compare) and node.op == "!=" and (plain := flipped(node)) is not None:
        return value != plain[2].value
    return None


def _ref(node: Node) -> Ref | None:
    if isinstance(node, Test):
        return node.ref
    if isinstance(node, In | Truth):
        return node.operand if isinstance(node.operand, Ref) else None
    plain = flipped(node) if isinstance(node, Compare) else None
    return plain[1] if plain else None


def _interval(node: Compare) -> tuple[Ref, Range] | None:
    """Return the interval of the input if a comparison with a number holds; `!=` gives none."""
    plain = flipped(node)
    if plain is None or plain[0] == "!=" or plain[2].kind not in ("int", "double"):
        return None
    return plain[1], narrowed(plain[0], float(plain[2].value))


def _texts(node: Node) -> tuple[Ref, frozenset[str]] | None:
    """Return the values of a text for which the condition holds."""
    if isinstance(node, In) and isinstance(node.operand, Ref) and not node.operand.size:
        items = node.items
        if items and all(_is_text(item) for item in items):
            return node.operand, frozenset(str(item.value) for item in items)
    if isinstance(node, Compare) and (plain := flipped(node)) is not None:
        op, ref, literal = plain
        if op == "==" and _is_text(literal) and not ref.size:
            return ref, frozenset([str(literal.value)])
    return None


def _is_text(literal: Lit) -> bool:
    return literal.kind == "string"


_ENDPOINT = Ref("request.endpoint", 0)
