"""Decoders on TensorRT and TensorRT for RTX: the plugin `tensorrt`."""

from collections.abc import Callable
from pathlib import Path

import typer

from provider_core import ConfigurationError, Finding, ModelRunner, ModelSpec, hookimpl

NAME = "tensorrt"


@hookimpl
def load_model(
    model: ModelSpec, model_dir: Path, report: Callable[[str], None]
) -> ModelRunner | None:
    """Load a folder for which this backend is named.

    Engines that lie beside a model are code of whoever put them there, so that they alone are no
    reason to open them.
    """
    if model.backend != NAME:
        return None
    from provider_tensorrt.loading import load_runner

    return load_runner(model, model_dir, report)


@hookimpl
def register_commands(app: typer.Typer) -> None:
    """Add `provider build-engine`."""
    from provider_tensorrt.commands import build_engine

    app.command("build-engine")(build_engine)


@hookimpl
def diagnose() -> list[Finding]:
    """Say which library is installed, and which GPU it would run on."""
    from provider_tensorrt.library import (
        choose_install_command,
        find_capability,
        find_library,
        is_installed,
        list_capabilities,
        list_missing_packages,
    )

    capability = find_capability()
    remedy = choose_install_command(capability)
    if not is_installed():
        return [Finding(name=NAME, status="missing", detail="not installed", remedy=remedy)]
    try:
        library = find_library()
    except ConfigurationError as error:
        return [Finding(name=NAME, status="failed", detail=error.message)]
    named = f"{library.name} {library.version}"
    if missing := list_missing_packages():
        detail = f"{named}, without {' and '.join(missing)}"
        return [Finding(name=NAME, status="failed", detail=detail, remedy=remedy)]
    if capability is None:
        detail = f"{named} builds engines here; to run them there is no GPU, or no driver for it"
        return [Finding(name=NAME, status="missing", detail=detail)]
    if library.builds_anywhere and capability not in list_capabilities(library):
        detail = f"{named} builds engines here, but none for this GPU, which has {capability}"
        return [Finding(name=NAME, status="missing", detail=detail, remedy=remedy)]
    detail = f"{named}, a GPU of compute capability {capability}"
    return [Finding(name=NAME, status="ok", detail=detail)]
