"""Engines for several GPUs, one after the other; those that are finished are kept."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from provider_core import ConfigurationError
from provider_tensorrt.artefact import FOLDER, EngineKey, EngineLimits, EngineRecord
from provider_tensorrt.builder import build_engine, check_capability
from provider_tensorrt.builder_feedback import OnProgress
from provider_tensorrt.decoder_graph import ExportedDecoder, read_decoder
from provider_tensorrt.engine_folder import EngineFolder, name_kind, open_folder, write_whole
from provider_tensorrt.library import TensorRt, find_capability

OnEngineProgress = Callable[[str, float], object]
"""Called with a compute capability, and the part of all the work that is done."""


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """An engine that is there now.

    Attributes:
        build_s: How long it took; `None` if it was there before.
    """

    path: Path
    record: EngineRecord
    build_s: float | None


def build_engines(
    model_dir: Path,
    library: TensorRt,
    *,
    max_num_seqs: int,
    max_prefill_tokens: int,
    max_model_len: int | None = None,
    compute_capabilities: Sequence[str] = (),
    folder: Path | None = None,
    or_larger: bool = False,
    on_progress: OnEngineProgress = lambda _capability, _part: None,
    cancelled: threading.Event | None = None,
) -> list[BuiltEngine]:
    """Build what is missing. Waits while another process builds in the same folder.

    Args:
        model_dir: Holds an exported decoder.
        library: That builds, and will run them.
        max_num_seqs: Rows of a decode.
        max_prefill_tokens: Tokens of a prefill.
        max_model_len: Positions of each cache; `None` is what the decoder is made for.
        compute_capabilities: Of the GPUs that will run them; none means the one that is here.
        folder: Where engines go, if not beside the model.
        or_larger: Be content with an engine that holds more than is asked for.
        on_progress: Told how far it is.
        cancelled: Stops soon after it is set.

    Raises:
        ConfigurationError: An engine cannot be built, or not be written. Those before it are kept.
        Cancelled: `cancelled` was set. As before.
    """
    decoder = read_decoder(model_dir)
    if max_model_len is None:
        max_model_len = decoder.max_positions
    if max_model_len is None:
        raise ConfigurationError(f"{model_dir} does not say its length; give --max-model-len")
    limits = EngineLimits(
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_prefill_tokens=min(max_prefill_tokens, max_model_len),
    )
    wanted = list(dict.fromkeys(compute_capabilities or [_capability_here()]))
    for capability in wanted:
        check_capability(library, capability)
    folder = folder or model_dir / FOLDER
    built = []
    with open_folder(folder, decoder) as engines:
        for place, capability in enumerate(wanted):
            key = EngineKey(
                library=library.name,
                version=library.version,
                compute_capability=capability,
                limits=limits,
            )
            progress = _Share(on_progress, capability, place, len(wanted))
            record, build_s = engines.find(key, or_larger=or_larger), None
            if record is None:
                started_s = time.monotonic()
                record = _build(library, decoder, key, engines, progress.advance, cancelled)
                build_s = time.monotonic() - started_s
            progress.advance(1)
            built.append(BuiltEngine(folder / record.file, record, build_s))
    return built


def _build(
    library: TensorRt,
    decoder: ExportedDecoder,
    key: EngineKey,
    engines: EngineFolder,
    on_progress: OnProgress,
    cancelled: threading.Event | None,
) -> EngineRecord:
    """Build an engine and write it."""
    times_file = engines.path / f"{name_kind(key)}.timing"
    engine, times = build_engine(
        library,
        decoder,
        key.limits,
        key.compute_capability,
        on_progress=on_progress,
        cancelled=cancelled,
        timing_cache=times_file.read_bytes() if times_file.exists() else b"",
    )
    try:
        record = engines.add(key, engine)
        if times:
            write_whole(times_file, times)
    except OSError as error:
        message = f"{engines.path} cannot be written: {error.strerror}"
        raise ConfigurationError(message) from error
    return record


@dataclass(frozen=True, slots=True)
class _Share:
    """One engine's share of all the work."""

    on_progress: OnEngineProgress
    capability: str
    place: int
    num_engines: int

    def advance(self, part: float) -> None:
        """Take the part of this engine that is done."""
        self.on_progress(self.capability, (self.place + part) / self.num_engines)


def _capability_here() -> str:
    capability = find_capability()
    if capability is None:
        raise ConfigurationError(
            "there is no GPU here whose engine could be built; name one: --compute-capability 8.9"
        )
    return capability
