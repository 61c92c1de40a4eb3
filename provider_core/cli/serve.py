"""`provider serve`."""

import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, cast

import typer


def serve(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR_OR_URI", help="Model folder or URI; may be repeated."),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="Plugin that loads the models that name none.")
    ] = None,
    build: Annotated[
        bool, typer.Option("--build", help="Build engines that are missing before serving.")
    ] = False,
    platform: Annotated[
        str | None, typer.Option(help="Where this runs, by name; see docs/deploy.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind; 0 picks a free one.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration file; default: ./provider.toml.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder for keys and caches.")] = None,
) -> None:
    """Serve models over HTTP until told to stop; without any, the built-in one.

    Options win over PROVIDER_* variables, those over the configuration file.
    """
    import time

    _import_structlog()
    from provider_core.lifecycle import Lifecycle, process_started_s
    from provider_core.settings import load_settings

    lifecycle = Lifecycle(started_s=process_started_s())
    lifecycle.add_phase("import", time.monotonic() - lifecycle.started_s)
    options = {
        "model": model or None,
        "backend": backend,
        "build": build or None,
        "platform": platform,
        "host": host,
        "port": port,
        "config": config,
        "data_dir": data_dir,
    }
    with lifecycle.phase("settings"):
        given = {name: value for name, value in options.items() if value is not None}
        read_settings = partial(load_settings, **given)
        settings = read_settings()
    with lifecycle.phase("import"):  # after the settings, so that a wrong one is said at once
        from provider_core.server.process import run
    raise typer.Exit(run(settings, lifecycle, read_settings))


def _import_structlog() -> None:
    """Import structlog as it is without rich, of which no log line has any use.

    It takes rich for tracebacks wherever it finds it, and a tenth of the imports' time.
    """
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = cast("ModuleType", None)  # the import system's sign for "not there"
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
