"""The part of docs/api.md that is made from the routes; `make docs` writes it anew."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from provider_core.access.keys import load_or_mint
from provider_core.lifecycle import Lifecycle
from provider_core.plugins import make_plugin_manager
from provider_core.server.app import Server
from provider_core.server.openapi import Route, documented_routes
from provider_core.settings import Settings, load_settings
from tests.architecture.source_files import ROOT
from tests.serving import MemorySink

PAGE = ROOT / "docs/api.md"
_PART = re.compile(r"(<!-- made by make docs -->\n)(.*)(<!-- end -->)", re.DOTALL)


def own_routes(settings: Settings) -> Iterator[Route]:
    """The routes of a server without any plugin; nothing of it runs."""
    store, _ = load_or_mint(settings.data_dir, None)
    plugins = make_plugin_manager(settings)
    server = Server(settings, plugins, MemorySink(), Lifecycle(), keys=store)
    yield from documented_routes(server.make_app())
    store.close()


def own_settings(data_dir: Path) -> Settings:
    """Those of a server that keeps nothing and has no plugin."""
    return load_settings(
        plugins=(), data_dir=data_dir, journal={"enabled": False}, ledger={"enabled": False}
    )


def table(routes: Iterable[Route]) -> str:
    """One row for each thing that can be done, with all paths at which it can."""
    rows: dict[tuple[str, str], list[str]] = {}
    for route in routes:
        rows.setdefault((route.method, route.operation.summary), []).append(f"`{route.path}`")
    lines = ["| method | path | |", "| --- | --- | --- |"]
    lines += [
        f"| {method} | {', '.join(paths)} | {summary} |"
        for (method, summary), paths in rows.items()
    ]
    return "\n".join(lines) + "\n"


def current() -> str:
    """The page as it should be."""
    with TemporaryDirectory() as data_dir:
        made = table(own_routes(own_settings(Path(data_dir))))
    page = PAGE.read_text(encoding="utf-8")
    return _PART.sub(lambda part: f"{part[1]}\n{made}\n{part[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(current(), encoding="utf-8")
