"""Models from the Hugging Face Hub, and from where platforms have put them."""

import socket
from pathlib import Path

import pytest
from huggingface_hub import constants

from provider_core.errors import ConfigurationError
from provider_core.sources import download, hugging_face
from tests.integration.sources.hub import COMMIT, REPO, TOKEN, hub, write_snapshot
from tests.integration.sources.test_https import fetch, files_in
from tests.scripted_store import Seen

MODEL = bytes(range(256)) * 40
FILES = {
    "config.json": b'{"model_type": "tiny"}',
    "tokenizer.json": b"{}" * 60,
    "README.md": b"# tiny",
    "onnx/model.onnx": MODEL,
    "onnx/model_q4.onnx": MODEL[::-1],
    "onnx/model_q4.onnx_data": MODEL,
    "model.safetensors": MODEL,
    "pytorch_model.bin": MODEL,
}
SERVED = {"config.json", "tokenizer.json", "README.md", "onnx/model.onnx"}


@pytest.fixture(autouse=True)
def _short_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "RANGE_BYTES", 4096)


def test_a_repository_comes_as_plain_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a backend can run, in one precision, with the Hub's checksums."""
    with hub(FILES, monkeypatch):
        folder = fetch(f"hf://{REPO}", tmp_path)
    assert files_in(folder) == {name: FILES[name] for name in SERVED}
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert folder.parent.name.startswith("hf-tiny-ONNX-")


def test_the_token_stays_at_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store that it redirects to never sees it, and the Hub is asked once for each file."""
    with hub(FILES, monkeypatch) as (api, bulk):
        monkeypatch.setattr(download, "NUM_CONNECTIONS", 1)
        fetch(f"hf://{REPO}", tmp_path)
    assert all(seen.headers["authorization"] == f"Bearer {TOKEN}" for seen in api.seen)
    assert not any("authorization" in seen.headers for seen in bulk.seen)
    assert len(api.gets(f"/{REPO}/resolve/{COMMIT}/onnx/model.onnx")) == 1
    assert len(bulk.gets("/blobs/onnx/model.onnx")) == 3


def test_a_signed_address_that_expires_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lives for an hour, a download maybe for longer."""
    with hub(FILES, monkeypatch) as (api, bulk):
        monkeypatch.setattr(download, "NUM_CONNECTIONS", 1)

        def expire(seen: Seen) -> None:
            if seen.first == 4096 and len(bulk.gets(seen.path)) == 1:
                bulk.files["/gone"] = bulk.files.pop(seen.path)
            elif "/gone" in bulk.files:
                bulk.files[seen.path] = bulk.files.pop("/gone")

        bulk.fault = expire
        folder = fetch(f"hf://{REPO}", tmp_path)
    assert (folder / "onnx/model.onnx").read_bytes() == MODEL
    assert len(api.gets(f"/{REPO}/resolve/{COMMIT}/onnx/model.onnx")) == 2


def test_a_revision_and_a_form_can_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only the weights that match are fetched."""
    with hub(FILES, monkeypatch, revision="v1"):
        folder = fetch(f"hf://{REPO}@v1?files=onnx/model_q4*", tmp_path)
    weights = {"onnx/model_q4.onnx", "onnx/model_q4.onnx_data"}
    assert set(files_in(folder)) == weights | {"config.json", "tokenizer.json"}


def test_weights_of_other_frameworks_come_where_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`provider export` takes them."""
    files = {name: content for name, content in FILES.items() if "onnx" not in name}
    with hub(files, monkeypatch):
        assert files_in(fetch(f"hf://{REPO}", tmp_path)) == files


def test_a_store_that_garbles_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the checksums that the Hub keeps."""
    with hub(FILES, monkeypatch) as (_, bulk):
        bulk.fault = lambda seen: "corrupt" if len(bulk.seen) < 2 else None
        assert (fetch(f"hf://{REPO}", tmp_path) / "onnx/model.onnx").read_bytes() == MODEL
        bulk.fault = lambda _: "corrupt"
        with pytest.raises(ConfigurationError, match="does not match its SHA-256"):
            fetch(f"hf://{REPO}?files=*.onnx", tmp_path)


def test_a_hub_that_is_away_is_served_from_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart needs nobody; without a copy it says what it lacks."""
    with hub(FILES, monkeypatch) as (api, _):
        folder = fetch(f"hf://{REPO}", tmp_path)
        api.fault = lambda _: "503"
        assert fetch(f"hf://{REPO}", tmp_path) == folder
        with pytest.raises(ConfigurationError, match=r"cannot be fetched: the Hub answered 503"):
            fetch(f"hf://{REPO}@other", tmp_path)


def test_a_hub_that_is_silent_is_served_from_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes the connection and never answers is away, too."""
    with hub(FILES, monkeypatch):
        folder = fetch(f"hf://{REPO}", tmp_path)
    monkeypatch.setattr(hugging_face, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert fetch(f"hf://{REPO}", tmp_path) == folder


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("hf://nobody/nothing", "no such repository, or a private one: set HF_TOKEN"),
        ("hf://only-a-name", "not of the form hf://org/name@revision"),
        ("hf://a/b/c", "not of the form"),
    ],
)
def test_what_cannot_be_had_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, problem: str
) -> None:
    """In one line that helps."""
    with hub(FILES, monkeypatch) as (api, _):
        api.error_headers = {"X-Error-Code": "RepoNotFound"}
        with pytest.raises(ConfigurationError, match=problem):
            fetch(uri, tmp_path)


@pytest.mark.parametrize("reference", ["main", None])
def test_what_the_platform_fetched_is_served_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str | None
) -> None:
    """Without a request, and without a copy."""
    cache = tmp_path / "platform"
    snapshot = write_snapshot(cache, FILES, reference=reference)
    monkeypatch.setattr(hugging_face, "PLATFORM_CACHES", (cache,))
    assert fetch(f"hf://{REPO}", tmp_path / "own") == snapshot
    assert fetch(f"hf://{REPO}@{COMMIT}", tmp_path / "own") == snapshot
    assert not (tmp_path / "own").exists()


def test_another_revision_than_the_platform_has_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As is one of which it has no model, or one that it shares with another repository."""
    cache, shared = tmp_path / "platform", tmp_path / "shared"
    write_snapshot(cache, {"config.json": b"{}"}, reference="main")
    snapshot = write_snapshot(shared, FILES, reference="main")
    blob = (snapshot / "onnx/model.onnx").resolve()
    (shared / "blobs").mkdir()
    blob.rename(shared / "blobs" / blob.name)
    blob.symlink_to(f"../../blobs/{blob.name}")
    monkeypatch.setattr(hugging_face, "PLATFORM_CACHES", (cache, shared))
    for revision in ("main", "v1"):
        with hub(FILES, monkeypatch, revision=revision):
            folder = fetch(f"hf://{REPO}@{revision}", tmp_path / "own")
        assert (folder / "onnx/model.onnx").read_bytes() == MODEL
