"""The bucket that snapshots are published to: any that speaks S3, by django-storages, which is optional.

django-storages finds the keys and makes the connection; the calls are boto3's, because `Storage.save` knows no
condition. Importing this module needs neither: the packages are loaded when a bucket is first connected to.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.conf import settings

# Of one request, in seconds; with its second try a `head` and a `put` stay below `publish.CLAIM`.
_CONNECT_S, _READ_S = 3, 10
# Codes of S3's answer to a write whose condition does not hold: (the second) another one is under way, (the
# third) the object that `head` found is gone.
_OVERTAKEN = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey")


class BucketError(Exception):
    """The bucket did not do it; the message says why, in one line."""

    status = 0  # of the answer, 0: there was none
    code = ""  # S3's


class Overtaken(BucketError):
    """Somebody else wrote the object since `head` found it; nothing was written."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as `head` found it. `tag` is the store's own; every write changes it."""

    tag: str
    metadata: Mapping[str, str]


@cache
def connect(name: str, endpoint: str, region: str) -> "Bucket":
    """The bucket of this name; kept, because making a client takes a tenth of a second."""
    from botocore.config import Config
    from storages.backends.s3 import S3Storage

    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"mode": "standard", "total_max_attempts": 2},
        # By name in the path: a store of one's own seldom has a host name for each bucket.
        s3={"addressing_style": "path" if endpoint else "auto"},
        # What AWS has added since is not understood by every other store.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return Bucket(
        S3Storage(
            bucket_name=name, endpoint_url=endpoint or None, region_name=region or None, client_config=config
        )
    )


class Bucket:
    """Reads and writes one object at a time. Safe between threads: each has its own connection."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage

    def head(self, key: str) -> StoredObject | None:
        """What lies there now, None: nothing. Raises `BucketError`."""
        try:
            found = self._ask("head_object", key)
        except BucketError as error:
            if error.status == 404:
                return None
            raise
        return StoredObject(found["ETag"], found["Metadata"])

    def put(self, key: str, body: bytes, seen: StoredObject | None, **parameters: Any) -> str:
        """Write over exactly what was `seen` (None: nothing) and return the new tag.

        A process that was held up between `head` and `put` changes nothing: the store refuses it, and
        that is `Overtaken`. A store that knows no conditions answers 501 and is asked without.
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
    """The bucket of the settings."""
    return connect(settings.SNAPSHOT_BUCKET, settings.AWS_S3_ENDPOINT_URL, settings.AWS_S3_REGION_NAME)


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]
