"""One run: inject waves of faults into one installation, and wait after each until everything works again."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from tests.faults import kinds
from tests.faults.installation import Installation
from tests.faults.kinds.place import Place, places
from tests.faults.load import Load
from tests.faults.results import RECOVERED_WITHIN_S, Run
from tests.faults.waves import Where, waves

GIVE_UP_AFTER_S = 3 * RECOVERED_WITHIN_S
WAVE_STARTS_WITHIN_S = 1.0  # all faults of a wave start within this time
AHEAD_S = 1.0
CHECK_EVERY_S = 0.2  # infrequent, because recovery needs the processor


@dataclass
class Strike:
    """One fault. `ended` is the time of its end, monotonic and as Unix time."""

    kind: kinds.Kind
    place: Place
    wait_s: float
    ended: tuple[float, float] | None = None
    recovered_s: float | None = None
    last: str = ""  # the part that recovered last

    def inject(self) -> None:
        time.sleep(self.wait_s)
        self.kind.inject(self.place)
        self.ended = (time.monotonic(), time.time())


def inject(
    installation: Installation, load: Load, run: Run, *, number: int, seconds: float, whole: bool
) -> None:
    """Inject waves until the number of faults is reached (0: each kind once) or the time is over."""
    chance = random.Random(run.seed)
    possible = kinds.possible(installation, whole=whole)
    _wait_for_the_start(load)
    began = time.monotonic()
    for wave in waves(possible, places(installation), chance, once=not number):
        strikes = [_strike(installation, load, kind, where, chance) for kind, where in wave]
        if not _inject_wave(installation, load, strikes):
            run.ended = f"no recovery after {', '.join(strike.kind.name for strike in strikes)}"
        _note(run, strikes)
        run.seconds = round(time.monotonic() - began, 1)
        _print_wave(run, strikes)
        if run.ended or (number and run.faults >= number) or run.seconds > seconds:
            return


def _strike(
    installation: Installation, load: Load, kind: kinds.Kind, where: Where, chance: random.Random
) -> Strike:
    place = Place(installation, load, random.Random(chance.random()), *where)
    return Strike(kind, place, chance.uniform(0, WAVE_STARTS_WITHIN_S))


def _wait_for_the_start(load: Load) -> None:
    ends = time.monotonic() + GIVE_UP_AFTER_S
    while (missing := [*load.missing_since(0)]) and time.monotonic() < ends:
        time.sleep(CHECK_EVERY_S)
    assert not missing, missing


def _inject_wave(installation: Installation, load: Load, strikes: list[Strike]) -> bool:
    """Inject the faults and wait until everything has recovered from each. Return False if that takes too long."""
    with ThreadPoolExecutor(len(strikes)) as together:
        injected = [together.submit(strike.inject) for strike in strikes]
        while any(strike.recovered_s is None for strike in strikes):
            _raise_errors(injected)
            _note_recoveries(installation, load, strikes)
            ended = [strike.ended[0] for strike in strikes if strike.ended]
            if ended and time.monotonic() > max(ended) + GIVE_UP_AFTER_S:
                return False
            time.sleep(CHECK_EVERY_S)
    return True


def _raise_errors(injected: list[Future[None]]) -> None:
    for future in injected:
        if future.done():
            future.result()


def _note_recoveries(installation: Installation, load: Load, strikes: list[Strike]) -> None:
    """Store the recovery time of each fault from which everything has recovered."""
    waiting = [strike for strike in strikes if strike.ended and strike.recovered_s is None]
    if not waiting:
        return
    here = [*installation.missing()]
    engine_seen_at = installation.administrator.engine_seen_at()
    if engine_seen_at > time.time() + AHEAD_S:
        engine_seen_at = 0.0  # a process with a wrong clock wrote it
    for strike in waiting:
        assert strike.ended is not None
        ended, ended_at = strike.ended
        missing = here + [*_missing_since(load, ended, engine_seen_at - ended_at)]
        if missing:
            strike.last = missing[0]
        else:
            strike.recovered_s = round(time.monotonic() - ended, 1)


def _missing_since(load: Load, ended: float, engine_seen_after_s: float) -> Iterator[str]:
    yield from load.missing_since(ended)
    if engine_seen_after_s <= 0:
        yield "a sweep of the engine"


def _note(run: Run, strikes: list[Strike]) -> None:
    for strike in strikes:
        took = strike.recovered_s if strike.recovered_s is not None else GIVE_UP_AFTER_S
        run.recoveries.setdefault(strike.kind.name, []).append(took)
    last: Counter[str] = Counter(run.last)
    last.update(strike.last for strike in strikes)
    run.last = dict(last)


def _print_wave(run: Run, strikes: list[Strike]) -> None:
    """Print a line for each wave, so that a long run can be watched."""
    each = ", ".join(f"{s.kind.name}@{s.place.number} {s.recovered_s} ({s.last})" for s in strikes)
    rate = run.faults / max(run.seconds, 1.0) * 60
    print(f"{run.seconds:7.1f} s, {run.faults:4d} faults, {rate:4.1f} per minute: {each}", flush=True)
