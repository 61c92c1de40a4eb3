"""Opening a decoder: rewritten, with the wanted weights, from the cache if it can be."""

import shutil
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import structlog

import provider_core
from provider_core import ConfigurationError
from provider_core.decoder_io import DecoderIO
from provider_onnxruntime.model_folder import DecoderFile, check_rewritten, read_rewritten
from provider_onnxruntime.optimise.cache import (
    CACHE_FOLDER,
    GRAPH,
    MIXED,
    GraphCache,
    InvalidEntry,
    fingerprint_source,
    hash_file,
    make_key,
    read_processor_features,
)
from provider_onnxruntime.optimise.probe import mixes_exactly, probe
from provider_onnxruntime.session import open_session
from provider_onnxruntime.settings import OnnxRuntimeSettings
from provider_onnxruntime.weight_sets import WeightSet

MIN_CACHED_BYTES = 2**26  # smaller models load in an instant
CODE = (
    *sorted(Path(__file__).parent.glob("*.py")),
    Path(provider_core.__file__).parent / "quantization.py",
)
"""What decides the outcome. Its hash is in the key: nobody forgets to count up a version."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class OpenedDecoder:
    """A session and what it takes and gives, which a rewritten graph says anew.

    Attributes:
        mixed_path: The same decoder for mixed calls, if there is one on disk.
    """

    session: ort.InferenceSession
    io: DecoderIO
    mixed_path: Path | None = None


def open_decoder(
    decoder: DecoderFile,
    settings: OnnxRuntimeSettings,
    weight_set: WeightSet | None,
    *,
    max_model_len: int | None = None,
) -> OpenedDecoder:
    """Load a decoder with the weights it comes with, or with others derived from them.

    A cache that cannot be used costs time, never the start.

    Args:
        decoder: The checked file and its description.
        settings: How to run it.
        weight_set: Weights to derive, if any.
        max_model_len: Positions of each slot, if they are written in place.

    Raises:
        ConfigurationError: The session cannot be made as asked.
    """
    if _wants_cache(decoder, settings):
        try:
            return _open_cached(decoder, settings, weight_set)
        except OSError as error:
            log.warning("cache.unavailable", model=decoder.folder.name, reason=str(error))
    if weight_set is None:
        session = open_session(decoder.path, settings, max_model_len=max_model_len)
        return OpenedDecoder(session, decoder.io)
    with tempfile.TemporaryDirectory(prefix="provider-weights-") as folder:
        path = _rewrite(decoder, Path(folder), weight_set)
        return OpenedDecoder(open_session(path, settings), read_rewritten(decoder, path))


def cache_folder(decoder: DecoderFile, settings: OnnxRuntimeSettings) -> Path:
    """Where a model's entries are: in its folder, or in one of its own in a shared folder."""
    if settings.cache_dir is None:
        return decoder.folder / CACHE_FOLDER
    return settings.cache_dir / make_key({"path": str(decoder.path.resolve())})


def _wants_cache(decoder: DecoderFile, settings: OnnxRuntimeSettings) -> bool:
    if settings.provider != "cpu" or settings.cache is not None:
        return settings.provider == "cpu" and bool(settings.cache)
    return _num_bytes((decoder.path, *decoder.data_files)) >= MIN_CACHED_BYTES


def _open_cached(
    decoder: DecoderFile, settings: OnnxRuntimeSettings, weight_set: WeightSet | None
) -> OpenedDecoder:
    """Open an entry, made if it is missing or not what was written.

    Raises:
        OSError: None can be made.
    """
    cache = GraphCache(cache_folder(decoder, settings))
    key = make_key(
        {
            "code": [hash_file(path) for path in CODE],
            "onnxruntime": ort.__version__,
            "processor": read_processor_features(),
            "files": fingerprint_source((decoder.path, *decoder.data_files)),
            "logits": decoder.io.logits.name,
            "weights": asdict(weight_set) if weight_set else None,
        }
    )
    try:
        if path := cache.find(key):
            return _open_found(decoder, settings, cache, key, path)
    except (InvalidEntry, ConfigurationError) as error:
        log.warning("cache.rebuilt", model=decoder.folder.name, reason=str(error))

    def make(folder: Path) -> None:
        # With onnx, whose import takes longer than a start from the cache.
        from provider_onnxruntime.optimise.saved_model import align_weights  # noqa: PLC0415

        rewritten = folder / "rewritten"
        rewritten.mkdir()
        path = _rewrite(decoder, rewritten, weight_set)
        try:
            session = open_session(path, settings, save_as=folder / GRAPH)
            align_weights(folder / GRAPH)
            expected = probe(session, read_rewritten(decoder, path))
            opened = _open_entry(decoder, settings, folder / GRAPH)
            if not np.array_equal(probe(opened.session, opened.io), expected, equal_nan=True):
                raise OSError("what was saved gives other logits than the session that saved it")
            if weight_set is not None and weight_set.precision == "int8":
                _add_mixed(opened, settings, folder)
        except ConfigurationError as error:
            # The disk may be full, which the runtime does not always notice. If it is the model,
            # opening it without a cache says so.
            raise OSError(str(error)) from error
        shutil.rmtree(rewritten)

    def check(graph: Path) -> None:
        try:
            _open_entry(decoder, settings, graph)
        except ConfigurationError as error:
            raise InvalidEntry(str(error)) from error

    path = cache.build(key, make, check)
    try:
        return _open_entry(decoder, settings, path)
    except ConfigurationError as error:
        raise OSError(str(error)) from error


def _open_found(
    decoder: DecoderFile, settings: OnnxRuntimeSettings, cache: GraphCache, key: str, path: Path
) -> OpenedDecoder:
    """Open an entry while its weights are compared, which is over sooner."""
    if not settings.verify_cache:
        return _open_entry(decoder, settings, path)
    with ThreadPoolExecutor(1) as beside:
        comparison = beside.submit(cache.compare, key)
        opened = _open_entry(decoder, settings, path)
        comparison.result()
    return opened


def _open_entry(decoder: DecoderFile, settings: OnnxRuntimeSettings, path: Path) -> OpenedDecoder:
    io = read_rewritten(decoder, path)
    mixed = path.with_name(MIXED)
    session = open_session(path, settings, is_optimised=True)
    return OpenedDecoder(session, io, mixed if mixed.exists() else None)


def open_mixed(path: Path, settings: OnnxRuntimeSettings) -> ort.InferenceSession:
    """Load an entry's graph for mixed calls.

    Raises:
        ConfigurationError: The file is malformed or unsafe, or is no model that runs here.
    """
    check_rewritten(path)
    return open_session(path, settings, is_optimised=True)


def _add_mixed(opened: OpenedDecoder, settings: OnnxRuntimeSettings, folder: Path) -> None:
    """Write the decoder for mixed calls, if one can be made and gives the same bits."""
    from provider_onnxruntime.optimise.mixed_graph import write_mixed_graph  # noqa: PLC0415

    path = folder / MIXED
    if write_mixed_graph(folder / GRAPH, path, opened.io):
        try:
            if mixes_exactly(opened.session, open_mixed(path, settings), opened.io):
                return
            reason = "other bits than calls apart"
        except ConfigurationError as error:
            reason = str(error)
        log.warning("mixed.unavailable", reason=reason)
        path.unlink()


def _rewrite(decoder: DecoderFile, folder: Path, weight_set: WeightSet | None) -> Path:
    # It needs the package onnx, whose import takes longer than a start from the cache.
    from provider_onnxruntime.optimise.rewrite import rewrite  # noqa: PLC0415

    return rewrite(decoder.path, folder / decoder.path.name, decoder.io.logits.name, weight_set)


def _num_bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)
