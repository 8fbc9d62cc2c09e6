"""Periodic jobs of the audit log. See `controlplane.core.periodic`."""

from controlplane.audit import checkpoints


def checkpoint() -> None:
    checkpoints.make()
