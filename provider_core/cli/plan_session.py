"""What `provider plan` does: from options to a simulation, a report, and what people read."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from provider_core.cli.outputs import Outputs
from provider_core.errors import ConfigurationError
from provider_core.loadtest.workload import Length
from provider_core.planning.rates import read_rates
from provider_core.planning.traffic import Arrival, poisson_traffic, read_traffic
from provider_core.platforms import platform_settings
from provider_core.settings import LimitSettings

try:
    from provider_core.planning.fitting import fit_costs
    from provider_core.planning.fleet import Scaling
    from provider_core.planning.forecast import Forecast, Terms, forecast
    from provider_core.planning.rehearsal import rehearse
    from provider_core.planning.report import PlanReport, notes, page, report_json, tables
    from provider_core.planning.search import fewest_replicas
except ModuleNotFoundError as error:  # simpy comes with an extra
    raise ConfigurationError(
        f"provider plan needs the package {error.name}: pip install 'provider-core[plan]'"
    ) from error

EXIT_NOT_KEPT = 1
QUEUE_FACTOR = 3
"""Of its slots, how many requests a server takes: those that run, and two times as many waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """The command line of `provider plan`; `ttft_p95` is in seconds."""

    rates: Path
    server: str | None = None
    trace: Path | None = None
    rate: float | None = None
    prompt_tokens: str | None = None
    output_tokens: str | None = None
    duration_s: float = 3600.0
    seed: int = 0
    min_replicas: int = 0
    max_replicas: int = 100
    cold_start_s: float
    idle_timeout_s: float = 300.0
    target_ongoing: float | None = None
    max_ongoing: int | None = None
    slots: int = 32
    chunk_tokens: int = 512
    target_itl_s: float = 0.15
    price_per_hour: float
    prompt_price_ratio: float = 0.25
    ttft_p95: float | None = None
    platform: str | None = None
    json_file: str | None = None
    html_file: Path | None = None

    @property
    def outputs(self) -> Outputs:
        """Where the plan goes."""
        return Outputs(json_file=self.json_file, html_file=self.html_file)


def run_plan(options: PlanOptions) -> int:
    """Simulate, print, write files.

    Returns:
        The exit code: 0, or 1 if no number of replicas keeps the latency.

    Raises:
        ConfigurationError: An option or a file is wrong.
    """
    _check(options)
    report = make_report(options)
    options.outputs.show(tables(report), notes(report))
    options.outputs.write(lambda: report_json(report), lambda: page(report))
    return 0 if report.search.is_met else EXIT_NOT_KEPT


def make_report(options: PlanOptions) -> PlanReport:
    """Everything but reading options and writing results.

    Raises:
        ConfigurationError: The rates or the traffic cannot be used.
    """
    rates = read_rates(options.rates, options.server)
    measured = fit_costs(
        rates.rounds,
        slots=options.slots,
        chunk_tokens=options.chunk_tokens,
        target_itl_s=options.target_itl_s,
    )
    spec, warnings = replace(measured, slots=options.slots), list(rates.warnings)
    if measured.slots > options.slots:
        warnings.append(f"The rates are of a server with more than --slots {options.slots}.")
    scaling = Scaling(
        min_replicas=options.min_replicas,
        max_replicas=options.max_replicas,
        target_ongoing=options.target_ongoing or options.slots,
        max_ongoing=options.max_ongoing or QUEUE_FACTOR * options.slots,
        cold_start_s=options.cold_start_s,
        idle_timeout_s=options.idle_timeout_s,
    )
    terms = Terms(
        price_per_hour=options.price_per_hour,
        prompt_price_ratio=options.prompt_price_ratio,
        request_timeout_s=_platform_timeout_s(options.platform),
    )
    arrivals, duration_s = _traffic(options)

    def simulate(min_replicas: int) -> Forecast:
        chosen = replace(scaling, min_replicas=min_replicas)
        return forecast(arrivals, spec, chosen, terms, duration_s=duration_s)

    limit_s = options.ttft_p95
    search = fewest_replicas(
        simulate,
        lambda found: limit_s is None or found.ttft.p95 <= limit_s,
        least=options.min_replicas,
        most=options.max_replicas,
    )
    return PlanReport(
        costs=spec.costs,
        rehearsals=rehearse(rates.rounds, measured),
        search=search,
        ttft_p95_s=limit_s,
        settings={
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(options).items()
        },
        warnings=warnings,
    )


def _traffic(options: PlanOptions) -> tuple[Sequence[Arrival], float]:
    """Who asks, and for how many seconds.

    Raises:
        ConfigurationError: The options do not say, or the trace cannot be used.
    """
    prompt = None if options.prompt_tokens is None else Length.parse(options.prompt_tokens)
    output = None if options.output_tokens is None else Length.parse(options.output_tokens)
    requests: Sequence[Arrival] = ()
    if options.trace is not None:
        trace = read_traffic(options.trace, output_tokens=output, seed=options.seed)
        requests = trace.arrivals
        if options.rate is None:
            if not trace.has_times:
                raise ConfigurationError(f"{options.trace} has no times; give a --rate")
            return requests, requests[-1].at_s
    if options.rate is None:
        raise ConfigurationError("nobody asks: give a --trace or a --rate")
    if not requests and (prompt is None or output is None):
        raise ConfigurationError("--rate needs --prompt-tokens and --output-tokens, or a --trace")
    drawn = poisson_traffic(
        rate=options.rate,
        duration_s=options.duration_s,
        requests=requests,
        prompt_tokens=prompt or Length(1),  # not drawn beside a trace
        output_tokens=output or Length(1),
        seed=options.seed,
    )
    return drawn, options.duration_s


def _platform_timeout_s(platform: str | None) -> float | None:
    """How long a request may take there, in seconds.

    Raises:
        ConfigurationError: Nobody brings a profile of the platform.
    """
    if platform is None:
        return None
    profile = platform_settings(platform, {})
    if not profile:
        raise ConfigurationError(f"there is no profile of platform {platform!r}")
    return LimitSettings(**profile.get("limits", {})).request_timeout_s


def _check(options: PlanOptions) -> None:
    """See that the options make sense before anything is simulated.

    Raises:
        ConfigurationError: One does not.
    """
    for name, value in asdict(options).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigurationError(f"--{name.replace('_', '-')} is {value}, not a finite number")
    for name in ("rate", "target_ongoing"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise ConfigurationError(f"--{name.replace('_', '-')} must be more than 0")
    if options.min_replicas > options.max_replicas:
        raise ConfigurationError("--min-replicas is more than --max-replicas")
    if options.trace is not None and options.prompt_tokens is not None:
        raise ConfigurationError("the prompts are those of --trace; leave out --prompt-tokens")
    options.outputs.check()
