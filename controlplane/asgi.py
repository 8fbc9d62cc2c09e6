"""The ASGI application: the gateway in front, Django behind it. `manage.py serve` runs it with granian."""

from controlplane.server.lifespan import Lifespan, gateway
from controlplane.server.messages import Application

application = Application(gateway.answer, Lifespan)
