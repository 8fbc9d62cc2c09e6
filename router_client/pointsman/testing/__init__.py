"""A fake control plane that speaks the protocol on localhost, for tests of your own router."""

from pointsman.testing.control_plane import FakeControlPlane
from pointsman.testing.server import Reply, Request

__all__ = ["FakeControlPlane", "Reply", "Request"]
