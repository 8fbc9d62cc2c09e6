"""Draw the faults that are injected together: at several places of an installation, one fault per place."""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence

from tests.faults.kinds import Kind
from tests.faults.kinds.place import EVERYTHING

Where = tuple[str, int]  # part, number
# Places that are not used together with "everything".
BESIDE_EVERYTHING = ("clients", "Redis", "database")
LEAST = 7  # faults per wave
EVERYTHING_EVERY = 6  # every sixth wave includes "everything"


class Decks:
    """Draws the kinds of each part in random order. When all have been drawn, it starts again in a new order."""

    def __init__(self, kinds: Sequence[Kind], chance: random.Random) -> None:
        self._chance = chance
        self._kinds: dict[str, list[Kind]] = defaultdict(list)
        for kind in kinds:
            self._kinds[kind.part].append(kind)
        self._left: dict[str, list[Kind]] = defaultdict(list)
        self.never = set(kinds)  # not drawn yet

    def weight(self, part: str, places: int) -> float:
        """Return how often to use a place of this part, so that all kinds are equally frequent."""
        return len(self._kinds[part]) / places

    def draw(self, part: str) -> Kind:
        left = self._left[part]
        if not left:
            left += self._chance.sample(self._kinds[part], len(self._kinds[part]))
        kind = left.pop()
        self.never.discard(kind)
        return kind


def waves(
    kinds: Sequence[Kind], places: Sequence[Where], chance: random.Random, *, once: bool
) -> Iterator[list[tuple[Kind, Where]]]:
    """Yield waves forever; with `once`, use as many places as possible until each kind has been drawn."""
    decks = Decks(kinds, chance)
    parts = [part for part, _ in places]
    weights = {where: decks.weight(where[0], parts.count(where[0])) for where in places}
    number = 0
    while not once or decks.never:
        number += 1
        wanted = {kind.part for kind in (decks.never if once else kinds)}
        struck = [where for where in places if where[0] in wanted]
        size = len(struck) if once else chance.randint(min(LEAST, len(struck)), len(struck))
        # Take the smallest draws, so that a place is used in proportion to its weight (Efraimidis, Spirakis).
        wave = sorted(struck, key=lambda where: chance.expovariate(weights[where]))[:size]
        if EVERYTHING in wanted and (number % EVERYTHING_EVERY == 0 or not wave):
            wave = [(EVERYTHING, 0), *(where for where in wave if where[0] in BESIDE_EVERYTHING)]
        yield [(decks.draw(where[0]), where) for where in wave]
