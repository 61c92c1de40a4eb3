"""What the commands of `provider usage` read: files, times, and whose they are."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from provider_core.billing.audit.books import Books, Period, Source
from provider_core.billing.audit.sources import read_source
from provider_core.billing.audit.totals import Grouping
from provider_core.errors import ConfigurationError
from provider_core.settings import load_settings

GROUPS: dict[str, Grouping] = {
    "day": "day",
    "key": "api_key_id",
    "account": "account_id",
    "model": "model",
}

_T = TypeVar("_T")
_TIME = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d{1,6})?Z)?", re.ASCII)


def read_books(paths: Sequence[Path] | None) -> Books:
    """Read files, or else this provider's journal.

    Raises:
        ConfigurationError: One cannot be read, or has no usage line.
    """
    books = Books()
    for path in paths or [default_journal()]:
        is_journal = path.is_dir() or path.suffix == ".jnl"
        read_into(books, "journal" if is_journal else "log", [path])
    return books


def read_into(
    books: Books, source: Source, paths: Sequence[Path] | None, *, may_be_empty: bool = False
) -> None:
    """Read files of one source.

    Args:
        books: Take what they say.
        source: What they are.
        paths: Files, and folders of journals.
        may_be_empty: A file without a usage line is no mistake.

    Raises:
        ConfigurationError: One cannot be read, or has no usage line.
    """
    for path in paths or ():
        num_said = read_file(partial(books.read, source, read_source(path)))
        if not (num_said or may_be_empty):
            raise ConfigurationError(f"{path} has no usage line")


def read_access(books: Books, paths: Sequence[Path] | None) -> None:
    """Read the access lines of some files.

    Raises:
        ConfigurationError: One cannot be read, or has no access line.
    """
    for path in paths or ():
        if not read_file(partial(books.read_access, read_source(path))):
            raise ConfigurationError(f"{path} has no access line")


def read_file(read: Callable[[], _T]) -> _T:
    """Read something.

    Raises:
        ConfigurationError: It cannot be read; says which file and why.
    """
    try:
        return read()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot be read: {error}") from error


def default_journal() -> Path:
    """Where this provider keeps its journal."""
    settings = load_settings()
    return settings.journal.dir or settings.data_dir / "journal"


def provider_names() -> tuple[str, str]:
    """The provider's short name, and the one for people."""
    provider = load_settings().provider
    return provider.slug, provider.name


def parse_period(since: str, until: str) -> Period:
    """Read times as `--since` and `--until` give them.

    Raises:
        ConfigurationError: One is neither a day nor a time in UTC.
    """
    for option, text in (("--since", since), ("--until", until)):
        if text and not _is_time(text):
            raise ConfigurationError(
                f"{option} is {text}; write a day such as 2026-11-20, or a time such as "
                "2026-11-20T08:00:00Z"
            )
    return Period(since.removesuffix("Z"), until.removesuffix("Z"))


def parse_month(month: str) -> Period:
    """Read a month.

    Raises:
        ConfigurationError: It is none.
    """
    if not re.fullmatch(r"\d{4}-\d\d", month, re.ASCII) or not _is_time(f"{month}-01"):
        raise ConfigurationError(f"--month is {month}; write it as 2026-11")
    year, number = int(month[:4]), int(month[5:])
    following = f"{year + number // 12:04d}-{number % 12 + 1:02d}"
    return Period(f"{month}-01", f"{following}-01")


def _is_time(text: str) -> bool:
    if not _TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
