"""Models from S3: obstore against moto's server, with everything going wrong in between."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from uuid import uuid4

import obstore
import pytest

import provider_aws
from provider_aws import s3
from provider_core import hookspecs
from provider_core.errors import ConfigurationError
from provider_core.plugins import PluginManager
from provider_core.sources import download
from tests.moto_aws import REGION, aws_client, use_aws
from tests.scripted_store import Fault, ScriptedStore, Seen, scripted_store, sums_of
from tests.source_progress import NotedProgress

FILES = {
    "config.json": b'{"model_type": "tiny"}',
    "onnx/model.onnx": bytes(range(256)) * 40,  # 10,240 bytes: three ranges
    "tokenizer.json": b"{}" * 60,
}
PREFIX = "models/tiny"


@pytest.fixture(autouse=True)
def _short_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "RANGE_BYTES", 4096)


@pytest.fixture
def bucket(aws_port: int) -> str:
    """One of its own, with a model and a neighbour."""
    name = f"models-{uuid4()}"
    client = aws_client("s3", aws_port)
    client.create_bucket(
        Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    for path, content in FILES.items():
        client.put_object(Bucket=name, Key=f"{PREFIX}/{path}", Body=content)
    client.put_object(Bucket=name, Key=f"{PREFIX}-other/config.json", Body=b"{}")
    client.put_object(Bucket=name, Key=f"{PREFIX}/onnx/", Body=b"")  # what a console calls a folder
    return name


@pytest.fixture
def between(
    aws_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ScriptedStore]:
    """A server in front of it, which everybody talks to."""
    with scripted_store(ScriptedStore(upstream=aws_port)) as store:
        use_aws(monkeypatch, store.port, tmp_path / "home")
        yield store


def fetch(uri: str, cache_dir: Path, progress: NotedProgress | None = None) -> Path:
    """As the core does it."""
    plugins = PluginManager()
    plugins.register(provider_aws, "aws")
    folder = plugins.first(
        hookspecs.fetch_model,
        uri=uri,
        cache_dir=cache_dir,
        progress=progress or NotedProgress(),
    )
    assert folder is not None
    return folder


def files_in(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("end", ["", "/"])
def test_a_prefix_is_a_folder(
    between: ScriptedStore, bucket: str, tmp_path: Path, end: str
) -> None:
    """Of its own objects, not of those that begin alike."""
    progress = NotedProgress()
    folder = fetch(f"s3://{bucket}/{PREFIX}{end}", tmp_path, progress)
    assert files_in(folder) == FILES
    assert folder.parent.name.startswith("s3-tiny-")
    assert progress.steps[-1] == (sum(map(len, FILES.values())),) * 2
    ranges = [seen.headers["range"] for seen in between.gets(f"/{bucket}/{PREFIX}/onnx/model.onnx")]
    assert sorted(ranges) == ["bytes=0-4095", "bytes=4096-8191", "bytes=8192-10239"]


def failing(fault: Fault, *numbers: int) -> Callable[[Seen], Fault | None]:
    """Some answers with content fail, counted from 0."""
    count = iter(range(10**6))

    def choose(seen: Seen) -> Fault | None:
        return fault if "range" in seen.headers and next(count) in numbers else None

    return choose


@pytest.mark.parametrize("fault", ["503", "truncated", "reset"])
def test_a_store_that_fails_is_asked_again(
    between: ScriptedStore, bucket: str, tmp_path: Path, fault: Fault
) -> None:
    """What arrives is whole."""
    between.fault = failing(fault, 0, 1, 2, 4, 6, 7)
    assert files_in(fetch(f"s3://{bucket}/{PREFIX}", tmp_path)) == FILES


def test_a_store_that_falls_silent_is_given_up(
    between: ScriptedStore, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an answer, for another one."""
    monkeypatch.setitem(s3._CLIENT, "timeout", "500ms")
    path = f"/{bucket}/{PREFIX}/onnx/model.onnx"
    between.gate = Event()
    between.gated = lambda seen: [seen] == between.gets(path)[:1]
    assert files_in(fetch(f"s3://{bucket}/{PREFIX}", tmp_path)) == FILES
    assert not between.gate.is_set()


def test_a_listing_that_fails_is_asked_for_again(
    between: ScriptedStore, bucket: str, tmp_path: Path
) -> None:
    """As the objects are."""
    between.fault = lambda seen: "503" if len(between.seen) < 3 else None
    assert files_in(fetch(f"s3://{bucket}/{PREFIX}", tmp_path)) == FILES


def test_corrupt_answers_are_found_out(
    between: ScriptedStore, bucket: str, aws_port: int, tmp_path: Path
) -> None:
    """By the sums that lie beside the model."""
    client = aws_client("s3", aws_port)
    client.put_object(Bucket=bucket, Key=f"{PREFIX}/SHA256SUMS", Body=sums_of(FILES))
    between.fault = failing("corrupt", 1, 3)  # 0 are the sums
    folder = fetch(f"s3://{bucket}/{PREFIX}", tmp_path)
    assert files_in(folder) == FILES


def test_an_object_that_changes_is_no_mixture(
    between: ScriptedStore,
    bucket: str,
    aws_port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ranges of two versions never meet."""
    monkeypatch.setattr(download, "NUM_CONNECTIONS", 1)
    client = aws_client("s3", aws_port)

    def exchange(seen: Seen) -> None:
        if seen.first:
            key = f"{PREFIX}/onnx/model.onnx"
            client.put_object(Bucket=bucket, Key=key, Body=b"other" * 3000)

    between.fault = exchange
    with pytest.raises(ConfigurationError, match="changed while it was fetched"):
        fetch(f"s3://{bucket}/{PREFIX}", tmp_path)


def test_what_was_there_is_not_fetched_again(
    between: ScriptedStore, bucket: str, aws_port: int, tmp_path: Path
) -> None:
    """After a failure only the rest is, after a success nothing; then another version whole."""
    uri = f"s3://{bucket}/{PREFIX}"
    between.fault = lambda seen: "503" if seen.first == 8192 else None
    with pytest.raises(ConfigurationError, match=r"cannot be fetched: .*503"):
        fetch(uri, tmp_path)
    between.fault = lambda _: None
    between.seen.clear()
    folder = fetch(uri, tmp_path)
    ranges = {seen.headers["range"] for seen in between.seen if "range" in seen.headers}
    assert ranges == {"bytes=8192-10239"}
    between.seen.clear()
    assert fetch(uri, tmp_path) == folder
    assert not any("range" in seen.headers for seen in between.seen)
    aws_client("s3", aws_port).put_object(
        Bucket=bucket, Key=f"{PREFIX}/config.json", Body=b'{"model_type": "other"}'
    )
    assert fetch(uri, tmp_path) != folder


def test_a_store_that_is_away_is_served_from_the_copy(
    between: ScriptedStore, bucket: str, tmp_path: Path
) -> None:
    """A restart needs no network."""
    folder = fetch(f"s3://{bucket}/{PREFIX}", tmp_path)
    between.fault = lambda _: "503"
    assert fetch(f"s3://{bucket}/{PREFIX}", tmp_path) == folder


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("s3://no-such-bucket-here/tiny", "there is no such bucket or object"),
        ("s3://{bucket}/absent", "holds no files"),
        ("s3://{bucket}/denied", "s3:ListBucket and s3:GetObject are needed"),
        ("s3://{bucket}/moved", "in another region: set AWS_REGION"),
        ("s3:///tiny", "not of the form s3://bucket/prefix"),
    ],
)
def test_what_cannot_be_had_is_said(
    between: ScriptedStore, bucket: str, tmp_path: Path, uri: str, problem: str
) -> None:
    """In one line."""
    between.fault = lambda seen: (
        "403" if "denied" in seen.query else "301" if "moved" in seen.query else None
    )
    with pytest.raises(ConfigurationError, match=problem):
        fetch(uri.format(bucket=bucket), tmp_path)


def test_profiles_are_honoured(
    between: ScriptedStore, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On machines of people, where nothing else says who they are."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    folder = tmp_path / "home" / ".aws"
    folder.mkdir(parents=True)
    (folder / "credentials").write_text(
        "[default]\naws_access_key_id = of-the-profile\naws_secret_access_key = canary\n"
    )
    assert files_in(fetch(f"s3://{bucket}/{PREFIX}", tmp_path)) == FILES
    assert all("of-the-profile/" in seen.headers["authorization"] for seen in between.seen)


def test_the_environment_s_region_wins_over_the_profile_s(
    between: ScriptedStore, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each of its two spellings."""
    folder = tmp_path / "home" / ".aws"
    folder.mkdir(parents=True)
    (folder / "config").write_text("[default]\nregion = us-west-2\n")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    for variable in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        between.seen.clear()
        with monkeypatch.context() as set_once:
            set_once.setenv(variable, REGION)
            fetch(f"s3://{bucket}/{PREFIX}", tmp_path)
        assert all(f"/{REGION}/s3/" in seen.headers["authorization"] for seen in between.seen)


@pytest.mark.usefixtures("between")
def test_a_user_without_a_home_has_no_profile(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's, whose system knows no more of it than a number."""

    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", fail)
    assert files_in(fetch(f"s3://{bucket}/{PREFIX}", tmp_path)) == FILES


@pytest.mark.usefixtures("between")
def test_a_bucket_in_place_of_a_folder_is_not_listed_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One page more than a model has files says that it is none."""
    asked = []

    def list_pages(store: object) -> Iterator[list[dict[str, object]]]:
        for number in range(100):
            asked.append(number)
            yield [{"path": f"{number}/{i}", "size": 1, "e_tag": ""} for i in range(600)]

    monkeypatch.setattr(obstore, "list", list_pages)
    with pytest.raises(ConfigurationError, match="holds more than 1000 objects; name a folder"):
        fetch("s3://whole-bucket", tmp_path)
    assert asked == [0, 1]
