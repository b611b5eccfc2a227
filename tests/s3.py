"""A real S3 API over HTTP, served by moto from a thread of the tests."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer

from app.storage import SCHEMES

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
BUCKET = "ganvil"


@contextmanager
def s3_server() -> Iterator[str]:
    """The endpoint of a server that has the bucket BUCKET and asks for CREDENTIALS in the environment of its clients."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            config=Config(proxies={}),
        ).create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        server.stop()


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """Where one S3 server answers for all tests; each takes a prefix of its own."""
    with s3_server() as url:
        yield url


@pytest.fixture(params=sorted(SCHEMES))
def any_storage_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty storage of each scheme."""
    if request.param == "file":
        return (tmp_path / "objects").as_uri()
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    folder = re.sub(r"\W+", "-", request.node.nodeid)
    return f"s3://{BUCKET}/{folder}?endpoint={request.getfixturevalue('endpoint')}&region=us-east-1"
