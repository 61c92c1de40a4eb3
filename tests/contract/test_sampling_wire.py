"""What sampling fields do to an answer, held against a plain forward pass of the same model.

The reference below knows nothing of the engine: it computes each next token from the whole history,
with the sampling fields applied as their definitions say, in float64.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from provider_core.testing import ScriptedRunner
from tests.generation import prefill_logits
from tests.serving import VOCAB_SIZE, Serving, scripted_runner, serving

PROMPT = [10, 20, 30, 40]
LENGTH = 12


def logprobs_after(ids: Sequence[int]) -> npt.NDArray[np.float64]:
    """Log probabilities of every id to come next, `[vocab_size]`."""
    scores = _logits_after(tuple(ids)).astype(np.float64)
    normalised: npt.NDArray[np.float64] = scores - scores.max()
    normalised -= np.log(np.exp(normalised).sum())
    return normalised


@lru_cache
def _logits_after(ids: tuple[int, ...]) -> npt.NDArray[np.float32]:
    runner = ScriptedRunner(max_num_seqs=8, max_model_len=2048, vocab_size=VOCAB_SIZE)
    [last] = prefill_logits(runner, 0, ids)
    return np.array(last)


def greedy(prompt: Sequence[int], length: int, bias: dict[int, float] | None = None) -> list[int]:
    """The likeliest continuation under a bias."""
    ids = list(prompt)
    for _ in range(length):
        scores = logprobs_after(ids)
        for token_id, value in (bias or {}).items():
            scores[token_id] += value
        ids.append(int(scores.argmax()))
    return ids[len(prompt) :]


async def complete(served: Serving, **fields: Any) -> dict[str, Any]:
    """The whole answer to a completion of the prompt."""
    body = {
        "model": "test-model",
        "prompt": PROMPT,
        "max_tokens": LENGTH,
        "temperature": 0,
        "ignore_eos": True,
        **fields,
    }
    reply = await served.post("/v1/completions", body)
    assert reply.status == 200, await reply.text()
    answer: dict[str, Any] = await reply.json()
    return answer


async def tokens_of(served: Serving, ids: Sequence[int]) -> list[str]:
    """How an answer spells ids."""
    model: Any = served.server.models.find("test-model")
    return [model.decode_token(token_id)[0] for token_id in ids]


async def test_log_probabilities_are_those_of_the_forward_pass() -> None:
    """Of every token and its alternatives, and of the echoed prompt; its first token has none."""
    made = greedy(PROMPT, LENGTH)
    history = [*PROMPT, *made]
    async with serving(scripted_runner()) as served:
        answer = await complete(served, echo=True, logprobs=3)
        shown = answer["choices"][0]["logprobs"]
        assert shown["tokens"] == await tokens_of(served, history)
        assert shown["token_logprobs"][0] is None
        assert shown["top_logprobs"][0] is None
        for place in range(1, len(history)):
            expected = logprobs_after(history[:place])
            assert shown["token_logprobs"][place] == pytest.approx(
                expected[history[place]], abs=1e-4
            )
            likeliest = np.argsort(-expected)[:3]
            spelled = await tokens_of(served, [*likeliest, history[place]])
            assert set(shown["top_logprobs"][place]) == set(spelled)


async def test_bug_18_a_chats_entries_are_those_of_the_forward_pass() -> None:
    """BUG-18: one entry per token, each with its value, streamed order and whole order alike."""
    fields = {"max_tokens": LENGTH, "temperature": 0, "ignore_eos": True}
    async with serving(scripted_runner()) as served:
        model: Any = served.server.models.find("test-model")
        prompt = model.chat_template.render([{"role": "user", "content": "hi"}])
        ids = [
            token_id
            for text, is_template in prompt.segments
            for token_id in model.tokenizer.encode(text, allow_special=is_template)
        ]
        reply = await served.chat("hi", logprobs=True, top_logprobs=2, **fields)
        choice = (await reply.json())["choices"][0]
    made = greedy(ids, LENGTH)
    content = choice["logprobs"]["content"]
    assert len(content) == LENGTH
    for place, entry in enumerate(content):
        expected = logprobs_after([*ids, *made[:place]])
        assert entry["logprob"] == pytest.approx(expected[made[place]], abs=1e-4)
        values = [alternative["logprob"] for alternative in entry["top_logprobs"]]
        assert values == pytest.approx(sorted(expected)[:-3:-1], abs=1e-4)


@pytest.mark.parametrize("value", [-100, -1.5, 3, 100])
async def test_logit_bias_is_added_before_the_choice_and_not_reported(value: float) -> None:
    """The choice follows the biased scores; what is told are the model's own probabilities."""
    favourite = greedy(PROMPT, 1)[0]
    rival = int(np.argsort(-logprobs_after(PROMPT))[1])
    token_id = favourite if value < 0 else rival
    made = greedy(PROMPT, LENGTH, {token_id: value})
    async with serving(scripted_runner()) as served:
        answer = await complete(served, logprobs=0, logit_bias={str(token_id): value})
        shown = answer["choices"][0]["logprobs"]
        assert shown["tokens"] == await tokens_of(served, made)
    history = list(PROMPT)
    for token_id, logprob in zip(made, shown["token_logprobs"], strict=True):
        assert logprob == pytest.approx(logprobs_after(history)[token_id], abs=1e-4)
        history.append(token_id)
    if value == 100:
        assert set(made) == {rival}
    elif value == -100:
        assert favourite not in made


async def test_bug_19_choices_of_a_seed_are_independent_and_repeat() -> None:
    """BUG-19: the first is what `n: 1` gives, the others differ, and all repeat."""
    fields = {"temperature": 1, "seed": 7}
    async with serving(scripted_runner()) as served:
        one = await complete(served, **fields)
        three, again = [await complete(served, n=3, **fields) for _ in range(2)]
    texts = [choice["text"] for choice in three["choices"]]
    assert texts[0] == one["choices"][0]["text"]
    assert len(set(texts)) == 3
    assert texts == [choice["text"] for choice in again["choices"]]
    assert three["usage"]["completion_tokens"] == 3 * LENGTH


async def test_best_of_returns_the_likeliest() -> None:
    """Of the four sequences that `n: 4` shows, the two of highest mean log probability."""
    fields = {"temperature": 1, "seed": 7, "logprobs": 0}
    async with serving(scripted_runner()) as served:
        every = await complete(served, n=4, **fields)
        best = await complete(served, n=2, best_of=4, **fields)
        unasked = await complete(served, n=2, best_of=4, temperature=1, seed=7)
    means = {
        choice["text"]: float(np.mean(choice["logprobs"]["token_logprobs"]))
        for choice in every["choices"]
    }
    likeliest = sorted(means, key=lambda text: -means[text])[:2]
    assert [choice["text"] for choice in best["choices"]] == likeliest
    assert [choice["text"] for choice in unasked["choices"]] == likeliest
    assert {choice["logprobs"] for choice in unasked["choices"]} == {None}
    assert best["usage"]["completion_tokens"] == 4 * LENGTH


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ({"max_tokens": 3}, 3),
        ({"max_completion_tokens": 4}, 4),
        ({"max_tokens": 3, "max_completion_tokens": 4}, 4),
        ({"max_tokens": None, "max_completion_tokens": None}, None),
        ({}, None),
    ],
)
async def test_bug_15_the_limit_of_a_chat_is_what_was_asked(
    fields: dict[str, Any], length: int | None
) -> None:
    """BUG-15: either name, both, null, or neither: then everything that fits, and no less."""
    async with serving(scripted_runner(), max_model_len=128) as served:
        reply = await served.chat("hi", ignore_eos=True, **fields)
        answer = await reply.json()
    usage = answer["usage"]
    expected = 128 - usage["prompt_tokens"] if length is None else length
    assert usage["completion_tokens"] == expected
    assert answer["choices"][0]["finish_reason"] == "length"
