"""Hugging Face folder to ONNX decoder: the command `provider export`."""

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from provider_core import ConfigurationError, hookimpl


def _read_path(text: str) -> Path:
    if not text:
        raise typer.BadParameter("a folder's name is empty")
    return Path(text)


@hookimpl
def register_commands(app: typer.Typer) -> None:
    """Add `provider export`."""
    app.command("export")(run_export)


def run_export(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[SOURCE] OUT",
            help="A Hugging Face folder with safetensors, unless there is --shape; "
            "and the decoder folder to write.",
            parser=_read_path,
        ),
    ],
    *,
    target: Annotated[
        Literal["cpu", "tensorrt"], typer.Option(help="Whose operators the graph uses.")
    ] = "cpu",
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "fp8", "int8", "int4", "hybrid"],
        typer.Option(help="How weights are stored; hybrid is int8 that may be run as int4 too."),
    ] = "fp32",
    activations: Annotated[
        Literal["fp32", "fp16", "bf16"],
        typer.Option(help="What layers compute in, for --target tensorrt."),
    ] = "fp32",
    block_size: Annotated[
        int | None, typer.Option(help="Inputs that share a scale in int4; 32 unless said.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Folder of the safetensors, if not SOURCE.")
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option(min=1, help="Positions to build for, if fewer than config.json's.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="A published shape in SOURCE's place, such as qwen2.5-0.5b.")
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="Give the shape random weights; it speaks noise.")
    ] = False,
    layers: Annotated[
        int | None, typer.Option(min=1, help="Layers of the shape, if not its own number.")
    ] = None,
) -> None:
    """Turn a Hugging Face folder into an ONNX decoder folder."""
    try:
        from rich.console import Console

        from provider_export.export import (
            DEFAULT_BLOCK_SIZE,
            count_weights,
            export_decoder,
            find_remarks,
        )
        from provider_export.interruption import interrupted_by_sigterm
        from provider_export.progress import show_progress
        from provider_export.random_source import RandomShape
    except ModuleNotFoundError as error:
        raise typer.BadParameter(f"{error.name} is missing: install the extra [export]") from error
    if len(paths) != (1 if shape else 2):
        raise typer.BadParameter("give SOURCE and OUT, or --shape, --random and OUT")
    if random != bool(shape) or (layers and not shape):
        raise typer.BadParameter("--shape and --random go together, and --layers with them")
    if block_size is not None and precision != "int4":
        raise typer.BadParameter("--block-size is for --precision int4")
    block_size = DEFAULT_BLOCK_SIZE if block_size is None else block_size
    out, started = paths[-1], time.monotonic()
    try:
        source = RandomShape(shape, layers) if shape else paths[0]
        num_weights = count_weights(source)
        with (
            interrupted_by_sigterm(),
            show_progress(Console(stderr=True), num_weights) as advance,
        ):
            export_decoder(
                source,
                out,
                target=target,
                precision=precision,
                activations=activations,
                block_size=block_size,
                weights=weights,
                max_model_len=max_model_len,
                on_weights=advance,
            )
    except ConfigurationError as error:
        raise typer.BadParameter(error.message) from error
    except OSError as error:  # the disk is full, say
        raise typer.BadParameter(f"{out} cannot be written: {error.strerror}") from error
    for remark in find_remarks(source, out, weights):
        typer.echo(remark)
    stored = f"int4 in blocks of {block_size}" if precision == "int4" else precision
    num_bytes = sum(path.stat().st_size for path in out.glob("model.onnx*"))
    typer.echo(
        f"{out}: {num_bytes / 1e6:.1f} MB, {num_weights / 1e6:.1f} million weights as {stored}, "
        f"{time.monotonic() - started:.1f} s"
    )
