"""Sticky units: users who come and go, tenants with individual failure rates, one heavy unit."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchmarks.simulated.scenario import Scenario, Units

POOL, REQUESTS, CORRELATION = 1_200, 10, 0.3
CELLS = 1_024
ZIPF = 0.8
OTHERS = 20_000  # units of the traffic besides one heavy unit

Drawn = tuple[NDArray[np.float64], NDArray[np.int_], NDArray[np.float64]]


class Population:
    """`draw` returns for each task the place of its unit (0 … 1, the candidate's are below the share), cell and
    failure risk."""

    def __init__(self, scenario: Scenario, rng: Generator) -> None:
        self.rng, self.units = rng, scenario.units or Units()
        count = POOL if self.units.users else self.units.tenants or OTHERS + 1
        self.place, self.cell = rng.random(count), rng.integers(0, CELLS, count)
        self.left = rng.integers(1, REQUESTS + 1, count)
        self.trouble = rng.random(count)
        self.weight = self._weights(count)
        self.offset = np.zeros(count)
        if self.units.tenants:
            self.offset = rng.normal(0, self.units.spread, count)

    def _weights(self, count: int) -> NDArray[np.float64]:
        weights = np.ones(count)
        if self.units.tenants:
            weights = 1 / np.arange(1, count + 1) ** ZIPF
        shares: NDArray[np.float64] = weights / weights.sum()
        return shares

    def draw(self, evaluation: int, n: int, p: float) -> Drawn:
        if self.units.users:
            who, chance = self._users(n, p)
        elif self.units.tenants:
            who = self.rng.choice(len(self.weight), n, p=self.weight)
            chance = np.clip(p + self.offset[who], 0.002, 0.95)
        else:
            who = self.rng.integers(1, len(self.weight), n)
            if evaluation >= self.units.arrives:
                who[self.rng.random(n) < self.units.heavy] = 0
            chance = np.where(who == 0, self.units.heavy_rate, p)
        drawn = self.place[who], self.cell[who], chance
        if self.units.users:
            self._leave(who)
        return drawn

    def _users(self, n: int, p: float) -> tuple[NDArray[np.int_], NDArray[np.float64]]:
        """Draw users, who fail always (with probability p) or at the general rate; the mix gives the correlation."""
        who = self.rng.integers(0, POOL, n)
        stuck = self.rng.random(n) < CORRELATION**0.5
        return who, np.where(stuck, (self.trouble[who] < p).astype(float), p)

    def _leave(self, who: NDArray[np.int_]) -> None:
        np.subtract.at(self.left, who, 1)
        gone = np.flatnonzero(self.left <= 0)
        self.left[gone] = REQUESTS
        self.place[gone], self.trouble[gone] = self.rng.random(len(gone)), self.rng.random(len(gone))
        self.cell[gone] = self.rng.integers(0, CELLS, len(gone))

    def before(self, n: int, p: float) -> tuple[dict[int, tuple[int, int, int, int]], int]:
        """Return tasks and failures per cell in two halves of the time before the rollout, and all failures."""
        halves, failures = np.zeros((CELLS, 4), int), 0
        for half in (0, 2):
            for _ in range(max(1, n // 400)):
                _, cell, chance = self.draw(-1 if self.units.arrives else 0, 200, p)
                failed = self.rng.random(len(cell)) < chance
                halves[:, half] += np.bincount(cell, minlength=CELLS)
                halves[:, half + 1] += np.bincount(cell[failed], minlength=CELLS)
                failures += int(failed.sum())
        used = np.flatnonzero(halves[:, 0] + halves[:, 2])
        return {int(i): tuple(map(int, halves[i])) for i in used}, failures  # type: ignore[misc]
