"""`provider bench`: load on any OpenAI-compatible server, or on two in turns."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from provider_core.cli.output_options import OUTPUT, HtmlFile, JsonFile
from provider_core.errors import ConfigurationError

LOAD, REQUESTS, SECOND = "Load", "Requests", "The second server"


class Prompts(StrEnum):
    """What prompts are made of."""

    IDS = "ids"
    TEXT = "text"


def bench(
    url: Annotated[str, typer.Argument(help="The server, its /v1, or the endpoint itself.")],
    *,
    key: Annotated[str | None, typer.Option(envvar="PROVIDER_API_KEY", help="API key.")] = None,
    model: Annotated[str | None, typer.Option(help="Default: the first one listed.")] = None,
    path: Annotated[
        str | None,
        typer.Option(
            help="/v1/completions (default), /v1/chat/completions, or llama-server's /completion."
        ),
    ] = None,
    pid: Annotated[
        int | None, typer.Option(help="The server's process; default: who listens, if local.")
    ] = None,
    name: Annotated[str, typer.Option(help="Label of the server.")] = "",
    concurrency: Annotated[
        str | None,
        typer.Option(
            help="Clients of a closed loop, e.g. 1,8,32; default 1.", rich_help_panel=LOAD
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            help="Requests per second of an open loop with Poisson arrivals, e.g. 1,2,4.",
            rich_help_panel=LOAD,
        ),
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(
            min=1, help="Requests of a round; default: 4 per client.", rich_help_panel=LOAD
        ),
    ] = None,
    duration: Annotated[
        float, typer.Option(min=0.1, help="Seconds of an open loop.", rich_help_panel=LOAD)
    ] = 30.0,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Rounds of each point; default 1, compared 3.", rich_help_panel=LOAD
        ),
    ] = None,
    warmup: Annotated[
        int,
        typer.Option(min=0, help="Requests before each point, not measured.", rich_help_panel=LOAD),
    ] = 2,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds for a whole answer.", rich_help_panel=LOAD)
    ] = 600.0,
    prompt_tokens: Annotated[
        str | None,
        typer.Option(
            help="Lengths to sweep, e.g. 128,512 or 128±32; default 128.", rich_help_panel=REQUESTS
        ),
    ] = None,
    output_tokens: Annotated[
        str, typer.Option(help="Tokens to ask for, e.g. 64 or 64±16.", rich_help_panel=REQUESTS)
    ] = "64",
    shared_prefix_tokens: Annotated[
        int,
        typer.Option(
            min=0, help="Of each prompt, how many all have in common.", rich_help_panel=REQUESTS
        ),
    ] = 0,
    prompts: Annotated[
        Prompts | None,
        typer.Option(
            help="Random token ids, or words (always in a chat).", rich_help_panel=REQUESTS
        ),
    ] = None,
    vocabulary: Annotated[
        str, typer.Option(help="Range of random token ids.", rich_help_panel=REQUESTS)
    ] = "100-2000",
    trace: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines of requests, replayed at their times or by --concurrency.",
            rich_help_panel=REQUESTS,
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option(min=0, help="0 is greedy.", rich_help_panel=REQUESTS)
    ] = 0.0,
    ignore_eos: Annotated[
        bool, typer.Option(help="Go on past the model's own end.", rich_help_panel=REQUESTS)
    ] = True,
    body: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="Further fields of every request; null takes one out.",
            rich_help_panel=REQUESTS,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of prompts and arrivals.", rich_help_panel=REQUESTS)
    ] = 0,
    compare: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Measure it in turns.", rich_help_panel=SECOND),
    ] = None,
    compare_key: Annotated[
        str | None, typer.Option(help="Its API key; default: none.", rich_help_panel=SECOND)
    ] = None,
    compare_model: Annotated[
        str | None, typer.Option(help="Its model.", rich_help_panel=SECOND)
    ] = None,
    compare_path: Annotated[
        str | None, typer.Option(help="Its endpoint.", rich_help_panel=SECOND)
    ] = None,
    compare_pid: Annotated[
        int | None, typer.Option(help="Its process.", rich_help_panel=SECOND)
    ] = None,
    compare_name: Annotated[str, typer.Option(help="Its label.", rich_help_panel=SECOND)] = "",
    compare_body: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Its further fields.", rich_help_panel=SECOND),
    ] = None,
    max_noise: Annotated[
        float,
        typer.Option(
            min=0,
            help="Processors' worth of others' work that still counts as quiet.",
            rich_help_panel=OUTPUT,
        ),
    ] = 0.1,
    allow_noise: Annotated[
        bool,
        typer.Option(
            "--allow-noise", help="Compare on a machine that was not quiet.", rich_help_panel=OUTPUT
        ),
    ] = False,
    slo: Annotated[
        str | None,
        typer.Option(help="For goodput, e.g. ttft=500ms,itl=100ms.", rich_help_panel=OUTPUT),
    ] = None,
    json_file: JsonFile = None,
    html: HtmlFile = None,
    svg: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write each chart as a file of its own.", rich_help_panel=OUTPUT
        ),
    ] = None,
) -> None:
    """Measure throughput and latency of a server from outside, and of two against each other.

    Exits with 2 if it cannot be measured or answered nothing, and with 3 if two servers were to be
    compared and the machine was not quiet.
    """
    from provider_core.cli.bench_session import BenchOptions, ServerOptions, run_bench
    from provider_core.cli.outputs import Outputs

    servers = [ServerOptions(url, name, key, model, path, pid, body)]
    second = {
        "--compare-key": compare_key,
        "--compare-model": compare_model,
        "--compare-path": compare_path,
        "--compare-pid": compare_pid,
        "--compare-name": compare_name,
        "--compare-body": compare_body,
    }
    if compare is None:
        if given := [option for option, value in second.items() if value]:
            raise ConfigurationError(f"{given[0]} is of a second server, and --compare names none")
    else:
        servers.append(
            ServerOptions(
                compare,
                compare_name,
                compare_key,
                compare_model,
                compare_path,
                compare_pid,
                compare_body,
            )
        )
    options = BenchOptions(
        servers=servers,
        concurrency=concurrency,
        rate=rate,
        num_requests=requests,
        duration_s=duration,
        rounds=rounds,
        num_warmup=warmup,
        timeout_s=timeout,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        shared_prefix_tokens=shared_prefix_tokens,
        prompts=None if prompts is None else prompts.value,
        vocabulary=vocabulary,
        trace=trace,
        temperature=temperature,
        ignore_eos=ignore_eos,
        seed=seed,
        max_noise=max_noise,
        allow_noise=allow_noise,
        slo=slo,
        outputs=Outputs(json_file=json_file, html_file=html, svg_dir=svg),
    )
    raise typer.Exit(run_bench(options))
