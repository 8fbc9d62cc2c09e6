"""Tables of the platform itself."""

from django.db import models


class Heartbeat(models.Model):
    """The time a periodic job last finished, by the database's clock; written at most every few seconds."""

    job = models.CharField(max_length=120, primary_key=True)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.job} {self.at:%H:%M:%S}"
