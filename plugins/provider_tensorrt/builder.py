"""From an exported decoder to a serialized engine, with TensorRT's parser and builder.

The network is strongly typed: every layer computes in the dtypes that the graph says, so precision
is decided by whoever exports. An engine has two optimisation profiles, `PROFILES`: a prefill is one
row of several tokens, a decode one token of several rows.

TensorRT for RTX builds without a GPU, for the compute capability it is told; it writes code that is
compiled further where it runs. The data-centre library measures kernels on the GPU that is there,
builds for that one, and remembers the times in a timing cache.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from provider_core import ConfigurationError
from provider_core.decoder_io import DecoderIO, InputRole
from provider_tensorrt.artefact import EngineLimits
from provider_tensorrt.builder_feedback import OnProgress, make_log, make_monitor
from provider_tensorrt.candidate_graph import ALLOWED, INVERSE_TEMPERATURE, add_candidates
from provider_tensorrt.decoder_graph import WINDOW, ExportedDecoder, fit_decoder
from provider_tensorrt.library import TensorRt, find_capability, list_capabilities
from provider_tensorrt.shapes import MIN_LOGITS_ROWS, MIN_WINDOW, bitmask_bytes

PROFILES = ("prefill", "decode")
"""In the order of their indices in the engine."""

Range = tuple[int, int, int]
"""The least, the likeliest and the most."""

Shapes = Sequence[tuple[int, ...]]
"""The same of shapes."""


@dataclass(frozen=True, slots=True)
class ShapeProfile:
    """What inputs may look like in a step that the engine is optimised for.

    Attributes:
        shapes: By input.
        values: Of inputs that decide shapes.
    """

    shapes: Mapping[str, Shapes]
    values: Mapping[str, Range]


@dataclass(frozen=True, slots=True)
class ParsedDecoder:
    """A decoder as TensorRT's network, and what has to live as long; objects of the library."""

    messages: Any  # what `make_log` makes
    builder: Any  # trt.Builder
    network: Any  # trt.INetworkDefinition
    parser: Any  # trt.OnnxParser: holds the weights


class Cancelled(Exception):
    """The build was told to stop."""


def build_engine(
    library: TensorRt,
    decoder: ExportedDecoder,
    limits: EngineLimits,
    compute_capability: str,
    *,
    on_progress: OnProgress | None = None,
    cancelled: threading.Event | None = None,
    timing_cache: bytes = b"",
) -> tuple[memoryview, bytes]:
    """Build one engine. Takes from a second to tens of minutes.

    Args:
        library: That builds, and will run it.
        decoder: As exported.
        limits: What it is to hold.
        compute_capability: Of the GPU that will run it, such as `8.9`.
        on_progress: Told how far it is.
        cancelled: Stops the build soon after it is set.
        timing_cache: Of an earlier build, for a library that takes one.

    Returns:
        The engine, and the timing cache after it, which is empty where there is none.

    Raises:
        ConfigurationError: The library cannot build this graph, or not for that GPU.
        Cancelled: `cancelled` was set.
    """
    check_capability(library, compute_capability)
    trt, parsed = library.module, parse_decoder(library, decoder, limits)
    builder = parsed.builder
    config = builder.create_builder_config()
    for wanted in make_profiles(decoder.io, limits):
        config.add_optimization_profile(_fill_profile(wanted, builder))
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):  # all memory is ours, planned at load
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    stop = cancelled or threading.Event()
    config.progress_monitor = make_monitor(trt, on_progress, stop)
    cache = None
    if library.builds_anywhere:
        config.num_compute_capabilities = 1
        name = f"SM{compute_capability.replace('.', '')}"
        config.set_compute_capability(getattr(trt.ComputeCapability, name), 0)
    else:
        cache = attach_timing_cache(config, timing_cache)
    engine = builder.build_serialized_network(parsed.network, config)
    if engine is None:
        if stop.is_set():
            raise Cancelled
        reason = parsed.messages.last_error or "it does not say why"
        raise ConfigurationError(
            f"{library.name} cannot build an engine of {decoder.path}: {reason}"
        )
    return memoryview(engine), b"" if cache is None else bytes(cache.serialize())


def attach_timing_cache(
    config: Any,  # trt.IBuilderConfig
    content: bytes,
) -> Any:  # trt.ITimingCache
    """Let a build use earlier times, if they are of this GPU and library, and add its own to them.

    Args:
        config: Of the build.
        content: What an earlier build returned; empty if there was none.
    """
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def parse_decoder(
    library: TensorRt, decoder: ExportedDecoder, limits: EngineLimits
) -> ParsedDecoder:
    """Read a decoder into a network, which takes no longer than reading its weights.

    Args:
        library: That parses.
        decoder: As exported.
        limits: What the engine is to hold.

    Raises:
        ConfigurationError: The parser refuses it; says which node, and why.
    """
    trt = library.module
    model = fit_decoder(decoder, limits.max_model_len)
    add_candidates(model, decoder.io, limits.num_candidates)
    _let_attention_decompose(model)
    messages = make_log(trt)
    builder = trt.Builder(messages)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, messages)
    if parser.parse(model.SerializeToString(), str(decoder.path)):
        return ParsedDecoder(messages, builder, network, parser)
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    complaints = dict.fromkeys(
        f"node {error.node_name()!r} ({error.node_operator()}): {error.desc()}" for error in errors
    )
    raise ConfigurationError(
        f"TensorRT's parser refuses {decoder.path}: {'; '.join(complaints) or messages.last_error}"
    )


def check_capability(library: TensorRt, compute_capability: str) -> None:
    """Refuse a GPU that the library does not build for.

    Raises:
        ConfigurationError: Naming those that it does.
    """
    if library.builds_anywhere:
        known = list_capabilities(library)
        if compute_capability not in known:
            raise ConfigurationError(
                f"{library.name} {library.version} builds for compute capabilities "
                f"{', '.join(known)}, not {compute_capability}"
            )
        return
    here = find_capability()
    if here != compute_capability:
        gpu = "there is none" if here is None else f"the one here has {here}"
        raise ConfigurationError(
            f"{library.name} builds only on the GPU that will run the engine: {gpu}, "
            f"and {compute_capability} is asked for"
        )


def make_profiles(io: DecoderIO, limits: EngineLimits) -> list[ShapeProfile]:
    """What inputs may look like, for each of `PROFILES`."""
    length = limits.max_model_len
    most = min(limits.max_prefill_tokens, length)
    logits = min(max(limits.max_num_seqs, MIN_LOGITS_ROWS), most)  # that the runner has room for
    prefill = _make_profile(io, length, (1, 1, 1), (1, most, most), (1, 1, logits))
    rows = (1, limits.max_num_seqs, limits.max_num_seqs)
    return [prefill, _make_profile(io, length, rows, (1, 1, 1), (1, 1, 1))]


def _fill_profile(
    wanted: ShapeProfile,
    builder: Any,  # trt.Builder
) -> Any:  # trt.IOptimizationProfile
    profile = builder.create_optimization_profile()
    for name, shapes in wanted.shapes.items():
        profile.set_shape(name, *shapes)
    for name, values in wanted.values.items():
        profile.set_shape_input(name, *((value,) for value in values))
    return profile


def _make_profile(
    io: DecoderIO, length: int, rows: Range, tokens: Range, logits: Range
) -> ShapeProfile:
    """One profile, of as many rows, new tokens of each, and logits of each."""
    by_role: dict[InputRole, Shapes] = {
        "input_ids": [*zip(rows, tokens, strict=True)],
        "position_ids": [*zip(rows, tokens, strict=True)],
        "write_indices": [(n,) for n in rows],
    }
    least = min(MIN_WINDOW, length)
    shapes: dict[str, Shapes] = {
        WINDOW: [(least,), (max(least, length // 4),), (length,)],
        **{io.inputs[role].name: ranges for role, ranges in by_role.items()},
        ALLOWED: [(n, bitmask_bytes(io.vocab_size)) for n in rows],
        INVERSE_TEMPERATURE: [(n,) for n in rows],
    }
    for cache in io.caches:
        shapes[cache.past] = [(n, cache.num_heads, length, cache.head_dim) for n in rows]
    kept = io.inputs.get("num_logits_to_keep")
    return ShapeProfile(shapes, {kept.name: logits} if kept else {})


def _let_attention_decompose(model: onnx.ModelProto) -> None:
    """Let attention be made of other layers where no kernel has its dtype, as in float32.

    `TRT_decomposable` is an attribute of TensorRT's parser; it becomes `IAttention.decomposable`.
    """
    for node in model.graph.node:
        if node.op_type == "Attention":
            node.attribute.append(onnx.helper.make_attribute("TRT_decomposable", 1))
