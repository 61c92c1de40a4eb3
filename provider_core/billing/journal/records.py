"""What a journal's frames say.

====  =============================================================  ==========================
rec   content                                                        on disk before going on
====  =============================================================  ==========================
`H`   first of a file: `version`, `boot_id`, `last_seq`              yes
`O`   a generation was admitted: all that its bill needs             no, written some ms later
`P`   progress of a long one: `generation_id` and counts             no
`F`   a usage event, `seq` in its `body`                             yes
`D`   what became of an answer that was billed first: `seq`          no
`E`   lines that the log has taken: their `seqs`                     no
`X`   the boot ended and owes nothing                                yes
====  =============================================================  ==========================
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from provider_core.billing.events import Delivery, GenerationFacts
from provider_core.billing.journal.frames import Damage, decode_frame, split_frames
from provider_core.billing.money import price_list
from provider_core.interfaces import RunnerInfo
from provider_core.json_lines import encode_line
from provider_core.prices import Prices
from provider_core.types import ModelSpec, Principal, Usage

FORMAT_VERSION = 1
Record = dict[str, Any]  # a JSON object that we wrote ourselves

_COUNTS = (
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "generated_tokens",
)


def header(*, boot_id: str, service_version: str, last_seq: int, recovery: int) -> bytes:
    """Begin a file.

    Args:
        boot_id: Whose it is.
        service_version: Of the program that writes it.
        last_seq: Of the boot so far.
        recovery: 0 for the boot's own files, then counts the starts that took care of it.
    """
    return _encode(
        {
            "rec": "H",
            "version": FORMAT_VERSION,
            "boot_id": boot_id,
            "service_version": service_version,
            "last_seq": last_seq,
            "recovery": recovery,
        }
    )


def opened(facts: GenerationFacts, admitted_s: float) -> bytes:
    """Note an admission with all that a bill needs of it."""
    principal, model, runner = facts.principal, facts.model, facts.runner_info
    return _encode(
        {
            "rec": "O",
            "generation_id": facts.generation_id,
            "request_id": facts.request_id,
            "client_request_id": facts.client_request_id,
            "api_key_id": principal.api_key_id,
            "account_id": principal.account_id,
            "user_id": facts.user_id,
            "app_title": facts.app_title,
            "app_referer": facts.app_referer,
            "session_id": facts.session_id,
            "idempotency_key_sha256": facts.idempotency_key_sha256,
            "endpoint": facts.endpoint,
            "stream": facts.stream,
            "n": facts.n,
            "image_count": facts.image_count,
            "model": model.id,
            "backend": runner.backend,
            "backend_version": runner.backend_version,
            "quantization": model.quantization or runner.precision,
            "prices": dict(facts.prices.strings),
            "price_version": facts.prices.version,
            "received_wall_s": facts.received_wall_s,
            "admitted_s": admitted_s,
        }
    )


def facts_of(record: Record) -> GenerationFacts:
    """Undo `opened` as far as a bill shows it."""
    prices: dict[str, Any] = {name: Decimal(price) for name, price in record["prices"].items()}
    return GenerationFacts(
        generation_id=record["generation_id"],
        request_id=record["request_id"],
        client_request_id=record["client_request_id"],
        principal=Principal(api_key_id=record["api_key_id"], account_id=record["account_id"]),
        user_id=record["user_id"],
        app_title=record["app_title"],
        app_referer=record["app_referer"],
        session_id=record.get("session_id"),  # not in files of older versions, like the next
        idempotency_key_sha256=record.get("idempotency_key_sha256"),
        endpoint=record["endpoint"],
        stream=record["stream"],
        n=record["n"],
        image_count=record.get("image_count", 0),
        model=ModelSpec(id=record["model"], source="", quantization=record["quantization"]),
        runner_info=RunnerInfo(
            backend=record["backend"],
            backend_version=record["backend_version"],
            device="",
            max_num_seqs=0,
            max_model_len=0,
            vocab_size=0,
        ),
        prices=price_list(Prices(**prices, version=record["price_version"])),
        received_wall_s=record["received_wall_s"],
    )


def progress(generation_id: str, usage: Usage) -> bytes:
    """Note what a long generation has used so far."""
    counts = {name: getattr(usage, name) for name in _COUNTS}
    return _encode({"rec": "P", "generation_id": generation_id, **counts})


def usage_of(record: Record) -> Usage:
    """Undo `progress`."""
    return Usage(**{name: record[name] for name in _COUNTS})


def final(line: bytes) -> bytes:
    """Wrap a usage line, newline included."""
    return b'{"rec":"F","body":%b}' % line[:-1]


def delivered(seq: int, delivery: Delivery) -> bytes:
    """Note whether the answer of a bill left."""
    return _encode({"rec": "D", "seq": seq, "delivery": delivery})


def emitted(seqs: Iterable[int]) -> bytes:
    """Note that the log has lines."""
    return _encode({"rec": "E", "seqs": list(seqs)})


def closed() -> bytes:
    """End the boot's last file."""
    return _encode({"rec": "X"})


def decode(payload: bytes) -> Record | None:
    """Read a payload whose checksum was right; `None` if it is no record.

    Escapes of lone surrogates, which earlier versions wrote of some headers, become `?`.
    """
    try:
        try:
            record = orjson.loads(payload)
        except orjson.JSONDecodeError:
            text = json.dumps(json.loads(payload), ensure_ascii=False)
            record = orjson.loads(text.encode(errors="replace"))
    except ValueError:
        return None
    return record if isinstance(record, dict) and "rec" in record else None


def read_records(path: Path) -> Iterator[Record | Damage]:
    """Read a file that nobody writes any more: records and what lies between them.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        yield from split_frames(file, decode_line)


def decode_line(line: bytes) -> Record | None:
    """Read one line of a file, newline included; `None` if it is damaged."""
    payload = decode_frame(line)
    return None if payload is None else decode(payload)


def _encode(fields: Mapping[str, object]) -> bytes:
    return encode_line(fields)[:-1]
