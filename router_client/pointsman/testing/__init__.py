"""For tests of your own router: a control plane that speaks the protocol on this machine."""

from pointsman.testing.control_plane import FakeControlPlane
from pointsman.testing.server import Reply, Request

__all__ = ["FakeControlPlane", "Reply", "Request"]
