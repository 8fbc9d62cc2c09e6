"""`value` and `replace`, for the plain values that an evaluation makes by the hundred.

For the type checker they are `dataclass` and `replace` of the standard library, and `frozen=True` forbids changing a
value. At run time nothing is frozen: a frozen dataclass sets each field through `object.__setattr__`, which makes it
four times as slow to create. Both together took a fifth of an evaluation (`benchmarks/sweep.py`).
"""

from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING

__all__ = ["replace", "value"]

if TYPE_CHECKING:
    from dataclasses import dataclass as value
    from dataclasses import replace
else:

    def value(*, frozen: bool, slots: bool):
        """Return a decorator that makes a dataclass: equal by its fields, and with a hash if it is frozen."""

        def made(cls):
            cls = dataclass(slots=slots, unsafe_hash=frozen)(cls)
            cls.fields_in_order = staticmethod(attrgetter(*(field.name for field in fields(cls))))
            return cls

        return made

    def replace(one, /, **changes):
        """Return a copy of a `value` with these fields changed."""
        copy = type(one)(*one.fields_in_order(one))
        for name, changed in changes.items():
            setattr(copy, name, changed)
        return copy
