"""`provider pull`: a model here before a server needs it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # help is quick
    from provider_core.sources.remote import FetchProgress

_STDERR = 2  # the folder's name alone is on stdout


def pull(
    uri: Annotated[str, typer.Argument(metavar="URI", help="s3://, hf://, https:// or a folder.")],
    *,
    config: Annotated[
        Path | None, typer.Option(help="Configuration file; default: ./provider.toml.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder for keys and caches.")] = None,
) -> None:
    """Fetch a model to where `provider serve` looks for it, and say in which folder it is.

    What is there already is not fetched again; what was cut off goes on.
    """
    from provider_core import hookspecs
    from provider_core.catalog import check_source
    from provider_core.errors import ConfigurationError
    from provider_core.observability.logs import start_logging
    from provider_core.plugins import make_plugin_manager
    from provider_core.settings import load_settings

    check_source(uri)
    options = {"config": config, "data_dir": data_dir}
    settings = load_settings(**{name: value for name, value in options.items() if value})
    plugins = make_plugin_manager(settings)
    writer = start_logging(settings.logging, fd=_STDERR)
    try:
        with show_progress(uri.partition("?")[0]) as progress:
            folder = plugins.first(
                hookspecs.fetch_model,
                uri=uri,
                cache_dir=settings.data_dir / "models",
                progress=progress,
            )
    finally:
        writer.close()
    if folder is None:
        raise ConfigurationError(f"no plugin can fetch model source {uri!r}")
    typer.echo(folder)


@contextmanager
def show_progress(source: str) -> Iterator["FetchProgress"]:
    """A bar on a terminal, lines elsewhere."""
    import sys

    from provider_core.sources.progress import LoggedProgress

    if not sys.stderr.isatty():
        yield LoggedProgress(source=source)
        return
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    shown = Progress(*Progress.get_default_columns()[:2], *columns, console=Console(stderr=True))
    with shown as bars:
        bar = bars.add_task(source, total=None)

        class Bar:
            """The fetch on the terminal."""

            def advance(self, num_bytes: int, total_bytes: int) -> None:
                """Move it."""
                bars.update(bar, completed=num_bytes, total=total_bytes)

            def small_files_ready(self, folder: Path) -> None:
                """Nobody waits for them."""

        yield Bar()
