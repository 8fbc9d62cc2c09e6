"""The connections between the processes and Redis, as used by Celery."""

import pytest
import redis
from django.conf import settings
from kombu.exceptions import OperationalError

from controlplane.celery import app
from tests.support.plane import until
from tests.support.proxy import Proxy

GIVEN_UP = (OperationalError, redis.TimeoutError)


@pytest.fixture
def broker(transactional_db: None) -> int:
    """Return the port of Redis, which is missing in test runs on SQLite."""
    return int(settings.REDIS_URL.rpartition(":")[2].partition("/")[0])


def test_publishing_on_a_half_open_connection_fails_instead_of_hanging(broker: int) -> None:
    """Beat used to wait forever for the reply, so the engine stopped until somebody intervened."""
    with Proxy(broker) as proxy, app.connection_for_write(f"redis://127.0.0.1:{proxy.port}/9") as connection:
        connection.transport_options = settings.CELERY_BROKER_TRANSPORT_OPTIONS
        producer = app.amqp.Producer(connection)
        producer.publish("before", routing_key="faults", expiration=1)
        assert proxy.hold() > 0
        with pytest.raises(GIVEN_UP):
            producer.publish("on it", routing_key="faults", expiration=1)
        until(lambda: _publishes(producer))


def _publishes(producer: object) -> bool:
    try:
        producer.publish("after", routing_key="faults", expiration=1, retry=False)  # type: ignore[attr-defined]
    except GIVEN_UP:
        return False
    return True
