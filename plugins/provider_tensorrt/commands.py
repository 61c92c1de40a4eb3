"""`provider build-engine`: engines are built when a model is deployed, never for a request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from provider_core import ConfigurationError
from provider_tensorrt.artefact import DEFAULT_MAX_NUM_SEQS, DEFAULT_MAX_PREFILL_TOKENS
from provider_tensorrt.library import INSTALL_COMMAND, LibraryName, find_library

if TYPE_CHECKING:  # imported by the command itself, so that help is quick and needs no onnx
    from rich.console import Console

    from provider_tensorrt.building import BuiltEngine

NUM_LINES = 10
EXIT_INTERRUPTED = 130  # 128 and the number of SIGINT, as shells count


def build_engine(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A folder made by export.")],
    *,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(help="Of a GPU that will run it, such as 8.9; may be repeated."),
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option(min=1, help="Positions of each sequence; default: the model's.")
    ] = None,
    max_num_seqs: Annotated[
        int, typer.Option(min=1, help="Sequences decoded in one step.")
    ] = DEFAULT_MAX_NUM_SEQS,
    max_prefill_tokens: Annotated[
        int, typer.Option(min=3, help="Prompt tokens of one step.")
    ] = DEFAULT_MAX_PREFILL_TOKENS,
    library: Annotated[
        LibraryName | None, typer.Option(help="Which, where both are installed.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where engines go; default: MODEL/engines.")
    ] = None,
) -> None:
    """Build TensorRT engines of an exported decoder; those that are there already are kept."""
    try:
        from rich.console import Console

        from provider_tensorrt.building import build_engines
    except ModuleNotFoundError as error:
        raise typer.BadParameter(f"{error.name} is missing; run: {INSTALL_COMMAND}") from error
    cancelled = threading.Event()
    try:
        with (
            _show_progress(Console(stderr=True)) as on_progress,
            ThreadPoolExecutor(1) as builder,  # this thread must stay free to be interrupted
        ):
            building = builder.submit(
                build_engines,
                model,
                find_library(library),
                compute_capabilities=compute_capability or (),
                max_model_len=max_model_len,
                max_num_seqs=max_num_seqs,
                max_prefill_tokens=max_prefill_tokens,
                folder=out,
                on_progress=on_progress,
                cancelled=cancelled,
            )
            try:
                built = building.result()
            except KeyboardInterrupt:
                cancelled.set()
                raise
    except ConfigurationError as error:
        raise typer.BadParameter(error.message) from error
    except KeyboardInterrupt:
        typer.echo("stopped; engines that were finished are kept", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    for engine in built:
        typer.echo(_describe(engine))


def _describe(engine: BuiltEngine) -> str:
    record = engine.record
    took = "was there" if engine.build_s is None else f"{engine.build_s:.1f} s"
    return (
        f"{engine.path}: compute capability {record.key.compute_capability}, "
        f"{record.num_bytes / 1e6:.1f} MB, {took}, sha256 {record.sha256}"
    )


@contextmanager
def _show_progress(console: Console) -> Iterator[Callable[[str, float], object]]:
    """A bar on a terminal, a line for each tenth elsewhere."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    if not console.is_terminal:
        yield _Lines(console).advance
        return
    columns = (
        TextColumn("building {task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("engines", total=1)
        yield lambda capability, part: progress.update(
            task, completed=part, description=f"for {capability}"
        )


class _Lines:
    """Prints a line whenever another tenth is done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tenths = 0

    def advance(self, capability: str, part: float) -> None:
        """Take a part of all the work."""
        tenths = int(part * NUM_LINES)
        if tenths > self._tenths:
            self._tenths = tenths
            self._console.print(f"building for {capability}: {part:.0%}")
