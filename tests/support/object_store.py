"""A bucket with the S3 protocol: moto's server in this process, on its own port, which can be stopped and restarted."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.support.builders import next_name
from tests.support.services import free_port

REGION = "us-east-1"


class S3:
    """`url` is its address. Objects survive while it is stopped."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._server: Any = None

    def start(self) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
        self._server = None

    def bucket(self) -> str:
        """A new bucket that is publicly readable without a key, as for a CDN."""
        name = next_name("snapshots")
        anybody = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:GetObject",
            "Resource": f"arn:aws:s3:::{name}/*",
        }
        policy = {"Version": "2012-10-17", "Statement": [anybody]}
        self.client().create_bucket(Bucket=name)
        self.client().put_bucket_policy(Bucket=name, Policy=json.dumps(policy))
        return name

    def client(self) -> Any:
        import boto3

        return boto3.client("s3", endpoint_url=self.url, region_name=REGION)

    def get(self, address: str, **headers: str) -> httpx.Response:
        """Read an object like a router: over plain HTTP, without a key."""
        return httpx.get(f"{self.url}/{address}", headers=headers, timeout=10)


@contextmanager
def running() -> Iterator[S3]:
    # Keys where boto3 looks for them; moto accepts any.
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # not a line for each request
    s3 = S3()
    s3.start()
    try:
        yield s3
    finally:
        s3.stop()
