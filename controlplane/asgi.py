"""The application that an ASGI server runs: the gateway in front, Django behind it. `manage.py serve` runs granian."""

from controlplane.server.lifespan import Lifespan, gateway
from controlplane.server.messages import Application

application = Application(gateway.answer, Lifespan)
