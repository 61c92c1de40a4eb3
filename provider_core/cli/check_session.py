"""What `provider check` does: run the checks, show them as they come, write what was asked for."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from provider_core.cli.check import EXIT_FAILED, EXIT_UNREACHABLE
from provider_core.conformance.checks import GROUPS, select_checks
from provider_core.conformance.documents import to_json, to_markdown
from provider_core.conformance.endpoint import make_endpoint
from provider_core.conformance.facts import Facts
from provider_core.conformance.probe import Plan
from provider_core.conformance.runner import Report, Result, Unreachable, run_checks
from provider_core.errors import ConfigurationError
from provider_core.settings import Settings, load_settings

_STYLES = {
    "pass": "[green]pass[/]",
    "fail": "[bold red]FAIL[/]",
    "warn": "[yellow]warn[/]",
    "not_applicable": "[dim]n/a[/] ",
}
_TITLE_WIDTH = 58


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """The command line of `provider check`."""

    url: str
    key: str | None = None
    model: str | None = None
    config: Path | None = None
    monitor: str = "/openrouter/models"
    only: tuple[str, ...] = ()
    is_quick: bool = False
    plan: Plan = field(default_factory=Plan)
    markdown: Path | None = None
    json_file: Path | None = None


def run_check_session(options: CheckOptions, console: Console | None = None) -> int:
    """Check, print, write files.

    Args:
        options: The command line.
        console: Where to print; default: stdout.

    Returns:
        The exit code: 0, 1 if a check failed, 2 if nobody answers.

    Raises:
        ConfigurationError: An option is wrong.
    """
    known = [group.name for group in GROUPS]
    if strange := [name for name in options.only if name not in known]:
        raise ConfigurationError(f"--only is {strange[0]!r}; groups are {', '.join(known)}")
    endpoint = make_endpoint(options.url, key=options.key, monitor=options.monitor)
    settings = load_settings() if options.config is None else load_settings(config=options.config)
    console = console or Console(highlight=False)
    shown = _Shown(console)
    try:
        report = asyncio.run(
            run_checks(
                endpoint,
                select_checks(options.only),
                model=options.model,
                plan=options.plan,
                pages=pages_of(settings),
                quick=options.is_quick,
                on_result=shown.show,
            )
        )
    except Unreachable as error:
        typer.echo(f"provider: {error.message}", err=True)
        return EXIT_UNREACHABLE
    facts = facts_of(settings, report.subject.model)
    _sum_up(console, report)
    if options.markdown is not None:
        options.markdown.write_text(to_markdown(report, facts), encoding="utf-8")
    if options.json_file is not None:
        options.json_file.write_bytes(to_json(report, facts))
    return EXIT_FAILED if report.has_failed else 0


def facts_of(settings: Settings, model: str) -> Facts:
    """What `provider.toml` says of the provider and of one model, defaults left out."""
    tables = [each for each in settings.models if model in (each.id, *each.aliases)]
    return Facts(
        provider=settings.provider.model_dump(exclude_unset=True),
        model=tables[0].model_dump(exclude_unset=True) if tables else {},
        source=None if settings.config is None else str(settings.config),
    )


def pages_of(settings: Settings) -> dict[str, str]:
    """The addresses that the provider's table names, by their keys."""
    values = settings.provider.model_dump(exclude_unset=True)
    return {name: str(value) for name, value in values.items() if name.endswith("_url") and value}


class _Shown:
    """Prints results as they come, under the name of their group."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._group = ""

    def show(self, result: Result) -> None:
        """Print one."""
        check = result.check
        if check.group != self._group:
            self._group = check.group
            self._console.print(f"\n[bold]{check.group}[/]")
        title = f"{check.title:{_TITLE_WIDTH}}"
        self._console.print(
            f"  {_STYLES[result.status]}  {escape(title)}  [dim]{escape(result.detail)}[/]",
            soft_wrap=True,
        )
        if result.status == "fail" and result.curl:
            self._console.print(f"        {escape(result.curl)}", soft_wrap=True)


def _sum_up(console: Console, report: Report) -> None:
    counts = {name: report.count(name) for name in ("pass", "fail", "warn", "not_applicable")}
    console.print(
        f"\n{escape(report.subject.model)} at {escape(report.endpoint.base)}: "
        f"{counts['pass']} passed, {counts['fail']} failed, {counts['warn']} warnings, "
        f"{counts['not_applicable']} not applicable",
        soft_wrap=True,
    )
