"""How long a rotated key or secret stays valid along with its successor."""

from datetime import timedelta

from controlplane.core.errors import InvalidInput

MAX_OVERLAP = timedelta(days=7)


def refuse_overlap(overlap: timedelta) -> None:
    """Raise `InvalidInput` unless the overlap is between 0 and `MAX_OVERLAP`."""
    if not timedelta(0) <= overlap <= MAX_OVERLAP:
        raise InvalidInput(f"The overlap of a rotation must be between 0 and {MAX_OVERLAP.days} days.")
