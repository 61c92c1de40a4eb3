"""What text costs: microseconds per token of decoding and `Generation`, per prompt of the rest.

Run `python -m bench.text_cost`. Each figure is the lowest of several rounds, since anything else
the machine does only adds.
"""

import time
from collections.abc import Callable, Sequence

from tokenizers.decoders import DecodeStream

from provider_core.text.chat_template import FolderChatTemplate
from provider_core.text.generation import Event, Generation
from provider_core.text.output_reader import OutputFormat
from provider_core.text.reasoning import THINK
from provider_core.text.tool_parsers import hermes
from provider_core.types import EngineOutput, GenerationRequest, SamplingParams, TokenLogprobs
from tests.unit.text.scripted_engine import ScriptedEngine
from tests.unit.text.template_sources import CHATML, CHATML_CONTROL
from tests.unit.text.tokenizer_folders import byte_level, served

ROUNDS = 7
NUM_TOKENS = 20_000
PARSER = byte_level()
TOKENIZER = served(PARSER)
TEXT = "the quick brown fox jumps over the lazy dog, naïve café 你好 👩‍👩‍👧‍👦\n"


def best_us(run: Callable[[], Callable[[], object]], count: int) -> float:
    """Microseconds per item, at best of several rounds; `run` prepares and returns the work."""
    times = []
    for _ in range(ROUNDS):
        work = run()
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times) / count * 1e6


def token_ids() -> list[int]:
    """Tokens of mixed text."""
    ids = TOKENIZER.encode(TEXT, allow_special=False)
    return (ids * (NUM_TOKENS // len(ids) + 1))[:NUM_TOKENS]


def drive(step: Callable[[int], object], ids: Sequence[int]) -> Callable[[], object]:
    """Give each id to a step."""

    def work() -> None:
        for token_id in ids:
            step(token_id)

    return work


def decode_by_library(ids: Sequence[int]) -> Callable[[], object]:
    """The tokenizers library's own stream, for comparison."""
    stream = DecodeStream(skip_special_tokens=True)
    return drive(lambda token_id: stream.step(PARSER, token_id), ids)


def generate(
    outputs: Sequence[EngineOutput],
    stop: Sequence[str] = (),
    logprobs: int | None = None,
    output: OutputFormat | None = None,
) -> Callable[[], object]:
    """One choice through `Generation`, from the engine's callback to an empty `on_event`."""

    def on_event(event: Event) -> None:
        """Nothing: the dialect and the socket are measured elsewhere."""

    engine = ScriptedEngine()
    request = GenerationRequest(
        request_id="0",
        prompt_token_ids=(5,),
        sampling=SamplingParams(max_tokens=NUM_TOKENS, logprobs=logprobs),
    )
    Generation(engine, TOKENIZER, [request], stop=stop, output=output, on_event=on_event).start()

    def work() -> None:
        for step in outputs:
            engine.push("0", step)

    return work


def main() -> None:
    """Print the table."""
    ids = token_ids()
    plain = [EngineOutput((token_id,)) for token_id in ids]
    entry = TokenLogprobs(5, -1.0)
    listed = [EngineOutput((token_id,), logprobs=(entry,)) for token_id in ids]
    tools = OutputFormat(tool_parser=hermes.PARSER, reasoning=THINK)
    opening = '<tool_call>{"name": "f", "arguments": {"text": "'
    in_call = [
        EngineOutput(tuple(TOKENIZER.encode(opening, allow_special=False))),
        *[EngineOutput((token_id,)) for token_id in ids],
    ]
    template = FolderChatTemplate({"default": CHATML}, control_tokens=CHATML_CONTROL)
    messages = [
        {"role": "user", "content": "Tell me about the sea, please. " * 10},
        {"role": "assistant", "content": "It is large. " * 20},
    ] * 5
    long_text = TEXT * 1000

    def render() -> object:
        return [template.render(messages) for _ in range(20)]

    def encode() -> object:
        return [TOKENIZER.encode(TEXT, allow_special=False) for _ in range(100)]

    rows = [
        ("decoder step", best_us(lambda: drive(TOKENIZER.make_decoder().step, ids), len(ids))),
        ("the same by DecodeStream", best_us(lambda: decode_by_library(ids), len(ids))),
        ("Generation, plain", best_us(lambda: generate(plain), len(ids))),
        ("Generation, stop string", best_us(lambda: generate(plain, ["\n\nUser:"]), len(ids))),
        ("Generation, with tools", best_us(lambda: generate(plain, output=tools), len(ids))),
        ("Generation, arguments", best_us(lambda: generate(in_call, output=tools), len(ids))),
        ("Generation, log probabilities", best_us(lambda: generate(listed, (), 0), len(ids))),
        ("render ten messages", best_us(lambda: render, 20)),
        (f"encode {len(TEXT)} characters", best_us(lambda: encode, 100)),
        (
            f"bound of {len(long_text) // 1000} thousand characters",
            best_us(lambda: lambda: TOKENIZER.min_num_tokens(long_text), 1),
        ),
    ]
    for name, microseconds in rows:
        print(f"{name:40} {microseconds:9.2f} us")


if __name__ == "__main__":
    main()
