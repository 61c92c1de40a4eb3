"""`provider check`: a marketplace's onboarding checklist, run against a live endpoint."""

from pathlib import Path
from typing import Annotated

import typer

from provider_core.errors import ConfigurationError

EXIT_FAILED = 1
EXIT_UNREACHABLE = 2

RUN = "What is checked"
OUTPUT = "What comes of it"


def check(
    url: Annotated[str, typer.Argument(help="The provider, e.g. https://api.example.com/v1.")],
    *,
    key: Annotated[
        str | None, typer.Option(envvar="PROVIDER_API_KEY", help="An API key of the provider.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model to check; default: the first one listed.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            envvar="PROVIDER_CONFIG",
            metavar="FILE",
            help="The provider's own facts; default: provider.toml, if it is here.",
        ),
    ] = None,
    monitor: Annotated[
        str, typer.Option(metavar="PATH", help="Of the monitor's document.", rich_help_panel=RUN)
    ] = "/openrouter/models",
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="Only this group; repeatable.", rich_help_panel=RUN),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave the slow checks out.", rich_help_panel=RUN)
    ] = False,
    parallel: Annotated[
        int,
        typer.Option(min=1, help="Requests at a time, of the load checks.", rich_help_panel=RUN),
    ] = 8,
    burst: Annotated[
        int,
        typer.Option(
            min=1, help="Requests at once that should provoke a 429.", rich_help_panel=RUN
        ),
    ] = 200,
    timeout: Annotated[
        float, typer.Option(min=1, help="Longest check, in seconds.", rich_help_panel=RUN)
    ] = 300,
    markdown: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the checklists, filled in.", rich_help_panel=OUTPUT
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="Write everything as JSON.", rich_help_panel=OUTPUT
        ),
    ] = None,
) -> None:
    """Check a provider from outside, as a marketplace's reviewers would.

    Works with any OpenAI-compatible endpoint. Exits with 1 if a check failed and with 2 if nobody
    answers there.
    """
    from provider_core.cli.check_session import CheckOptions, run_check_session
    from provider_core.conformance.probe import Plan

    for file in (markdown, json_file):
        if file is not None and not file.absolute().parent.is_dir():
            raise ConfigurationError(f"{file.parent} is no folder to write {file.name} to")
    options = CheckOptions(
        url=url,
        key=key,
        model=model,
        config=config,
        monitor=monitor,
        only=tuple(only or ()),
        is_quick=quick,
        plan=Plan(num_parallel=parallel, num_burst=burst, timeout_s=timeout),
        markdown=markdown,
        json_file=json_file,
    )
    raise typer.Exit(run_check_session(options))
