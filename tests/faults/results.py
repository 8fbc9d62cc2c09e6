"""The results of one run, as they are stored. Needs no settings, because the report is made without them."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RECOVERED_WITHIN_S = 60.0


@dataclass
class Run:
    """`recoveries`: seconds from the end of each fault until everything worked again, by kind, in order.

    `last`: how often each part was the last to recover.
    """

    database: str
    seed: int
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    tasks: int = 0  # recorded by the routers
    changes: int = 0  # requested
    ended: str = ""  # why the run ended early
    seconds: float = 0.0  # from the first fault to the last recovery
    last: dict[str, int] = field(default_factory=dict)

    @property
    def faults(self) -> int:
        return sum(map(len, self.recoveries.values()))

    def late(self) -> dict[str, float]:
        """Return the kinds whose recovery took longer than allowed, with their worst time."""
        worst = {name: max(seconds) for name, seconds in self.recoveries.items()}
        return {name: seconds for name, seconds in worst.items() if seconds > RECOVERED_WITHIN_S}

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self)) + "\n")

    @staticmethod
    def read(line: str) -> "Run":
        fields: dict[str, Any] = json.loads(line)
        return Run(**fields)
