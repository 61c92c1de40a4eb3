"""What a replica's work lasts, as the rounds of a benchmark say.

Every call of a model reads all weights, each row and each prompt token adds to it. A step is one
decode call, and one more call for each chunk of a prompt. So two means of a round are linear in
what is wanted: the inter-token latency, and of one client alone the time to the first token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from math import ceil

import numpy as np
import numpy.typing as npt

from provider_core.errors import ConfigurationError
from provider_core.planning.rates import MeasuredRound

HOW_TO_MEASURE = "provider bench URL --concurrency 1,4,16 --prompt-tokens 64,512 --json rates.json"

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


def fit_costs(rounds: Sequence[MeasuredRound], *, chunk_tokens: int) -> StepCosts:
    """Find the costs that explain closed loops best, by least squares of relative errors.

    Args:
        rounds: Those of open loops are passed over.
        chunk_tokens: Most prompt tokens of a call.

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
    equations = [_inter_token_equation(each, chunk_tokens) for each in closed]
    equations += [_first_token_equation(each, chunk_tokens) for each in alone]
    matrix = np.array([coefficients for coefficients, _ in equations])
    measured = np.array([value for _, value in equations])
    costs = nonnegative_least_squares(matrix / measured[:, None], np.ones(len(measured)))
    call_s, row_s, prompt_token_s, request_s = costs.tolist()
    if call_s + row_s <= 0:
        raise ConfigurationError("the rates say that a token takes no time")
    return StepCosts(call_s=call_s, row_s=row_s, prompt_token_s=prompt_token_s, request_s=request_s)


def _inter_token_equation(each: MeasuredRound, chunk_tokens: int) -> tuple[list[float], float]:
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


def _first_token_equation(each: MeasuredRound, chunk_tokens: int) -> tuple[list[float], float]:
    calls = ceil(each.prompt_tokens / chunk_tokens)
    return [calls, 0.0, each.prompt_tokens, 1.0], each.ttft_s


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
