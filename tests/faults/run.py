"""One run: storms of faults into one installation, until it goes on after each."""

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.faults import kinds
from tests.faults.installation import Installation
from tests.faults.load import Load
from tests.faults.results import RECOVERED_WITHIN_S, Run

GIVEN_UP_AFTER_S = 3 * RECOVERED_WITHIN_S


def storms(possible: list[kinds.Kind], chance: random.Random) -> Iterator[list[kinds.Kind]]:
    """Faults that come at the same time, one of each part at most; each kind once, then again in another order."""
    while True:
        decks: dict[str, list[kinds.Kind]] = defaultdict(list)
        for kind in chance.sample(possible, len(possible)):
            decks[kind.part].append(kind)
        while any(decks.values()):
            yield [deck.pop() for deck in decks.values() if deck]


def inject(
    installation: Installation, load: Load, run: Run, *, number: int, seconds: float, whole: bool
) -> None:
    """Storm after storm, until there were so many faults (0: each kind once) or the seconds are over."""
    chance = random.Random(run.seed)
    ends = time.monotonic() + seconds
    possible = kinds.possible(installation, whole=whole)
    _wait(lambda: load.goes_on_since(0))
    for storm in storms(possible, chance):
        with ThreadPoolExecutor(len(storm)) as together:
            for injected in [
                together.submit(kind.inject, installation, load, random.Random(chance.random()))
                for kind in storm
            ]:
                injected.result()
        began = time.monotonic()
        seen = installation.administrator.engine_seen_at()
        if not _wait(partial(_goes_on, installation, load, began, seen)):
            run.ended = f"nothing went on again after {', '.join(kind.name for kind in storm)}"
        took = round(time.monotonic() - began, 1)
        for kind in storm:
            run.recoveries.setdefault(kind.name, []).append(took)
        if run.ended or run.faults >= (number or len(possible)) or time.monotonic() > ends:
            return


def _wait(condition: Callable[[], bool]) -> bool:
    """Whether it came about. Asks seldom: what recovers needs the processor."""
    ends = time.monotonic() + GIVEN_UP_AFTER_S
    while not (came := condition()) and time.monotonic() < ends:
        time.sleep(0.2)
    return came


def _goes_on(installation: Installation, load: Load, began: float, engine_seen_at: str) -> bool:
    """All processes, routers, reporters and people; and the engine, which swept since."""
    return (
        installation.ready()
        and load.goes_on_since(began)
        and installation.administrator.engine_seen_at() > engine_seen_at
    )
