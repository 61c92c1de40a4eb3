"""`provider plan`: replicas, latency and cost of a traffic, simulated before it is paid for."""

from pathlib import Path
from typing import Annotated

import typer

from provider_core.cli.output_options import HtmlFile, JsonFile

TRAFFIC, REPLICAS, MONEY = "Traffic", "Replicas", "Money and limits"


def plan(
    *,
    rates: Annotated[
        Path, typer.Option(metavar="FILE", help="What provider bench --json wrote of one replica.")
    ],
    server: Annotated[
        str | None, typer.Option(help="Its label there; default: the first one.")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON lines of requests, as of provider bench, or a server's log.",
            rich_help_panel=TRAFFIC,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Requests per second, at the times of a Poisson process.", rich_help_panel=TRAFFIC
        ),
    ] = None,
    prompt_tokens: Annotated[
        str | None,
        typer.Option(help="Of each request, e.g. 512 or 512±256.", rich_help_panel=TRAFFIC),
    ] = None,
    output_tokens: Annotated[
        str | None,
        typer.Option(help="Of each answer, e.g. 200 or 200±100.", rich_help_panel=TRAFFIC),
    ] = None,
    duration_s: Annotated[
        float, typer.Option(min=1, help="Of a traffic with --rate.", rich_help_panel=TRAFFIC)
    ] = 3600.0,
    seed: Annotated[
        int, typer.Option(min=0, help="Of arrivals and lengths.", rich_help_panel=TRAFFIC)
    ] = 0,
    min_replicas: Annotated[
        int,
        typer.Option(min=0, help="Always ready; 0 scales to zero.", rich_help_panel=REPLICAS),
    ] = 0,
    max_replicas: Annotated[
        int, typer.Option(min=1, help="Never more.", rich_help_panel=REPLICAS)
    ] = 100,
    cold_start_s: Annotated[
        float,
        typer.Option(min=0, help="Until a started replica serves.", rich_help_panel=REPLICAS),
    ],
    idle_timeout_s: Annotated[
        float,
        typer.Option(
            min=0,
            help="How long fewer are wanted until some stop.",
            rich_help_panel=REPLICAS,
        ),
    ] = 300.0,
    target_ongoing: Annotated[
        float | None,
        typer.Option(
            help="Requests for each replica that is wanted; default: --slots.",
            rich_help_panel=REPLICAS,
        ),
    ] = None,
    max_ongoing: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Requests a replica is given; default: 3 times --slots.",
            rich_help_panel=REPLICAS,
        ),
    ] = None,
    slots: Annotated[
        int, typer.Option(min=1, help="max_num_seqs of the model.", rich_help_panel=REPLICAS)
    ] = 32,
    chunk_tokens: Annotated[
        int,
        typer.Option(min=16, help="engine.prefill_chunk_tokens.", rich_help_panel=REPLICAS),
    ] = 512,
    target_itl_s: Annotated[
        float, typer.Option(min=0.001, help="engine.target_itl_s.", rich_help_panel=REPLICAS)
    ] = 0.15,
    price_per_hour: Annotated[
        float, typer.Option(min=0, help="USD of one replica.", rich_help_panel=MONEY)
    ],
    prompt_price_ratio: Annotated[
        float,
        typer.Option(
            min=0,
            help="Price of a prompt token, as a part of an output token's.",
            rich_help_panel=MONEY,
        ),
    ] = 0.25,
    ttft_p95: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Find the fewest --min-replicas that keep it.",
            rich_help_panel=MONEY,
        ),
    ] = None,
    platform: Annotated[
        str | None,
        typer.Option(help="Counts what its deadline would cut.", rich_help_panel=MONEY),
    ] = None,
    json_file: JsonFile = None,
    html: HtmlFile = None,
) -> None:
    """Predict replicas, throughput, time to first token and cost of a traffic, by simulation.

    Exits with 1 if --ttft-p95 cannot be kept.
    """
    from provider_core.cli.plan_session import PlanOptions, run_plan

    options = PlanOptions(
        rates=rates,
        server=server,
        trace=trace,
        rate=rate,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        duration_s=duration_s,
        seed=seed,
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        cold_start_s=cold_start_s,
        idle_timeout_s=idle_timeout_s,
        target_ongoing=target_ongoing,
        max_ongoing=max_ongoing,
        slots=slots,
        chunk_tokens=chunk_tokens,
        target_itl_s=target_itl_s,
        price_per_hour=price_per_hour,
        prompt_price_ratio=prompt_price_ratio,
        ttft_p95=ttft_p95,
        platform=platform,
        json_file=json_file,
        html_file=html,
    )
    raise typer.Exit(run_plan(options))
