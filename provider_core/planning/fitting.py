"""A replica's costs from the rounds of a benchmark.

Two figures of a round are nearly linear in the costs: the mean inter-token latency, and of one
client alone the time to the first token. Nearly, because requests come in step or out of it and
prompts are cut; a simulation of the round says by how much. So the costs are fitted to lines, the
lines are moved to where the simulation is, and so on.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, combinations
from math import ceil, inf

import numpy as np
import numpy.typing as npt

from provider_core.engine.step_budget import StepBudget
from provider_core.errors import ConfigurationError
from provider_core.planning.costs import StepCosts
from provider_core.planning.rates import MeasuredRound
from provider_core.planning.rehearsal import rehearse
from provider_core.planning.replica import ReplicaSpec

HOW_TO_MEASURE = "provider bench URL --concurrency 1,4,16 --prompt-tokens 64,512 --json rates.json"

_TURNS = 6  # in which costs come near to what they stay at
_DAMPING = 0.7  # of each turn's correction: where prompts are cut goes in jumps
_DOUBT = 2  # so many times better must it explain the rounds that an engine mixes: few do

Array = npt.NDArray[np.float64]


def fit_costs(
    rounds: Sequence[MeasuredRound], *, slots: int, chunk_tokens: int, target_itl_s: float
) -> ReplicaSpec:
    """Find the replica that explains closed loops best, by least squares of relative errors.

    Whether its engine mixes prompts and decodes is what explains more.

    Args:
        rounds: Those of open loops are passed over.
        slots: Sequences at a time; more if a round had more.
        chunk_tokens: Most prompt tokens of a step.
        target_itl_s: To which prompts are cut while others decode.

    Raises:
        ConfigurationError: The rounds cannot tell the costs apart.
    """
    closed = sorted(
        (each for each in rounds if each.concurrency is not None),
        key=lambda each: each.concurrency != 1,
    )
    alone = [each for each in closed if each.concurrency == 1]
    _check(closed, alone)
    slots = max([slots, *(each.concurrency or 0 for each in closed if each.decoding_rows > slots)])
    measured = np.array([each.itl_s for each in closed] + [each.ttft_p50_s for each in alone])
    best = ReplicaSpec(
        costs=StepCosts(call_s=0.0),
        slots=slots,
        chunk_tokens=chunk_tokens,
        target_itl_s=target_itl_s,
    )
    least = inf
    for mixes in (False, True):
        spec = replace(best, costs=StepCosts(call_s=0.0, mixes=mixes))
        moved = np.ones(len(measured))
        for _ in range(_TURNS):
            lines = np.array(
                [_inter_token_line(each, spec) for each in closed]
                + [_first_token_line(each, spec) for each in alone]
            )
            lines *= (moved / measured)[:, None]
            found = nonnegative_least_squares(lines, np.ones(len(measured)))
            spec = replace(spec, costs=_costs(found, mixes=mixes))
            if spec.costs.decode_s(1, 1) <= 0:
                raise ConfigurationError("the rates say that a token takes no time")
            rehearsals = rehearse(closed, spec)
            simulated = [each.itl_s for each in rehearsals]
            simulated += [each.ttft_p50_s for each in rehearsals[: len(alone)]]
            ratios = np.array(simulated) / measured
            error = float(np.sum((ratios - 1) ** 2))
            error += sum(each.throughput_error**2 for each in rehearsals)
            error *= _DOUBT if mixes else 1
            if error < least:
                least, best = error, spec
            moved *= (ratios / (lines @ found)) ** _DAMPING
    return best


def _costs(found: Array, *, mixes: bool) -> StepCosts:
    call_s, row_s, prompt_token_s, context_token_s, request_s = found.tolist()
    return StepCosts(call_s, row_s, prompt_token_s, context_token_s, request_s, mixes)


def _check(closed: Sequence[MeasuredRound], alone: Sequence[MeasuredRound]) -> None:
    if len({each.concurrency for each in closed}) < 2 or not alone:
        raise ConfigurationError(
            "the rates need one client alone, and another number of clients; "
            f"measure with: {HOW_TO_MEASURE}"
        )
    if len({round(each.prompt_tokens) for each in alone}) < 2:
        raise ConfigurationError(
            f"the rates need two lengths of prompts; measure with: {HOW_TO_MEASURE}"
        )


def _inter_token_line(each: MeasuredRound, spec: ReplicaSpec) -> list[float]:
    """A step as a row that decodes sees it: its decode, and what prompts of others take.

    Of `n` clients a row meets `n - 1`, each as much of the time decoding, and as often beginning,
    as it is itself.

    Returns:
        By how much each cost counts.
    """
    clients = each.concurrency or 1
    others = (clients - 1) / clients
    rows = 1 + others * each.decoding_rows
    prompts = others * each.requests_per_s * each.itl_s
    calls = 1.0
    if not spec.costs.mixes:
        calls += prompts * ceil(each.prompt_tokens / _chunk_beside(each, spec))
    return [calls, rows, prompts * each.prompt_tokens, rows * _context(each), 0.0]


def _first_token_line(each: MeasuredRound, spec: ReplicaSpec) -> list[float]:
    """The same of a prompt that nobody else's is in the way of.

    There are few of them: the median is what a hiccup of the machine does not change.
    """
    return [ceil(each.prompt_tokens / spec.chunk_tokens), 0.0, each.prompt_tokens, 0.0, 1.0]


def _context(each: MeasuredRound) -> float:
    """Tokens that a row holds, on average over its answer."""
    return each.prompt_tokens + each.output_tokens / 2


def _chunk_beside(each: MeasuredRound, spec: ReplicaSpec) -> int:
    """Prompt tokens that a step computes beside the decode of a round's rows."""
    budget = StepBudget(max_tokens=spec.chunk_tokens, target_itl_s=spec.target_itl_s)
    num_rows = max(1, round(each.decoding_rows))
    budget.note_decode(spec.costs.decode_s(num_rows, num_rows * _context(each)))
    num_tokens = spec.chunk_tokens
    for _ in range(_TURNS):
        computed = min(num_tokens, max(1, round(each.prompt_tokens)))
        budget.note_prefill(computed, spec.costs.prefill_s(computed))
        num_tokens = budget.num_tokens(is_decoding=True)
    return num_tokens


def nonnegative_least_squares(matrix: Array, values: Array) -> Array:
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
