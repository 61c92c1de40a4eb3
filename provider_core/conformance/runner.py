"""Find the model, run the checks one after the other, and keep what each of them found."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import aiohttp

from provider_core.conformance.check import Check
from provider_core.conformance.endpoint import Endpoint
from provider_core.conformance.probe import Plan, Probe
from provider_core.conformance.subject import Subject
from provider_core.conformance.verdict import Failed, Status, Verdict
from provider_core.errors import ProviderError

_CONNECT_S = 10.0


class Unreachable(ProviderError):
    """Nothing can be checked: nobody answers, or no model is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one check found.

    Attributes:
        detail: What was measured, or why it did not pass.
        curl: A command that repeats its last request; empty if it sent none.
        duration_s: How long the check took.
    """

    check: Check
    status: Status
    detail: str
    curl: str = ""
    duration_s: float = 0.0


@dataclass(slots=True)
class Report:
    """All results of one run.

    Attributes:
        started: ISO 8601, UTC.
    """

    endpoint: Endpoint
    subject: Subject
    started: str
    results: list[Result] = field(default_factory=list)

    def of(self, check_id: str) -> list[Result]:
        """The results of one check, or of a whole group named `group.*`."""
        group = check_id.removesuffix(".*")
        if group == check_id:
            return [result for result in self.results if result.check.id == check_id]
        return [result for result in self.results if result.check.group == group]

    def count(self, status: Status) -> int:
        """How many checks ended so."""
        return sum(result.status == status for result in self.results)

    @property
    def has_failed(self) -> bool:
        """Whether any check failed."""
        return self.count("fail") > 0


async def run_checks(
    endpoint: Endpoint,
    checks: Sequence[Check],
    *,
    model: str | None = None,
    plan: Plan | None = None,
    pages: Mapping[str, str] | None = None,
    quick: bool = False,
    on_result: Callable[[Result], None] = lambda _: None,
) -> Report:
    """Run checks against a provider.

    Args:
        endpoint: The provider.
        checks: In order.
        model: The id of the model; `None` takes the first one listed.
        plan: How much to ask.
        pages: Addresses of public pages, by their key in `provider.toml`.
        quick: Leave out the slow ones.
        on_result: Told of each result as it comes.

    Raises:
        Unreachable: Nobody answers there, or lists a model.
    """
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
    connector = aiohttp.TCPConnector(limit=0)
    plan = plan or Plan()
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        subject = await find_subject(endpoint, session, model)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        report = Report(endpoint, subject, started)
        first = Probe(
            endpoint=endpoint, session=session, subject=subject, plan=plan, pages=pages or {}
        )
        for check in checks:
            if quick and check.is_slow:
                detail = "left out by --quick"
                result = Result(check=check, status="not_applicable", detail=detail)
            else:
                result = await run_check(check, replace(first, last=None))
            report.results.append(result)
            on_result(result)
    return report


async def run_check(check: Check, probe: Probe) -> Result:
    """Run one check; whatever it meets is its result."""
    began_s = perf_counter()
    status: Status = "pass"
    try:
        async with asyncio.timeout(probe.plan.timeout_s):
            detail = await check.run(probe)
    except Verdict as verdict:
        status, detail = verdict.status, verdict.reason
    except TimeoutError:
        status, detail = "fail", f"no end within {probe.plan.timeout_s:g} s"
    except (aiohttp.ClientError, OSError) as error:
        status, detail = "fail", f"the connection broke: {type(error).__name__} {error}"
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        # What a server answers has any shape; a check reads it as if it had the right one.
        what = f"{type(error).__name__}: {error}"
        status, detail = "fail", f"the answer has not the expected form ({what})"
    curl = "" if probe.last is None else probe.last.curl()
    duration_s = perf_counter() - began_s
    return Result(check=check, status=status, detail=detail, curl=curl, duration_s=duration_s)


async def find_subject(
    endpoint: Endpoint, session: aiohttp.ClientSession, model: str | None
) -> Subject:
    """Read every list of models that the provider has.

    Raises:
        Unreachable: Nobody answers, or no model is named and none is listed.
    """
    probe = Probe(endpoint=endpoint, session=session, subject=Subject(model=model or ""))
    try:
        listed = await _items(probe, f"{endpoint.base}/models")
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Unreachable(f"nobody answers at {endpoint.base}/models: {error}") from error
    if model is None:
        if not listed:
            raise Unreachable(
                f"{endpoint.base}/models lists no model to this key; name one with --model"
            )
        model = str(listed[0].get("id"))
    others = [endpoint.root + endpoint.monitor, f"{endpoint.openrouter}/models"]
    monitored, mirrored = [await _items(probe, url) for url in others]
    return Subject(
        model=model,
        listed=_named(listed, model),
        monitored=_named(monitored, model),
        mirrored=_named(mirrored, model),
    )


async def _items(probe: Probe, url: str) -> list[dict[str, Any]]:
    """The items of a list; none if it is not there."""
    reply = await probe.get(url)
    if reply.status != 200:
        return []
    try:
        items = reply.json()["data"]
    except (Failed, LookupError, TypeError):
        return []
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _named(items: Collection[dict[str, Any]], model: str) -> dict[str, Any]:
    return next((item for item in items if item.get("id") == model), {})
