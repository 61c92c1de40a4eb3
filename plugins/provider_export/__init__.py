"""Hugging Face folder to ONNX decoder: the command `provider export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from provider_core import ConfigurationError, hookimpl


@hookimpl
def register_commands(app: typer.Typer) -> None:
    """Add `provider export`."""
    app.command("export")(run_export)


def run_export(
    source: Annotated[Path, typer.Argument(help="A Hugging Face folder with safetensors.")],
    out: Annotated[Path, typer.Argument(help="The decoder folder to write.")],
    target: Annotated[
        Literal["cpu", "tensorrt"], typer.Option(help="Whose operators the graph uses.")
    ] = "cpu",
    precision: Annotated[
        Literal["fp32", "fp16"], typer.Option(help="How matrices are stored.")
    ] = "fp32",
    weights: Annotated[
        Path | None, typer.Option(help="Folder of the safetensors, if not SOURCE.")
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option(min=1, help="Positions to build for, if fewer than config.json's.")
    ] = None,
) -> None:
    """Turn a Hugging Face folder into an ONNX decoder folder."""
    try:
        from provider_export.decoder_config import read_config
        from provider_export.export import export_decoder
    except ModuleNotFoundError as error:
        raise typer.BadParameter(f"{error.name} is missing: install the extra [export]") from error
    try:
        model_file = export_decoder(
            source,
            out,
            target=target,
            precision=precision,
            weights=weights,
            max_model_len=max_model_len,
        )
        remarks = read_config(source, max_model_len).remarks
    except ConfigurationError as error:
        raise typer.BadParameter(error.message) from error
    for remark in remarks:
        typer.echo(remark)
    typer.echo(f"{model_file}: {model_file.stat().st_size / 1e6:.1f} MB")
