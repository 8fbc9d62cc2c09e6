"""The bucket that snapshots are published to: any S3-compatible one, through the optional django-storages.

django-storages finds the credentials and makes the connection. The calls use boto3 directly, because `Storage.save`
does not support conditional writes. Importing this module needs neither package: they are loaded at the first
connection.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.conf import settings

# Per request, in seconds. With one retry, a `head` and a `put` together stay below `publish.CLAIM`.
_CONNECT_S, _READ_S = 3, 10
# S3's error codes for a failed write condition. The second means a concurrent write, the third that the object seen
# by `head` is gone.
_OVERTAKEN = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey")


class BucketError(Exception):
    """A failed bucket operation. The message gives the reason in one line."""

    status = 0  # HTTP status of the response; 0: there was none
    code = ""  # S3's error code


class Overtaken(BucketError):
    """Somebody else wrote the object after `head`; nothing was written."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as found by `head`. `tag` is the store's own and changes with every write."""

    tag: str
    metadata: Mapping[str, str]


@cache
def connect(name: str, endpoint: str, region: str) -> "Bucket":
    """Return the bucket of this name. Cached, because creating a client takes a tenth of a second."""
    from botocore.config import Config
    from storages.backends.s3 import S3Storage

    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"mode": "standard", "total_max_attempts": 2},
        # Self-hosted stores rarely have a host name for each bucket, so put the name into the path.
        s3={"addressing_style": "path" if endpoint else "auto"},
        # Newer AWS checksums are not supported by every other store.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return Bucket(
        S3Storage(
            bucket_name=name, endpoint_url=endpoint or None, region_name=region or None, client_config=config
        )
    )


class Bucket:
    """Reads and writes one object at a time. Thread-safe: each thread has its own connection."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage

    def head(self, key: str) -> StoredObject | None:
        """Return the current object, or None. Raises `BucketError`."""
        try:
            found = self._ask("head_object", key)
        except BucketError as error:
            if error.status == 404:
                return None
            raise
        return StoredObject(found["ETag"], found["Metadata"])

    def put(self, key: str, body: bytes, seen: StoredObject | None, **parameters: Any) -> str:
        """Replace exactly the object in `seen` (None: no object) and return the new tag.

        If the object changed after `head`, the store refuses the write and this raises `Overtaken`, so a delayed
        process does no harm. A store that does not support conditions answers 501 and gets an unconditional write.
        """
        condition = {"IfMatch": seen.tag} if seen else {"IfNoneMatch": "*"}
        try:
            answer = self._ask("put_object", key, Body=body, **parameters, **condition)
        except BucketError as error:
            if error.code in _OVERTAKEN:
                raise Overtaken(str(error)) from error
            if error.status != 501:
                raise
            answer = self._ask("put_object", key, Body=body, **parameters)
        return str(answer["ETag"])

    def _ask(self, call: str, key: str, **parameters: Any) -> Mapping[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            client = self._storage.connection.meta.client
            asked: Callable[..., Mapping[str, Any]] = getattr(client, call)
            return asked(Bucket=self._storage.bucket_name, Key=key, **parameters)
        except ClientError as error:
            failed = BucketError(_line(error))
            failed.status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            failed.code = error.response["Error"]["Code"]
            raise failed from error
        except BotoCoreError as error:
            raise BucketError(_line(error)) from error


def configured() -> Bucket:
    """Return the bucket in the settings."""
    return connect(settings.SNAPSHOT_BUCKET, settings.AWS_S3_ENDPOINT_URL, settings.AWS_S3_REGION_NAME)


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]
