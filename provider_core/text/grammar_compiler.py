"""Grammars compiled for a tokenizer by llguidance, and followed by sequences.

A tokenizer's vocabulary is brought into llguidance's form once, when the first constraint comes,
from `Tokenizer.token_bytes` and the ids of its control tokens, so that any tokenizer will do.

Not imported before it is needed: that alone takes 50 ms.
"""

from threading import Lock
from typing import Never

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from provider_core.errors import InvalidRequest
from provider_core.interfaces import Tokenizer
from provider_core.text.grammar import lark_of, refuse, schema_rule
from provider_core.text.grammar_schema import CheckedSchema
from provider_core.text.grammar_vocabulary import read_vocabulary
from provider_core.types import Constraint

_Words = npt.NDArray[np.int32]

_HEAD = '%llguidance {"no_forcing": true}\n'  # masks never ask for the text's usual tokens
_LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=50_000,
    step_max_items=50_000,
    max_lexer_states=50_000,
    verbose_errors=False,
)
_TRIAL_LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=20_000,  # less than a sequence has: what passes here does not fail there
    step_max_items=20_000,
    max_lexer_states=20_000,
    verbose_errors=False,
)
_TRIALS = 2  # random texts that are tried before a grammar is taken
_TRIAL_TOKENS = 40
_BYTES_PER_MASK = 4096  # of new states; measured are up to 3.3 KiB, for long strings
_MAX_BLAMED = 256  # places of a schema that are compiled to find the one at fault

_PROBLEMS = (  # what llguidance's message holds, whose fault it is, and what we say
    ("oneOf", "oneOf", "oneOf is enforced only if its options exclude each other; use anyOf"),
    ("disjoint", "patternProperties", "overlapping patternProperties cannot be enforced"),
    ("regex parse", "pattern", "this regular expression cannot be enforced"),
    ("invalid regex", "pattern", "this regular expression cannot be enforced"),
    ("minProperties", "minProperties", "minProperties cannot be enforced here"),
    ("maxProperties", "maxProperties", "maxProperties cannot be enforced here"),
    ("multipleOf", "multipleOf", "this multipleOf cannot be enforced"),
    ("Unsatisfiable", "", "no value satisfies this schema"),
)
_TOO_COMPLEX = ("too large", "too big", "too complex", "too many", "stack level", "limit")


class LLGrammar:
    """A compiled constraint. Implements `types.Grammar`.

    Args:
        template: A matcher at its start. All copies share, and let grow, the states of its lexer.
        num_words: Of one mask.

    Attributes:
        num_masks: Made so far, by all sequences.
    """

    def __init__(self, template: LLMatcher, num_words: int) -> None:
        self._template = template
        self._num_words = num_words
        self._lock = Lock()
        self.num_masks = 0

    @property
    def num_grown_bytes(self) -> int:
        """The most that masks made so far have let it grow by."""
        return _BYTES_PER_MASK * self.num_masks

    def start(self) -> "LLGrammarMatcher":
        """A matcher at the beginning; copying one takes microseconds, compiling milliseconds."""
        with self._lock:
            return LLGrammarMatcher(self, self._template.deep_copy(), self._num_words)


class LLGrammarMatcher:
    """One sequence in its grammar. Implements `types.GrammarMatcher`."""

    __slots__ = ("_address", "_bitmask", "_grammar", "_matcher", "_words")

    def __init__(self, grammar: LLGrammar, matcher: LLMatcher, num_words: int) -> None:
        self._grammar = grammar
        self._matcher = matcher
        self._words: _Words = np.empty(num_words, dtype=np.int32)
        self._bitmask = self._words  # where the last mask was written to
        self._address = self._words.ctypes.data  # of it; to ask takes as long as a quick mask

    def fill_bitmask(self, bitmask: _Words) -> None:
        """Write which ids may come next; those beyond the vocabulary may not.

        Raises:
            RuntimeError: The grammar got beyond its limits.
        """
        self._grammar.num_masks += 1
        words = self._words if len(bitmask) != len(self._words) else bitmask
        if words is not self._bitmask:
            self._bitmask, self._address = words, words.ctypes.data
        self._matcher.unsafe_compute_mask_ptr(self._address, 4 * len(words))
        if self._matcher.is_error():  # the mask would allow an end of text
            raise RuntimeError(self._matcher.get_error())
        if words is not bitmask:
            num_words = min(len(bitmask), len(words))
            bitmask[:num_words] = words[:num_words]
            bitmask[num_words:] = 0

    def accept(self, token_id: int) -> bool:
        """Take the next id; `False` if the grammar does not allow it."""
        return self._matcher.consume_token(token_id)

    @property
    def is_finished(self) -> bool:
        """Nothing but an end of text may follow."""
        return self._matcher.is_stopped()


class GrammarFactory:
    """Compiles constraints for one tokenizer. Thread-safe.

    Args:
        tokenizer: Of the model. Read when the first constraint comes, which takes some 0.3 s for
            150,000 ids, and not kept longer.
        eos_token_ids: What may end a text.
    """

    def __init__(self, tokenizer: Tokenizer, eos_token_ids: frozenset[int]) -> None:
        self._eos_token_ids = eos_token_ids
        self._vocabulary: Tokenizer | LLTokenizer = tokenizer  # until it is read
        self._lock = Lock()

    def compile(self, constraint: Constraint) -> LLGrammar:
        """Compile. Takes a millisecond for most schemas, and tenths of a second for large ones.

        To find the place at fault in one that is refused may take seconds.

        Raises:
            InvalidRequest: `invalid_schema` if it cannot be enforced, `schema_too_complex` if that
                would take too long.
        """
        lark, checked = lark_of(constraint)
        try:
            return self._compile(lark, constraint.param)
        except InvalidRequest as error:
            if checked is not None and error.code == "invalid_schema":
                self._blame(checked, constraint.param)
            raise

    def _blame(self, checked: CheckedSchema, param: str) -> None:
        """Raise what the innermost place that cannot be enforced by itself is refused for."""
        for pointer, place in checked.places[:_MAX_BLAMED]:
            alone = {"allOf": [place], "$defs": checked.definitions}
            problem = self._match(f"start: {schema_rule(alone, param)}", _LIMITS).get_error()
            if problem:
                keyword = next((key for words, key, _ in _PROBLEMS if words in problem), "")
                is_there = isinstance(place, dict) and keyword in place
                _refuse_for(problem, f"{param}{pointer}/{keyword}" if is_there else param + pointer)

    def _compile(self, lark: str, param: str) -> LLGrammar:
        trial = self._match(lark, _TRIAL_LIMITS)
        if trial.is_error():
            _refuse_for(trial.get_error(), param)
        num_words = -(-self._load_vocabulary().vocab_size // 32)
        _try_out(LLGrammar(trial, num_words), num_words, param)
        return LLGrammar(self._match(lark, _LIMITS), num_words)

    def _match(self, lark: str, limits: LLParserLimits) -> LLMatcher:
        """A matcher; what is wrong with the grammar is its `get_error`."""
        return LLMatcher(self._load_vocabulary(), _HEAD + lark, log_level=0, limits=limits)

    def _load_vocabulary(self) -> LLTokenizer:
        with self._lock:
            if not isinstance(self._vocabulary, LLTokenizer):
                self._vocabulary = read_vocabulary(self._vocabulary, self._eos_token_ids)
            return self._vocabulary


def _try_out(grammar: LLGrammar, num_words: int, param: str) -> None:
    """Write random texts, and refuse a grammar for which the masks of some take too long.

    How long is counted in steps of the compiler's own, so that the answer is always the same.
    """
    mask = np.empty(num_words, dtype=np.int32)
    for trial in range(_TRIALS):
        random = np.random.default_rng(trial)
        matcher = grammar.start()
        for _ in range(_TRIAL_TOKENS):
            try:
                matcher.fill_bitmask(mask)
            except RuntimeError as error:
                _refuse_for(f"too complex: {error}", param)
            if not matcher.accept(_any_id(mask, random)) or matcher.is_finished:
                break


def _any_id(mask: _Words, random: np.random.Generator) -> int:
    """One of the ids of a mask that is not empty, most of the time a different one."""
    word = int(random.choice(np.flatnonzero(mask)))
    bits = np.flatnonzero(np.unpackbits(mask[word : word + 1].view(np.uint8), bitorder="little"))
    return 32 * word + int(random.choice(bits))


def _refuse_for(problem: str, param: str) -> Never:
    """Refuse what the compiler has refused, in words of our own."""
    if any(words in problem for words in _TOO_COMPLEX):
        refuse(param, "this is too complex to be enforced", "schema_too_complex")
    messages = (message for words, _, message in _PROBLEMS if words in problem)
    refuse(param, next(messages, "this cannot be enforced"))
