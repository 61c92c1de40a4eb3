"""What a replica's work lasts, as the rounds of a benchmark say.

Every call of a model reads all weights, each row and each prompt token adds to it. A step is one
decode call, and one more call for each chunk of a prompt. So two figures of a round are linear in
what is wanted: the mean inter-token latency, and of one client alone the time to the first token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from math import ceil

import numpy as np
import numpy.typing as npt

from provider_core.engine.step_budget import StepBudget
from provider_core.errors import ConfigurationError
from provider_core.planning.rates import MeasuredRound

HOW_TO_MEASURE = "provider bench URL --concurrency 1,4,16 --prompt-tokens 64,512 --json rates.json"

_TURNS = 8  # in which costs, and chunks, come near to what they stay at

Equation = tuple[list[float], float]
"""Coefficients of the four costs, and the seconds that they add up to."""

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCosts:
    """Seconds.

    Attributes:
        call_s: Of a call, whatever it computes.
        row_s: More for each row that decodes.
        prompt_token_s: More for each token of a prompt.
        request_s: Of a request beside the calls, HTTP and text: other requests do not wait for it.
    """

    call_s: float
    row_s: float = 0.0
    prompt_token_s: float = 0.0
    request_s: float = 0.0

    def decode_s(self, num_rows: int) -> float:
        """One token for each row."""
        return self.call_s + self.row_s * num_rows

    def prefill_s(self, num_tokens: int) -> float:
        """One chunk of a prompt."""
        return self.call_s + self.prompt_token_s * num_tokens


def fit_costs(
    rounds: Sequence[MeasuredRound], *, chunk_tokens: int, target_itl_s: float
) -> StepCosts:
    """Find the costs that explain closed loops best, by least squares of relative errors.

    How prompts are cut beside decodes depends on the costs, so these are found in turns.

    Args:
        rounds: Those of open loops are passed over.
        chunk_tokens: Most prompt tokens of a call.
        target_itl_s: To which prompts are cut while others decode.

    Raises:
        ConfigurationError: The rounds cannot tell the costs apart.
    """
    closed = [each for each in rounds if each.concurrency is not None]
    alone = [each for each in closed if each.concurrency == 1]
    if len({each.concurrency for each in closed}) < 2 or not alone:
        raise ConfigurationError(
            "the rates need one client alone, and another number of clients; "
            f"measure with: {HOW_TO_MEASURE}"
        )
    if len({round(each.prompt_tokens) for each in alone}) < 2:
        raise ConfigurationError(
            f"the rates need two lengths of prompts; measure with: {HOW_TO_MEASURE}"
        )
    first_tokens = [_first_token_equation(each, chunk_tokens) for each in alone]
    chunks: list[int] = [chunk_tokens for _ in closed]
    costs = StepCosts(call_s=0.0)
    for _ in range(_TURNS):
        steps = map(_inter_token_equation, closed, chunks)
        costs = _solve([*steps, *first_tokens])
        chunks = [_chunk_beside(costs, each, chunk_tokens, target_itl_s) for each in closed]
    if costs.decode_s(1) <= 0:
        raise ConfigurationError("the rates say that a token takes no time")
    return costs


def _solve(equations: Sequence[Equation]) -> StepCosts:
    matrix = np.array([coefficients for coefficients, _ in equations])
    measured = np.array([value for _, value in equations])
    costs = nonnegative_least_squares(matrix / measured[:, None], np.ones(len(measured)))
    call_s, row_s, prompt_token_s, request_s = costs.tolist()
    return StepCosts(call_s=call_s, row_s=row_s, prompt_token_s=prompt_token_s, request_s=request_s)


def _inter_token_equation(each: MeasuredRound, chunk_tokens: int) -> Equation:
    """A step as a row that decodes sees it: its decode, and what prompts of others take.

    Of `n` clients a row meets `n - 1`, each as much of the time decoding, and as often beginning,
    as it is itself.
    """
    clients = each.concurrency or 1
    others = (clients - 1) / clients
    rows = 1 + others * each.decoding_rows
    prompts = others * each.requests_per_s * each.itl_s
    calls = 1 + prompts * ceil(each.prompt_tokens / chunk_tokens)
    return [calls, rows, prompts * each.prompt_tokens, 0.0], each.itl_s


def _first_token_equation(each: MeasuredRound, chunk_tokens: int) -> Equation:
    """A prompt that nobody else's is in the way of.

    There are few of them: the median is what a hiccup of the machine does not change.
    """
    calls = ceil(each.prompt_tokens / chunk_tokens)
    return [calls, 0.0, each.prompt_tokens, 1.0], each.ttft_p50_s


def _chunk_beside(
    costs: StepCosts, each: MeasuredRound, chunk_tokens: int, target_itl_s: float
) -> int:
    """Prompt tokens that a step computes beside the decode of a round's rows."""
    budget = StepBudget(max_tokens=chunk_tokens, target_itl_s=target_itl_s)
    budget.note_decode(costs.decode_s(max(1, round(each.decoding_rows))))
    num_tokens = chunk_tokens
    for _ in range(_TURNS):
        computed = min(num_tokens, max(1, round(each.prompt_tokens)))
        budget.note_prefill(computed, costs.prefill_s(computed))
        num_tokens = budget.num_tokens(is_decoding=True)
    return num_tokens


def nonnegative_least_squares(matrix: Matrix, values: Matrix) -> Matrix:
    """The `x` with no negative entry for which `matrix @ x` is nearest to `values`.

    It is exact for the few columns that there are here: one of the subsets of the columns has it
    as its ordinary solution.

    Args:
        matrix: `[m, n]`.
        values: `[m]`.

    Returns:
        `[n]`.
    """
    num_columns = matrix.shape[1]
    columns = range(num_columns)
    best, least = np.zeros(num_columns), float(np.sum(values**2))
    for chosen in chain.from_iterable(combinations(columns, k + 1) for k in columns):
        part = np.linalg.lstsq(matrix[:, chosen], values, rcond=None)[0]
        error = float(np.sum((matrix[:, chosen] @ part - values) ** 2))
        if np.all(part >= 0) and error < least:
            best, least = np.zeros(num_columns), error
            best[list(chosen)] = part
    return best
