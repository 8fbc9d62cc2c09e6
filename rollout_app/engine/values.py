"""`value`, the decorator of the plain values that every evaluation makes by the hundred.

For the type checker it is `dataclass`, and `frozen=True` forbids to change a value. At run time nothing is frozen: a
frozen dataclass sets each field through `object.__setattr__`, which makes it four times as slow to create. That took
a sixth of an evaluation (`benchmarks/sweep.py`).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

__all__ = ["value"]

if TYPE_CHECKING:
    from dataclasses import dataclass as value
else:

    def value(*, frozen: bool, slots: bool):
        """Return a decorator that makes a dataclass: equal by its fields, and with a hash if it is frozen."""
        return dataclass(slots=slots, unsafe_hash=frozen)
