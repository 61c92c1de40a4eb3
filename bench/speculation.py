"""What prompt-lookup speculation brings, end to end over HTTP, for one client.

``python -m bench.speculation`` serves the built-in model twice, with speculation and without, and
asks both the same in turns: to repeat what they are told, which quotes the prompt, and for stories,
which do not. Both must answer the same, greedily; the rate is of whole requests, prompt included.
"""

import argparse
import asyncio
import http.client
import json
import random
import statistics
from contextlib import ExitStack

from bench.load import stream_chat
from bench.processes import KEY, serve_provider

_WORDS = (
    "apple bread bridge camp castle cloud drum elephant feather fence forest garden hat ink jar"
    " kitten ladder lemon morning music nut ocean paper piano plane river rust skirt spoon street"
    " teacher tooth umbrella violin window"
)
WORDS = _WORDS.split()
ANIMALS = ("fox", "bear", "cat", "dog", "frog", "bird", "mouse", "duck")


def asks(kind: str, number: int) -> list[dict[str, object]]:
    """Greedy requests that bring answers of one kind."""
    rng = random.Random(kind)  # noqa: S311 - repeatable, not secret
    texts = []
    for i in range(number):
        if kind == "repeat":
            texts.append("Repeat after me: " + " ".join(rng.sample(WORDS, 12)))
        else:
            texts.append(f"Tell me a story about a {ANIMALS[i % len(ANIMALS)]}.")
    return [
        {
            "model": "starter",
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 256,
            "temperature": 0,
        }
        for text in texts
    ]


def answer(port: int, body: dict[str, object]) -> tuple[str, int]:
    """The whole answer, and how many tokens it has."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    reply = json.load(connection.getresponse())
    connection.close()
    return reply["choices"][0]["message"]["content"], reply["usage"]["completion_tokens"]


def round_s(port: int, bodies: list[dict[str, object]]) -> float:
    """Seconds for all requests, one after the other."""

    async def run() -> float:
        return sum([(await stream_chat("127.0.0.1", port, KEY, body)).total_s for body in bodies])

    return asyncio.run(run())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20, help="of each kind in one round")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        on, off = (
            stack.enter_context(serve_provider(PROVIDER_ENGINE__SPECULATION=setting))
            for setting in ("prompt_lookup", "off")
        )
        print("answers   tokens   same text   off tok/s    on tok/s   on / off, median (quartiles)")
        for kind in ("repeat", "story"):
            bodies = asks(kind, arguments.requests)
            answers = [(answer(on, body), answer(off, body)) for body in bodies]
            num_same = sum(a == b for a, b in answers)
            num_tokens = sum(b[1] for _, b in answers)
            round_s(on, bodies), round_s(off, bodies)  # warm
            times = [(round_s(on, bodies), round_s(off, bodies)) for _ in range(arguments.rounds)]
            on_s, off_s = (statistics.median(column) for column in zip(*times, strict=True))
            low, ratio, high = statistics.quantiles(b / a for a, b in times)
            print(
                f"{kind:8} {num_tokens / len(bodies):7.1f} {num_same:6}/{len(bodies):<4}"
                f" {num_tokens / off_s:11.0f} {num_tokens / on_s:11.0f}"
                f"   {ratio:.2f} ({low:.2f} to {high:.2f})"
            )


if __name__ == "__main__":
    main()
