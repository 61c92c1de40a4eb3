"""Models from web servers, which are described by their checksums and fail in every way."""

import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event

import pytest

from provider_core import hookspecs
from provider_core.errors import ConfigurationError
from provider_core.plugins import CoreHooks, PluginManager
from provider_core.sources import download, http_ranges
from tests.scripted_store import Fault, ScriptedStore, Seen, scripted_store, sums_of
from tests.source_progress import NotedProgress

FILES = {
    "config.json": b'{"model_type": "tiny"}',
    "onnx/model.onnx": bytes(range(256)) * 40,  # 10,240 bytes: three ranges
    "a b.json": b"{}",
}
RANGE = 4096


@pytest.fixture(autouse=True)
def _short_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "RANGE_BYTES", RANGE)


@pytest.fixture
def store() -> Iterator[ScriptedStore]:
    """A server with a model below `/models/tiny`."""
    given = {"SHA256SUMS": sums_of(FILES), **FILES}
    with scripted_store(ScriptedStore({f"/models/tiny/{n}": c for n, c in given.items()})) as made:
        made.files["/models/tiny/a%20b.json"] = FILES["a b.json"]
        yield made


def fetch(uri: str, cache_dir: Path) -> Path:
    """As the core does it."""
    plugins = PluginManager()
    plugins.register(CoreHooks(), "core")
    folder = plugins.first(
        hookspecs.fetch_model, uri=uri, cache_dir=cache_dir, progress=NotedProgress()
    )
    assert folder is not None
    return folder


def files_in(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("end", ["", "/", "/SHA256SUMS", "?signature=canary"])
def test_a_folder_is_what_its_sums_name(store: ScriptedStore, tmp_path: Path, end: str) -> None:
    """However its address is written; a signature goes with each request and nowhere else."""
    folder = fetch(f"{store.url}/models/tiny{end}", tmp_path)
    assert files_in(folder) == FILES
    assert "canary" not in str(folder)
    assert folder.parent.name.startswith("http-tiny-")


def failing(fault: Fault) -> Callable[[Seen], Fault | None]:
    """The first answer with content, and some others in quick succession."""
    count = iter(range(10**6))

    def choose(seen: Seen) -> Fault | None:
        return fault if "range" in seen.headers and next(count) in {0, 2, 3} else None

    return choose


@pytest.mark.parametrize("fault", ["503", "520", "truncated", "reset", "corrupt"])
def test_a_server_that_fails_is_asked_again(
    store: ScriptedStore, tmp_path: Path, fault: Fault
) -> None:
    """What arrives is whole."""
    store.fault = failing(fault)
    assert files_in(fetch(f"{store.url}/models/tiny", tmp_path)) == FILES


@pytest.mark.parametrize("fault", ["520", "truncated", "unfinished", "reset"])
def test_a_listing_that_fails_is_asked_for_again(
    store: ScriptedStore, tmp_path: Path, fault: Fault
) -> None:
    """And where it fails each time, the copy is served."""
    store.fault = lambda seen: fault if len(store.seen) < 2 else None
    folder = fetch(f"{store.url}/models/tiny", tmp_path)
    store.fault = lambda _: fault
    assert fetch(f"{store.url}/models/tiny", tmp_path) == folder


@pytest.mark.parametrize(
    ("names", "problem"),
    [([f"../{i}" for i in range(9)], "no path in a folder"), (range(1001), "more than 1000 files")],
)
def test_a_listing_of_no_model_is_refused_unasked(
    store: ScriptedStore, tmp_path: Path, names: Sequence[object], problem: str
) -> None:
    """None of what it names is asked for."""
    store.files["/odd/SHA256SUMS"] = sums_of({str(name): b"" for name in names})
    with pytest.raises(ConfigurationError, match=problem):
        fetch(f"{store.url}/odd", tmp_path)
    assert [seen.path for seen in store.seen] == ["/odd/SHA256SUMS"]


def test_a_server_that_says_no_is_believed(store: ScriptedStore, tmp_path: Path) -> None:
    """Whoever withdraws a model means its copies, too."""
    fetch(f"{store.url}/models/tiny", tmp_path)
    store.fault = lambda _: "403"
    with pytest.raises(ConfigurationError, match="403 Forbidden"):
        fetch(f"{store.url}/models/tiny", tmp_path)


def test_a_server_that_falls_silent_is_given_up(
    store: ScriptedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an answer, for another one that goes on from there."""
    monkeypatch.setattr(http_ranges, "TIMEOUT_S", 0.3)
    path = "/models/tiny/onnx/model.onnx"
    store.gate = Event()
    store.gated = lambda seen: [seen] == store.gets(path)[:1]
    assert files_in(fetch(f"{store.url}/models/tiny", tmp_path)) == FILES
    assert not store.gate.is_set()
    silent, *others = store.gets(path)
    size = min(RANGE, len(FILES["onnx/model.onnx"]) - silent.first)
    assert silent.first + size // 2 in {seen.first for seen in others}


def test_a_file_that_is_always_corrupt_is_refused(store: ScriptedStore, tmp_path: Path) -> None:
    """After three downloads of it."""
    store.fault = lambda seen: "corrupt" if seen.path.endswith("model.onnx") else None
    with pytest.raises(ConfigurationError, match=r"onnx/model\.onnx does not match its SHA-256"):
        fetch(f"{store.url}/models/tiny", tmp_path)


def test_a_file_that_changes_is_no_mixture(
    store: ScriptedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges of two versions never meet."""
    monkeypatch.setattr(download, "NUM_CONNECTIONS", 1)

    def exchange(seen: Seen) -> None:
        if seen.first:
            store.files["/models/tiny/onnx/model.onnx"] = b"other" * 3000

    store.fault = exchange
    with pytest.raises(ConfigurationError, match="changed while it was fetched"):
        fetch(f"{store.url}/models/tiny", tmp_path)


def test_a_redirect_is_followed(store: ScriptedStore, tmp_path: Path) -> None:
    """As from a registry to its store, but to no plain http of somebody else."""
    store.moved = lambda path: f"{store.url}/models/tiny/{path[3:]}" if path[:3] == "/x/" else None
    assert files_in(fetch(f"{store.url}/x", tmp_path)) == FILES
    whole = [seen for seen in store.gets("/models/tiny/config.json") if "range" not in seen.headers]
    assert whole == []  # a question for the size is none for the content
    store.moved = lambda path: "http://example.com/elsewhere"
    with pytest.raises(ConfigurationError, match=r"http://example\.com: models come over https"):
        fetch(f"{store.url}/y", tmp_path)


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("http://example.com/model", "models come over https only"),
        ("https://me:canary@example.com/model", "must hold no password"),
        ("{url}/absent", "127.0.0.1/absent/SHA256SUMS: 404 Not Found"),
        ("{url}/garbled", "line 2 of SHA256SUMS is not of sha256sum"),
        ("{url}/partly", "partly/none.onnx: 404 Not Found"),
    ],
)
def test_what_cannot_be_had_is_said(
    store: ScriptedStore, tmp_path: Path, uri: str, problem: str
) -> None:
    """At once, in one line, without a secret."""
    store.files["/garbled/SHA256SUMS"] = sums_of({"a": b""}) + b"<html>"
    store.files["/partly/SHA256SUMS"] = sums_of({"none.onnx": b""})
    with pytest.raises(ConfigurationError, match=problem) as failure:
        fetch(uri.format(url=store.url), tmp_path)
    assert "canary" not in str(failure.value)


def test_a_server_without_ranges_is_said_to_be_one(
    store: ScriptedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's own, for instance."""
    answered = http_ranges.request

    def ignore_range(url: str, **options: object) -> object:
        return answered(url)

    monkeypatch.setattr(http_ranges, "request", ignore_range)
    with pytest.raises(ConfigurationError, match="does not answer requests for ranges"):
        fetch(f"{store.url}/models/tiny", tmp_path)


def test_nobody_there(tmp_path: Path) -> None:
    """Asked again, and then given up."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConfigurationError, match=r"cannot be fetched: .*ConnectionRefusedError"):
        fetch(f"http://127.0.0.1:{port}/tiny", tmp_path)
