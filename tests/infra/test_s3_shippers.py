"""infra/logs/fluent-bit.yaml and vector.yaml, run by their programs where they are installed.

No registry that continuous integration reaches has these programs, so that `make soak` runs this.
"""

import gzip
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from moto.server import ThreadedMotoServer

from tests.infra.shipping import OTHER, ContainerLog, Shipper, bills, discrepancies, until
from tests.moto_aws import REGION, aws_client, environment

FOLDER = Path(__file__).parents[2] / "infra/logs"
BUCKET = "usage-lines"
REFUSAL = "NoSuchBucket"  # S3's word, which a program repeats, maybe twice
MANY = 20


def fluent_bit(configuration: dict[str, Any], endpoint: str) -> None:
    """Send to a server of the test, and often."""
    (s3,) = configuration["pipeline"]["outputs"]
    s3 |= {"endpoint": endpoint, "upload_timeout": "6s"}
    configuration["service"]["scheduler.cap"] = 6


def vector(configuration: dict[str, Any], endpoint: str) -> None:
    """The same."""
    s3 = configuration["sinks"]["bills"]
    s3 |= {"endpoint": endpoint, "batch": {"timeout_secs": 1}}


PROGRAMS = {"fluent-bit": fluent_bit, "vector": vector}
pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]


class Bucket:
    """S3 on loopback, which can be gone, and have no such bucket."""

    def __init__(self) -> None:
        self._server = self._serve(0)
        self.port: int = self._server.get_host_and_port()[1]
        self._client = aws_client("s3", self.port)

    def create(self) -> None:
        """From now on it takes objects."""
        location = {"LocationConstraint": REGION}
        self._client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=location)

    def close(self) -> None:
        """Listen no more."""
        self._server.stop()

    def reopen(self) -> None:
        """Listen again, with what there was."""
        self._server = self._serve(self.port)

    def lines(self) -> list[bytes]:
        """What it has been given."""
        listed = self._client.list_objects_v2(Bucket=BUCKET, Prefix="usage/day=")
        return [
            line
            for each in listed.get("Contents", ())
            for line in gzip.decompress(
                self._client.get_object(Bucket=BUCKET, Key=each["Key"])["Body"].read()
            ).splitlines(keepends=True)
        ]

    @staticmethod
    def _serve(port: int) -> ThreadedMotoServer:
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        server.start()
        return server


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    """Where lines go."""
    opened = Bucket()
    yield opened
    opened.close()


@pytest.fixture(params=PROGRAMS)
def shipper(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> Iterator[Shipper]:
    """A program with its configuration as it is, but for folders and S3's address."""
    program = shutil.which(request.param)
    if program is None:
        pytest.skip(f"{request.param} is not installed")
    text = (FOLDER / f"{request.param}.yaml").read_text()
    for folder, other in (("/var/log/pods", "pods"), ("/var/lib/", "lib/")):
        text = text.replace(folder, f"{tmp_path}/{other}")
    configuration = yaml.safe_load(text)
    PROGRAMS[request.param](configuration, f"http://127.0.0.1:{bucket.port}")
    path = tmp_path / "shipper.yaml"
    path.write_text(yaml.safe_dump(configuration, sort_keys=False))
    (tmp_path / "lib" / request.param).mkdir(parents=True)
    variables = environment(bucket.port, tmp_path) | {"USAGE_BUCKET": BUCKET, "AWS_REGION": REGION}
    made = Shipper([program, "--config", str(path)], tmp_path, variables)
    yield made
    made.kill()


def test_every_bill_arrives(tmp_path: Path, bucket: Bucket, shipper: Shipper) -> None:
    """Over rotations, kills, a bucket that is missing for long and an S3 that is gone."""
    lines = bills(tmp_path / "journal", 399)
    parts = iter([lines[start : start + 50] for start in range(0, len(lines), 50)])
    container = ContainerLog(tmp_path / "pods")
    container.write([OTHER, *next(parts)])  # before the shipper's first start
    shipper.start()
    container.write_error('Traceback: "event":"usage.final" of nobody')
    container.write(next(parts))
    until(lambda: REFUSAL in shipper.output)
    shipper.kill()  # with lines read that S3 does not have
    container.write(next(parts))
    container.rotate()
    container.write(next(parts))
    shipper.start()
    until(lambda: shipper.output.count(REFUSAL) > MANY, 120)  # more than some would try
    bucket.create()
    until(lambda: set(container.written) - {OTHER} <= set(bucket.lines()), 90)
    bucket.close()
    num_said = len(shipper.output)
    container.write(next(parts))
    container.rotate()
    container.write(next(parts))
    until(lambda: "onnect" in shipper.output[num_said:], 60)
    shipper.kill()
    container.write(next(parts))
    shipper.start()
    bucket.reopen()
    container.write(next(parts))
    until(lambda: set(lines) <= set(bucket.lines()), 90)

    assert set(bucket.lines()) == set(lines)
    assert discrepancies(tmp_path, container.written, bucket.lines()) == []
