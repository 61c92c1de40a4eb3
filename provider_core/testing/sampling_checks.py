"""That an engine heeds the sampling it claims, seen from what every model must show.

Temperature, `top_a` and the penalties for presence and repetition change some models' texts and
not others', so that nothing can be asked of them here.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from provider_core.interfaces import Engine
from provider_core.testing.generation import ContractViolation, submit, succeeded
from provider_core.types import Grammar, GrammarMatcher, SamplingParams

MAX_BIAS = 100.0
"""The most that a client may ask for."""


@dataclass(frozen=True, slots=True)
class SamplingProbe:
    """Makes one prompt's text under changed parameters.

    Attributes:
        greedy: Without chance, and without an end but its length.
        expected: The ids that it makes.
    """

    engine: Engine
    prompt: tuple[int, ...]
    greedy: SamplingParams
    expected: list[int]

    async def make(self, *, grammar: Grammar | None = None, **changes: Any) -> list[int]:
        """The ids under these changes."""
        name = "-".join(changes) or "grammar"
        sampling = replace(self.greedy, **changes)
        recorder = submit(self.engine, name, self.prompt, sampling, grammar=grammar)
        return succeeded(recorder, await recorder.result())

    @property
    def other_id(self) -> int:
        """One that does not begin the text."""
        return (self.expected[0] + 1) % self.engine.info.vocab_size


async def check_claimed_sampling(probe: SamplingProbe) -> None:
    """Try every parameter that is not in `info.unsupported_params` and shows in any text.

    Raises:
        ContractViolation: One has no effect, or a wrong one.
    """
    for name, check in _CHECKS.items():
        if name not in probe.engine.info.unsupported_params:
            await check(probe)


async def _check_logit_bias(probe: SamplingProbe) -> None:
    made = await probe.make(logit_bias=((probe.other_id, MAX_BIAS),))
    if set(made) != {probe.other_id}:
        raise ContractViolation(
            f"with logit_bias {MAX_BIAS:g} for id {probe.other_id} the ids are {made}"
        )


async def _check_frequency_penalty(probe: SamplingProbe) -> None:
    unsupported, info = probe.engine.info.unsupported_params, probe.engine.info
    count = info.max_model_len - len(probe.prompt)
    if "logit_bias" in unsupported or count < MAX_BIAS:
        return
    bias = ((probe.other_id, MAX_BIAS),)
    made = await probe.make(max_tokens=count, frequency_penalty=2.0, logit_bias=bias)
    if set(made) == {probe.other_id}:  # whose penalty grows to twice its bias
        raise ContractViolation(
            f"with frequency_penalty 2 an id with logit_bias {MAX_BIAS:g} is made {count} times"
        )


async def _check_min_tokens(probe: SamplingProbe) -> None:
    if "stop_token_ids" in probe.engine.info.unsupported_params:
        return
    made = await probe.make(min_tokens=5, stop_token_ids=frozenset(probe.expected))
    if len(made) < 5:
        raise ContractViolation(f"with min_tokens=5 the ids are {made}")


async def _check_prompt_logprobs(probe: SamplingProbe) -> None:
    sampling = replace(probe.greedy, prompt_logprobs=1)
    recorder = submit(probe.engine, "prompt-logprobs", probe.prompt, sampling)
    succeeded(recorder, await recorder.result())
    seen = [entry.token_id for output in recorder.outputs for entry in output.prompt_logprobs]
    if seen != list(probe.prompt):
        raise ContractViolation(
            f"with prompt_logprobs=1 they are of {seen}, and the prompt is {list(probe.prompt)}"
        )


async def _check_grammar(probe: SamplingProbe) -> None:
    made = await probe.make(grammar=_OneIdOnly(probe.other_id))
    if set(made) != {probe.other_id}:
        raise ContractViolation(
            f"with a grammar that allows only id {probe.other_id} the ids are {made}"
        )


def _check_narrow(name: str, value: float) -> Callable[[SamplingProbe], Awaitable[None]]:
    """What leaves only the likeliest id makes the greedy text, however hot it is drawn."""

    async def check(probe: SamplingProbe) -> None:
        unsupported = probe.engine.info.unsupported_params
        if "temperature" in unsupported:
            return
        seed = None if "seed" in unsupported else 7
        narrowed: dict[str, Any] = {name: value}
        made = await probe.make(temperature=2.0, seed=seed, **narrowed)
        if made != probe.expected:
            raise ContractViolation(
                f"with {name}={value:g} the ids are {made}, and the likeliest are {probe.expected}"
            )

    return check


_CHECKS: dict[str, Callable[[SamplingProbe], Awaitable[None]]] = {
    "logit_bias": _check_logit_bias,
    "frequency_penalty": _check_frequency_penalty,
    "min_tokens": _check_min_tokens,
    "prompt_logprobs": _check_prompt_logprobs,
    "grammar": _check_grammar,
    "top_k": _check_narrow("top_k", 1),
    "top_p": _check_narrow("top_p", 1e-6),
    "min_p": _check_narrow("min_p", 1.0),
}


@dataclass(frozen=True, slots=True)
class _OneIdOnly:
    """A grammar of one word, again and again; implements `Grammar` and `GrammarMatcher`."""

    token_id: int

    def start(self) -> GrammarMatcher:
        """Nothing changes from id to id."""
        return self

    def fill_bitmask(self, bitmask: Any) -> None:  # see `GrammarMatcher`
        """Allow the one."""
        bitmask[:] = 0
        bitmask.view(np.uint32)[self.token_id // 32] = 1 << self.token_id % 32

    def accept(self, token_id: int) -> bool:
        """Take the one."""
        return token_id == self.token_id

    @property
    def is_finished(self) -> bool:
        """It goes on."""
        return False
