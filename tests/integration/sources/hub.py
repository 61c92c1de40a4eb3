"""A Hugging Face Hub of one repository, as `huggingface_hub` speaks to it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.scripted_store import ScriptedStore, scripted_store

REPO = "acme/tiny-ONNX"
COMMIT = "a1" * 20
TOKEN = "hf_canary"
LARGE_BYTES = 100  # larger ones are kept as the Hub keeps weights, elsewhere and with a checksum


@contextmanager
def hub(
    files: Mapping[str, bytes], monkeypatch: pytest.MonkeyPatch, *, revision: str = "main"
) -> Iterator[tuple[ScriptedStore, ScriptedStore]]:
    """Serve a revision of a repository.

    Yields:
        The Hub, and the store that it sends those to who want large files.
    """
    with scripted_store(ScriptedStore()) as api, scripted_store(ScriptedStore()) as bulk:
        info = {"id": REPO, "sha": COMMIT, "siblings": [_sibling(*each) for each in files.items()]}
        api.files[f"/api/models/{REPO}/revision/{revision}"] = json.dumps(info).encode()
        resolve = f"/{REPO}/resolve/{COMMIT}/"
        large = {name for name, content in files.items() if len(content) > LARGE_BYTES}
        bulk.files = {f"/blobs/{name}": content for name, content in files.items()}
        api.files |= {resolve + name: c for name, c in files.items() if len(c) <= LARGE_BYTES}
        api.moved = lambda path: (
            f"{bulk.url}/blobs/{path.removeprefix(resolve)}?signature=1"
            if path.startswith(resolve) and path.removeprefix(resolve) in large
            else None
        )
        monkeypatch.setattr(constants, "ENDPOINT", api.url)
        template = api.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield api, bulk


def _sibling(name: str, content: bytes) -> dict[str, object]:
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324 - git's
    described: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": blob}
    if len(content) > LARGE_BYTES:
        sha256 = hashlib.sha256(content).hexdigest()
        described["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
    return described


def write_snapshot(root: Path, files: Mapping[str, bytes], *, reference: str | None) -> Path:
    """Write a revision as `huggingface_hub` caches it: links to blobs."""
    folder = root / f"models--{REPO.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    for name, content in files.items():
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        path = snapshot / name
        path.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * (len(Path(name).parts) + 1)
        path.symlink_to(f"{up}blobs/{blob.name}")
    if reference is not None:
        (folder / "refs").mkdir()
        (folder / "refs" / reference).write_text(COMMIT)
    return snapshot
