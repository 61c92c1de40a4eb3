"""`Sequence`: the only mutable state of a request, touched by the engine thread only."""

from dataclasses import dataclass, field

from provider_core.engine.constraints import ConstrainedSequence
from provider_core.engine.drafting import Drafter
from provider_core.engine.penalties import TokenCounts
from provider_core.engine.randomness import fresh_seed
from provider_core.engines import OnOutput
from provider_core.types import GenerationRequest, SamplingParams, TokenLogprobs

_GREEDY_BELOW = 1e-5  # temperatures under this are 0: the quotient would overflow float32


@dataclass(slots=True, eq=False)
class Sequence:
    """One sequence from submission to its last output.

    Attributes:
        request: What was asked for.
        on_output: Called on the event loop's thread with each output.
        max_new_tokens: Where it ends with `length`: `max_tokens`, or what its slot still holds.
        stop_ids: Every id that ends it: stop tokens, and eos unless ignored.
        seed: The request's, or a fresh one.
        num_computed_tokens: Prompt tokens whose keys and values are stored; not kept up to date
            while decoding, where the scheduler's array of positions counts.
        num_cached_tokens: Those of them that came from the prefix cache, until that was told.
        block_keys: Of the prompt, for the prefix cache.
        num_expected_tokens: How many of it the prefix cache held when it came; 0 once it began.
        num_generated_tokens: Ids sampled.
        num_charged_tokens: Those of them that its fairness key was charged for.
        slot: Where its keys and values live; -1 while it waits and after it ended.
        counts: Which ids it holds how often, if a penalty asks for that.
        generated_ids: Those ids.
        drafter: Guesses what comes next, once that was worth trying.
        constraint: Its place in its grammar, if it has one.
        prompt_logprobs: Of the prompt tokens computed so far, if asked for.
    """

    request: GenerationRequest
    on_output: OnOutput
    max_new_tokens: int
    stop_ids: frozenset[int]
    seed: int
    num_prompt_tokens: int
    num_computed_tokens: int = 0
    num_cached_tokens: int = 0
    block_keys: list[bytes] = field(default_factory=list)
    num_expected_tokens: int = 0
    num_generated_tokens: int = 0
    num_charged_tokens: int = 0
    slot: int = -1
    counts: TokenCounts | None = None
    generated_ids: list[int] = field(default_factory=list)
    drafter: Drafter | None = None
    constraint: ConstrainedSequence | None = None
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)

    @property
    def num_missing_tokens(self) -> int:
        """Prompt tokens still to compute; before it began, as far as one knows."""
        return self.num_prompt_tokens - (self.num_computed_tokens or self.num_expected_tokens)

    @property
    def num_reserved_tokens(self) -> int:
        """The most tokens it will ever hold."""
        return self.num_prompt_tokens + self.max_new_tokens

    @property
    def is_greedy(self) -> bool:
        """Whether it draws the likeliest id, always."""
        return is_greedy(self.request.sampling)


def is_greedy(params: SamplingParams) -> bool:
    """Whether these parameters draw the likeliest id, always."""
    return params.temperature < _GREEDY_BELOW or params.top_k == 1


def make_sequence(
    request: GenerationRequest, on_output: OnOutput, *, max_model_len: int
) -> Sequence:
    """Take a request whose prompt leaves room for at least one new token.

    Args:
        request: As submitted.
        on_output: Receives its outputs.
        max_model_len: Positions a slot holds.
    """
    sampling = request.sampling
    num_prompt_tokens = len(request.prompt_token_ids)
    stop_ids = sampling.stop_token_ids
    if not sampling.ignore_eos:
        stop_ids |= request.eos_token_ids
    counts = None
    if sampling.repetition_penalty != 1.0:
        counts = TokenCounts(request.prompt_token_ids)
    elif sampling.frequency_penalty != 0.0 or sampling.presence_penalty != 0.0:
        counts = TokenCounts()
    return Sequence(
        request=request,
        on_output=on_output,
        max_new_tokens=min(sampling.max_tokens, max_model_len - num_prompt_tokens),
        stop_ids=stop_ids,
        seed=fresh_seed() if sampling.seed is None else sampling.seed,
        num_prompt_tokens=num_prompt_tokens,
        counts=counts,
    )
