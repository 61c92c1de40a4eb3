"""Built engines on disk: one for each library and GPU, and a manifest that vouches for them.

An engine is code: deserialising one runs it. So none is opened but those whose digest the manifest
holds, and, where the operator names digests of his own, those only. The manifest also says what an
engine was built of and for, and every mismatch is an error that names the command to run.
"""

import errno
import hashlib
import os
import shlex
import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from provider_core import ConfigurationError
from provider_core.decoder_io import DecoderIO
from provider_tensorrt.library import LibraryName
from provider_tensorrt.shapes import NUM_CANDIDATES

FOLDER, MANIFEST = "engines", "manifest.json"
DEFAULT_MAX_NUM_SEQS = 32
DEFAULT_MAX_PREFILL_TOKENS = 512
RECIPE = 2
"""Counts how engines are built here; another number outdates all that exist."""


class EngineMissing(ConfigurationError):
    """There is no engine that fits, and building one helps."""


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EngineLimits(_Value):
    """What an engine is built for.

    Attributes:
        max_model_len: Positions of each cache.
        max_num_seqs: Rows of a decode.
        max_prefill_tokens: Tokens of a prefill, which is one row.
        num_candidates: Likeliest ids that a step gives of each row, if there are as many.
    """

    max_model_len: int = Field(ge=1)
    max_num_seqs: int = Field(ge=1)
    max_prefill_tokens: int = Field(ge=1)
    num_candidates: int = Field(NUM_CANDIDATES, ge=1, le=3840)


class EngineKey(_Value):
    """What makes two engines of one model the same.

    Attributes:
        version: Of the library.
        compute_capability: Of the GPU that it runs on, such as `8.9`.
        recipe: How it was built.
    """

    library: LibraryName
    version: str
    compute_capability: str
    limits: EngineLimits
    recipe: int = RECIPE

    def serves(self, wanted: "EngineKey") -> bool:
        """Whether it is of the same kind, and holds as much; a prefill is cut to what it takes."""
        mine, theirs = self.limits, wanted.limits
        return (
            self.model_copy(update={"limits": theirs}) == wanted
            and mine.max_model_len >= theirs.max_model_len
            and mine.max_num_seqs >= theirs.max_num_seqs
        )


class EngineRecord(_Value):
    """An engine's file.

    Attributes:
        file: Its name in the folder.
    """

    key: EngineKey
    file: str = Field(pattern=r"^[a-z0-9_.-]+\.engine$")
    num_bytes: int
    sha256: str


def _check_relative(path: str) -> str:
    if "\0" in path or not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise ValueError("not a path inside of a folder")
    return path


class ModelFile(_Value):
    """A file that the engines were built of, as it was then.

    Attributes:
        name: Its path in the model's folder.
    """

    name: Annotated[str, AfterValidator(_check_relative)]
    num_bytes: int
    mtime_ns: int
    sha256: str


class Manifest(_Value):
    """What the folder holds.

    Attributes:
        model: Files of the model that all engines were built of.
        precision: Of the model's weights, in OpenRouter's vocabulary; `None` if unknown.
        decoder: The model's inputs and outputs, its caches' length not fixed.
    """

    format: Literal[1] = 1
    model: tuple[ModelFile, ...]
    precision: str | None
    decoder: DecoderIO
    engines: tuple[EngineRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundEngine:
    """An engine that may be used, not read yet.

    Attributes:
        command: Builds it.
    """

    path: Path
    record: EngineRecord
    manifest: Manifest
    command: str

    def read(self) -> bytes:
        """The engine, once it is known to be the one that was built.

        Raises:
            EngineMissing: The file is another one, damaged, or not there; with the command.
        """
        try:
            with open(self.path, "rb", opener=open_plain) as file:
                engine = file.read()
        except OSError as error:
            raise EngineMissing(
                f"{self.path} cannot be read: {error.strerror}; run: {self.command}"
            ) from error
        if hashlib.sha256(engine).hexdigest() != self.record.sha256:
            raise EngineMissing(
                f"{self.path} is not the engine that was built ({len(engine)} bytes, "
                f"{self.record.num_bytes} were written): damaged, or put there by somebody else; "
                f"it is not opened; run: {self.command}"
            )
        return engine


def find_engine(
    model_dir: Path,
    *,
    library: LibraryName,
    version: str,
    compute_capability: str,
    max_model_len: int,
    max_num_seqs: int,
    folder: Path | None = None,
    trusted: Collection[str] | None = None,
) -> FoundEngine:
    """The engine for this library and GPU that holds so many sequences of that length.

    Args:
        model_dir: The model's folder; it may lack the model itself.
        library: That will run it.
        version: Of the library.
        compute_capability: Of the GPU.
        max_model_len: Positions that are needed, at most the engine's.
        max_num_seqs: Rows that are needed, at most the engine's.
        folder: Of the engines, if not beside the model.
        trusted: SHA-256 digests of engines that may be opened; `None` trusts the manifest.

    Raises:
        EngineMissing: Says why, and which command builds it.
        ConfigurationError: The engine is not among the trusted.
    """
    folder = folder or model_dir / FOLDER
    command = (
        f"provider build-engine {shlex.quote(str(model_dir))} "
        f"--compute-capability {compute_capability} "
        f"--max-model-len {max_model_len} --max-num-seqs {max_num_seqs}"
    )
    if folder != model_dir / FOLDER:
        command += f" --out {shlex.quote(str(folder))}"
    try:
        manifest = read_manifest(folder)
    except ConfigurationError as error:
        raise EngineMissing(f"{error.message}; run: {command}") from error
    if manifest is None:
        raise EngineMissing(f"{folder} holds no engines; run: {command}")
    if changed := find_changed_file(model_dir, manifest):
        raise EngineMissing(
            f"the engines in {folder} were built of another {changed}; run: {command}"
        )
    wanted = EngineKey(
        library=library,
        version=version,
        compute_capability=compute_capability,
        limits=EngineLimits(
            max_model_len=max_model_len, max_num_seqs=max_num_seqs, max_prefill_tokens=1
        ),
    )
    allowed = [each for each in manifest.engines if trusted is None or each.sha256 in trusted]
    if record := find_least(allowed, wanted):
        return FoundEngine(folder / record.file, record, manifest, command)
    if record := find_least(manifest.engines, wanted):
        raise ConfigurationError(
            f"{folder / record.file} is not among the trusted engines: {record.sha256}"
        )
    problems = [_why_not(each.key, wanted) for each in manifest.engines]
    raise EngineMissing(
        f"no engine in {folder} fits: {'; '.join(problems) or 'it holds none'}; run: {command}"
    )


def find_least(engines: Iterable[EngineRecord], wanted: EngineKey) -> EngineRecord | None:
    """Of the engines that serve for what is wanted, the one whose slots are smallest."""
    return min(
        (each for each in engines if each.key.serves(wanted)),
        key=lambda each: (each.key.limits.max_model_len, each.key.limits.max_num_seqs),
        default=None,
    )


def read_manifest(folder: Path) -> Manifest | None:
    """The folder's manifest; `None` if it has none.

    Raises:
        ConfigurationError: It is damaged, or of another format.
    """
    try:
        with open(folder / MANIFEST, "rb", opener=open_plain) as file:
            return Manifest.model_validate_json(file.read())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ConfigurationError(f"{folder / MANIFEST} is damaged or of another version") from error


def find_changed_file(model_dir: Path, manifest: Manifest) -> str | None:
    """The name of a file of the model that is not as it was when engines were built of it.

    A file of the same size and time is taken to be the same, as make and rsync do; others are
    read. One that is missing is not needed: engines hold the weights.
    """
    for file in manifest.model:
        path = model_dir / file.name
        try:
            status = path.stat()
            if status.st_size != file.num_bytes:
                return file.name
            if status.st_mtime_ns != file.mtime_ns and digest_file(path) != file.sha256:
                return file.name
        except FileNotFoundError:
            continue
        except OSError:  # it cannot be read, or is no plain file
            return file.name
    return None


def _why_not(key: EngineKey, wanted: EngineKey) -> str:
    """Why an engine does not serve, in its own words."""
    mine = f"{key.library} {key.version}, compute capability {key.compute_capability}"
    if key.library != wanted.library:
        return f"one is of {mine}, and {wanted.library} is installed"
    if key.compute_capability != wanted.compute_capability:
        return f"one is of {mine}, and this GPU has {wanted.compute_capability}"
    if key.version != wanted.version:
        return f"one is of {mine}, and outdated by {wanted.version}"
    if key.recipe != wanted.recipe:
        return f"one is of {mine}, and was built by another version of provider-core"
    has, asked = key.limits, wanted.limits
    if has.max_model_len < asked.max_model_len:
        return f"one is for {has.max_model_len} positions, and {asked.max_model_len} are asked for"
    return f"one is for {has.max_num_seqs} sequences, and {asked.max_num_seqs} are asked for"


def digest_file(path: Path) -> str:
    """SHA-256 of a plain file, in hexadecimal."""
    with open(path, "rb", opener=open_plain) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_plain(path: str, flags: int) -> int:
    """An opener for plain files: a device may have no end, and a pipe no writer.

    Raises:
        OSError: It cannot be opened, or is no plain file.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a plain file", path)
