"""What the OpenAI dialect costs: microseconds to read a request and to write a chunk.

Run `python -m bench.dialect_cost`. Each figure is the lowest of several rounds, since anything else
the machine does only adds.
"""

import timeit
from collections.abc import Callable
from typing import Any

import orjson

from provider_core.dialects.json_body import parse_json_object
from provider_core.dialects.openai import (
    ChatStreamEncoder,
    make_decode_token,
    parse_chat,
)
from provider_core.dialects.sampling import to_sampling_params
from provider_core.settings import LimitSettings
from provider_core.text.events import TextDelta
from provider_core.types import TokenLogprobs

ROUNDS = 7
ROUND_S = 0.2

LIMITS = LimitSettings()
TYPICAL: dict[str, Any] = {
    "model": "example/model",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Tell me about the sea, please. " * 10},
    ],
    "stream": True,
    "stream_options": {"include_usage": True},
    "max_tokens": 256,
    "temperature": 0.7,
    "top_p": 0.9,
    "stop": ["\n\n"],
    "seed": 1,
}
LONG = TYPICAL | {"messages": [{"role": "user", "content": "And then? " * 50}] * 200}


def cost_us(run: Callable[[], object]) -> float:
    """Microseconds per call, at best."""
    timer = timeit.Timer(run)
    number = max(1, int(ROUND_S / (timer.timeit(5) / 5)))
    return min(timer.repeat(ROUNDS, number)) / number * 1e6


def read(body: bytes) -> Callable[[], object]:
    """All the dialect does before a request runs."""

    def run() -> object:
        parsed = parse_chat(parse_json_object(body), LIMITS)
        return to_sampling_params(
            parsed.sampling,
            num_prompt_tokens=50,
            max_model_len=4096,
            max_output_tokens=None,
            vocab_size=8192,
        )

    return run


def write(delta: TextDelta, *, with_logprobs: bool = False) -> Callable[[], object]:
    """One chunk of a stream."""
    encoder = ChatStreamEncoder(
        generation_id="gen-0123456789abcdef",
        created=1_700_000_000,
        model="example/model",
        fingerprint="fp_0123456789ab",
        include_usage=True,
        decode_token=make_decode_token(lambda _: b" sea") if with_logprobs else None,
    )
    encode = encoder.encode
    return lambda: encode(delta)


def main() -> None:
    """Print the table."""
    top = tuple((token_id, -float(token_id)) for token_id in range(5))
    deep = b'{"a":' + b"[" * 60 + b'"[",' * 200_000 + b"0" + b"]" * 60 + b"}"
    cases: dict[str, Callable[[], object]] = {
        "read a typical chat request": read(orjson.dumps(TYPICAL)),
        "read a chat of 200 messages": read(orjson.dumps(LONG)),
        f"read a hostile body of {len(deep) >> 10} KiB": lambda: parse_json_object(deep),
        "write a delta": write(TextDelta(0, " sea")),
        "write a delta beyond ASCII": write(TextDelta(0, " mère")),
        "write a delta with 5 log probabilities": write(
            TextDelta(0, " sea", (TokenLogprobs(0, -0.1, top),)), with_logprobs=True
        ),
    }
    for name, run in cases.items():
        print(f"{name:42} {cost_us(run):10.2f} us")


if __name__ == "__main__":
    main()
