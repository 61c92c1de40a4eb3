"""`hf://org/name[@revision]`: a repository of the Hugging Face Hub, or of a server like it.

huggingface_hub knows the Hub: its addresses, its tokens (`HF_TOKEN`), its settings (`HF_ENDPOINT`).
The bytes come as those of every source do, so that they are resumed, checked and kept alike.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, urlsplit

from provider_core.errors import ConfigurationError
from provider_core.sources.download import is_weights
from provider_core.sources.fetch import fetch_folder
from provider_core.sources.http_ranges import TIMEOUT_S, check_scheme, open_range, read_pieces
from provider_core.sources.remote import FetchProgress, RemoteFile, SourceUnavailable

PLATFORM_CACHES = (Path("/runpod-volume/huggingface-cache/hub"),)
"""Where platforms put what they have fetched before the process starts; read only."""

_URI = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[^?#\s]+))?(?:\?(?P<query>.*))?"
)
_OF_OTHER_FRAMEWORKS = frozenset(
    {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".ot", ".tflite"}
)
_VARIANT = re.compile(r"_(fp16|q8|q4|q4f16|int8|uint8|bnb4|quantized)\.onnx")
"""Transformers.js' names of the same decoder in other precisions (its `dtypes.js`)."""


def fetch_repository(uri: str, cache_dir: Path, progress: FetchProgress) -> Path:
    """Bring a repository's model here; what the platform has fetched is served from where it is.

    Raises:
        ConfigurationError: It cannot be had.
    """
    repository = HubRepository(uri)
    for root in PLATFORM_CACHES:
        if root.is_dir() and (folder := repository.find_in_cache(root)) is not None:
            return folder
    return fetch_folder(repository, cache_dir, progress)


class HubRepository:
    """One revision of a repository.

    Args:
        uri: `hf://org/name`, maybe with `@` and a branch, tag or commit, and with `?files=` and a
            pattern of the weights that are wanted, where a repository has them in several forms.

    Raises:
        ConfigurationError: The URI is not of that form.
    """

    def __init__(self, uri: str) -> None:
        match = _URI.fullmatch(uri)
        if match is None:
            raise ConfigurationError(f"{uri!r} is not of the form hf://org/name@revision")
        self.uri = uri
        self._repo = match["repo"]
        self._revision = match["revision"] or "main"
        self._patterns = parse_qs(match["query"] or "").get("files", [])
        self._commit = ""
        self._headers: dict[str, str] = {}
        self._moved: dict[str, str] = {}  # signed addresses, by path

    def find_in_cache(self, root: Path) -> Path | None:
        """The revision's folder in a cache of huggingface_hub's layout, if a model is in it.

        A platform that was told a model and no branch has that model once, whatever its commit.
        """
        folder = root / f"models--{self._repo.replace('/', '--')}"
        reference = folder / "refs" / self._revision
        snapshots = folder / "snapshots"
        if reference.is_file():
            found = [snapshots / reference.read_text(encoding="utf-8").strip()]
        else:
            found = [snapshots / self._revision]
            if self._revision == "main" and snapshots.is_dir():
                found = list(snapshots.iterdir())
        models = [] if len(found) != 1 else list(found[0].rglob("*.onnx*"))
        blobs = (folder / "blobs").resolve()
        # Blobs that several repositories share are in folders apart, as no runtime takes them.
        return found[0] if models and all(m.resolve().parent == blobs for m in models) else None

    def list_files(self) -> Sequence[RemoteFile]:
        """What a backend can run of it, with the checksums that the Hub keeps of large files."""
        from huggingface_hub import HfApi, get_token  # noqa: PLC0415 - long, and for few

        with _hub_errors():
            token = get_token()
            self._headers = {"Authorization": f"Bearer {token}"} if token else {}
            info = HfApi().model_info(
                self._repo, revision=self._revision, files_metadata=True, timeout=TIMEOUT_S
            )
        self._commit = info.sha or self._revision
        files = [
            RemoteFile(
                path=each.rfilename,
                size_bytes=each.size or 0,
                version=each.blob_id or "",
                sha256=each.lfs.sha256 if each.lfs is not None else None,
            )
            for each in info.siblings or ()
        ]
        has_onnx = any(file.path.endswith(".onnx") for file in files)
        return [file for file in files if self._is_wanted(file, has_onnx=has_onnx)]

    def read(self, file: RemoteFile, start: int, end: int) -> Iterator[bytes]:
        """Read a range of a file, from where the Hub has its bytes."""
        from huggingface_hub import hf_hub_url  # noqa: PLC0415 - as above

        address = hf_hub_url(self._repo, file.path, revision=self._commit)
        check_scheme(address)
        moved = self._moved.get(file.path)
        try:
            if moved is not None:
                response = open_range(moved, start, end)
            else:
                response = open_range(address, start, end, headers=self._headers)
        except ConfigurationError:
            if moved is None:
                raise
            self._moved.pop(file.path, None)
            raise SourceUnavailable(f"{file.path}: its signed address has expired") from None
        if urlsplit(response.url).netloc != urlsplit(address).netloc:
            self._moved[file.path] = response.url  # the Hub limits how often it is asked
        return read_pieces(response)

    def _is_wanted(self, file: RemoteFile, *, has_onnx: bool) -> bool:
        if not is_weights(file):
            return True
        if self._patterns:
            return any(fnmatch(file.path, pattern) for pattern in self._patterns)
        is_foreign = PurePosixPath(file.path).suffix in _OF_OTHER_FRAMEWORKS
        return not (has_onnx and (is_foreign or _VARIANT.search(file.path)))


@contextmanager
def _hub_errors() -> Iterator[None]:
    """Say what the Hub's client says in this project's words.

    Raises:
        ConfigurationError: There is no such repository or revision, or not for this token.
        SourceUnavailable: Anything else: the client lets through what its HTTP library raises.
    """
    from huggingface_hub.errors import (  # noqa: PLC0415 - as above
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError:
        raise ConfigurationError(
            "the Hub gives this repository to those only who were let in: set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise ConfigurationError("the Hub has no such revision of the repository") from None
    except RepositoryNotFoundError:
        raise ConfigurationError(
            "the Hub has no such repository, or a private one: set HF_TOKEN"
        ) from None
    except HfHubHTTPError as error:
        raise SourceUnavailable(f"the Hub answered {error.response.status_code}") from error
    except Exception as error:
        raise SourceUnavailable(f"the Hub does not answer: {type(error).__name__}") from error
