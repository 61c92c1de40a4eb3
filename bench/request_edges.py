"""What a request costs on the event loop before its first token and after its last.

Run `python -m bench.request_edges`. Each row is one call, in microseconds of this thread's CPU
time: authenticating, counting by every kind of limit, naming, opening and settling the account with
its usage line, the access line, and the metrics. Lines go to a pipe that another thread empties, as
in a server.
"""

import os
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

from multidict import CIMultiDict

from provider_core.access import ApiKeyPlugin, KeyStore
from provider_core.access.api_key import ApiKey
from provider_core.access.database import AccessDatabase
from provider_core.access.pepper import Pepper
from provider_core.access.rate_limits import RateLimiter
from provider_core.billing import ProcessFacts, make_generation_id, make_request_id, make_ulid
from provider_core.billing.settlement import Ledger, Settlement
from provider_core.interfaces import Engine, RunnerInfo
from provider_core.observability import log_access, start_logging
from provider_core.observability.metrics import Metrics
from provider_core.prices import Prices
from provider_core.quotas import RateLimits
from provider_core.settings import LoggingSettings
from provider_core.types import ModelSpec, Principal, Usage, UsageRecord

CALLS = 2000
ROUNDS = 7
MODEL = ModelSpec(
    id="acme/model",
    source="/models/acme",
    prices=Prices(prompt=Decimal("0.00000005"), completion=Decimal("0.00000008")),
)
RUNNER = RunnerInfo(
    backend="scripted",
    backend_version="1",
    device="cpu",
    max_num_seqs=32,
    max_model_len=4096,
    vocab_size=32000,
)
USAGE = Usage(prompt_tokens=812, completion_tokens=120, generated_tokens=120)
LIMITS = RateLimits(
    requests_per_minute=10**9,
    requests_per_day=10**12,
    tokens_per_minute=10**12,
    concurrent_requests=1,
)
NO_ENGINES: Mapping[str, Engine] = {}


def begin(ledger: Ledger) -> Settlement:
    """One generation from admission to its first token."""
    settlement = ledger.open(
        generation_id=make_generation_id(),
        request_id=make_request_id(),
        principal=Principal(api_key_id="key_1"),
        model=MODEL,
        runner_info=RUNNER,
        endpoint="chat.completions",
        stream=True,
        received_wall_s=time.time(),
        received_mono_s=time.monotonic(),
        user_id="somebody",
    )
    settlement.mark_first_token()
    return settlement


def account(ledger: Ledger) -> UsageRecord:
    """One generation from admission to its usage line."""
    return begin(ledger).settle(status="ok", usage=USAGE, finish_reason="stop")


def count(limiter: RateLimiter) -> None:
    """One request at both gates, its headers, and its end."""
    ticket = limiter.open("req-1", "key_1", RateLimits())
    if ticket is not None:
        at_once(limiter.enter(ticket))
        limiter.at_model(ticket, "req-1", "key_1", MODEL.id, MODEL.rate_limits)
        at_once(limiter.admit(ticket, USAGE.prompt_tokens, max_tokens=1024))
        limiter.status(ticket)
        limiter.leave(ticket, USAGE)


def log(record: UsageRecord) -> None:
    """One access line."""
    log_access(
        method="POST",
        path="/v1/chat/completions",
        http_status=200,
        request_id=record.request_id,
        latency_ms=12.5,
        num_sent_bytes=4096,
        api_key_id="key_1",
        stream=True,
        usage_event=record.event,
    )


def measure(call: Callable[[], object]) -> float:
    """Microseconds of one call: the lowest of several rounds."""
    rounds = []
    for _ in range(ROUNDS):
        start_s = time.thread_time()
        for _ in range(CALLS):
            call()
        rounds.append((time.thread_time() - start_s) / CALLS)
    return min(rounds) * 1e6


def drain(fd: int) -> None:
    """Read a pipe to its end."""
    while os.read(fd, 65536):
        continue


def at_once(answer: Awaitable[object] | None) -> None:
    """Take an answer that waits for nothing."""
    if answer is not None:
        with suppress(StopIteration):
            answer.__await__().send(None)


def main() -> None:
    """Measure and print."""
    read_end, write_end = os.pipe()
    writer = start_logging(LoggingSettings(format="json"), write_end)
    os.close(write_end)
    reader = threading.Thread(target=drain, args=(read_end,))
    reader.start()
    process = ProcessFacts(boot_id=make_ulid(), service_version="0", instance_id="bench")
    ledger = Ledger(writer, time, process)
    metrics = Metrics(lambda: NO_ENGINES)
    folder = Path("bench-of-no-file")  # a key of the settings opens none
    store = KeyStore(AccessDatabase(folder), Pepper(folder))
    store.replace_fixed([("sk-of-the-settings", ApiKey(id="key_fixed"))])
    headers = CIMultiDict({"Authorization": "Bearer sk-of-the-settings"})
    keys = ApiKeyPlugin(store)
    record = account(ledger)
    limiter = RateLimiter(LIMITS)
    rows: dict[str, Callable[[], object]] = {
        "authenticate": lambda: at_once(keys.authenticate(headers, {})),
        "count by limits": lambda: count(limiter),
        "make an id": make_generation_id,
        "open and settle": lambda: account(ledger),
        "access line": lambda: log(record),
        "metrics": lambda: metrics.observe(record),
    }
    total_us = 0.0
    for name, call in rows.items():
        cost_us = measure(call)
        total_us += cost_us
        print(f"{name:<16} {cost_us:6.1f} us")
    print(f"{'all':<16} {total_us:6.1f} us")
    writer.close()
    reader.join()
    os.close(read_end)


if __name__ == "__main__":
    main()
