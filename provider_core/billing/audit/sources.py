"""Where bills are found: journals, which have checksums, and logs, which have other lines, too."""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from provider_core.billing.journal import records
from provider_core.billing.journal.frames import Damage, read_frames
from provider_core.billing.journal.segment import segments_by_boot

ItemKind = Literal[
    "event",
    "admission",
    "heartbeat",
    "access",
    "open",
    "header",
    "delivery",
    "unreadable",
    "torn_tail",
]

_KINDS: dict[str, ItemKind] = {
    "usage.final": "event",
    "usage.adjustment": "event",
    "usage.open": "admission",
    "usage.heartbeat": "heartbeat",
    "request.access": "access",
}


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that a source says.

    Attributes:
        kind: A usage event, the line of an admission, a heartbeat, an access line; of a journal
            also its own note of an admission (`open`), the head of a file, word of a delivery; or
            what cannot be read, at the end of a file (the tail of a write that a crash cut) or
            amid it.
        where: File and line, counted from 1.
        fields: Parsed; empty of what cannot be read.
        line: As found, of lines whose `event` begins with `usage.`.
    """

    kind: ItemKind
    where: str
    fields: dict[str, Any]  # any JSON object
    line: bytes = b""


def read_source(path: Path) -> Iterator[Item]:
    """Read a journal's folder or one of its files, or else a log.

    Raises:
        OSError: It cannot be read.
    """
    if path.is_dir():
        for segments in segments_by_boot(path).values():
            for number in sorted(segments):
                yield from read_segment(segments[number])
    elif path.suffix == ".jnl":
        yield from read_segment(path)
    else:
        yield from read_log(path)


def read_log(path: Path) -> Iterator[Item]:
    """Read lines as they were written to standard output; of `.gz` files, what is in them.

    Raises:
        OSError: The file cannot be read, or is not compressed as its name says.
    """
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        try:
            yield from read_lines(file, str(path))
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise OSError(f"{path}: {error}") from error


def read_lines(lines: Iterable[bytes], name: str) -> Iterator[Item]:
    """Read the lines of a log.

    Args:
        lines: With their newlines; of any kind.
        name: Of where they are, before their number.
    """
    for number, line in enumerate(lines, 1):
        is_usage = b'"usage.' in line
        if is_usage or b'"request.access"' in line:
            where = f"{name}:{number}"
            try:
                fields = orjson.loads(line)
                orjson.dumps(fields)  # less deeply nested than may be read
            except (orjson.JSONDecodeError, orjson.JSONEncodeError):
                if is_usage:
                    yield Item("unreadable", where, {})
                continue
            event = fields.get("event") if isinstance(fields, dict) else None
            kind = _KINDS.get(event) if isinstance(event, str) else None
            if kind is not None:
                yield Item(kind, where, fields, line)


def read_segment(path: Path) -> Iterator[Item]:
    """Read one file of a journal, which may still be written.

    Raises:
        OSError: The file cannot be read.
    """
    boot_id = path.name.partition("-")[2].partition("-")[0]  # if its head is damaged
    number = 0
    for payload in read_frames(path):
        number += 1
        where = f"{path}:{number}"
        if isinstance(payload, Damage):
            yield Item("torn_tail" if payload.is_tail else "unreadable", where, {})
            number += payload.data.count(b"\n") - 1
            continue
        record = records.decode(payload)
        if record is None:
            yield Item("unreadable", where, {})
            continue
        match record["rec"]:
            case "F":
                line = payload[payload.index(b'"body":') + 7 : -1] + b"\n"
                yield Item("event", where, record["body"], line)
            case "H":
                boot_id = record["boot_id"]
                yield Item("header", where, record)
            case "O":
                yield Item("open", where, record)
            case "D":
                yield Item("delivery", where, {**record, "boot_id": boot_id})
