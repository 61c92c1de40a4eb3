"""Values that cross floors: frozen, standard library only, no behaviour beyond arithmetic.

`ModelSpec` says what is served, `SamplingParams` how tokens are chosen, `GenerationRequest` what
one sequence asks of an engine, `EngineOutput` what one step made for it, `Usage` what a generation
cost in tokens. None of these holds text that a model made, and none knows HTTP.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, Protocol

from provider_core.model_card import ModelCard
from provider_core.prices import Prices
from provider_core.quotas import RateLimits, SpendLimit

FinishReason = Literal["stop", "length", "abort", "error"]
"""Why an engine ended a sequence. `abort` and `error` never reach a client under these names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a provider says a model can take, for listings; `None` says nothing."""

    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    prompt_tokens_per_minute: int | None = None
    completion_tokens_per_minute: int | None = None
    concurrent_requests: int | None = None


Feature = Literal["chat", "tools", "json_mode", "structured_outputs", "logprobs", "reasoning"]
"""What a model can be asked for beside text, in OpenRouter's vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model as the provider lists it.

    `catalog` fills what a model's folder knows (`max_model_len`, `eos_token_ids`) when the
    configuration leaves it open, so that a loaded model's spec has every limit as a number.

    Attributes:
        id: The public name, priced and logged; may contain `/`.
        source: A local folder, or a URI a `fetch_model` hook understands.
        aliases: Further names a request may use; answers echo the requested name.
        backend: Name of the plugin that must load it; `None` lets the first willing one.
        precision: `None` serves the weights as supplied.
        max_model_len: Most tokens of prompt and completion together.
        max_output_tokens: Most completion tokens of one choice; `None` means what fits.
        max_num_seqs: Most sequences in one step.
        prefix_cache_mib: Memory for cached beginnings of prompts, in MiB; 0 is off.
        eos_token_ids: Ids that end a sequence unless `ignore_eos` is set.
        created: Unix seconds.
        quantization: Lowest precision any request may meet (OpenRouter's vocabulary).
        is_ready: `False` lists the model and refuses its requests.
        deterministic: Nothing that runs beside a request, and nothing cached, may change its text
            by so much as rounding: one weight set, no speculation.
        hugging_face_id: Of the model that the weights are of; empty if it is not there.
        tokenizer: Its family as listings name it, e.g. `Llama3`.
        openrouter_slug: What OpenRouter calls the model; `None` if it is the id or unknown.
        deprecation_date: When it will go: `YYYY-MM-DD`, or `YYYY-MM-DDTHH:00:00Z`.
        is_free: `True` lists it as free, `False` as paid again, `None` as priced.
        discount_to_user: Fraction below 1 that a marketplace takes off the listed prices.
        input_modalities: What its messages may hold, in OpenRouter's vocabulary.
        output_modalities: What it makes.
        features: What it can be asked for; the loaded model decides.
        unsupported_params: What it cannot be asked for; see `RunnerInfo`.
        tool_parser: How it writes calls of tools; `None` as its chat template shows.
        reasoning_parser: How it marks its reasoning; `None` as its chat template shows.
        capacity: What listings say it can take.
        rate_limits: How fast each key may use it, beside the key's own limits.
        card: What its page says of it.
        may_build: Its backend may build what it lacks, such as an engine, before it is ready.
        options: Backend-specific settings, passed through untouched.
    """

    id: str
    source: str
    aliases: tuple[str, ...] = ()
    backend: str | None = None
    precision: str | None = None
    name: str = ""
    description: str = ""
    family: str | None = None
    owned_by: str = "provider-core"
    knowledge_cutoff: str | None = None
    languages: tuple[str, ...] = ()
    created: int = 0
    max_model_len: int = 0  # 0 until the catalog has read the model folder
    max_output_tokens: int | None = None
    max_num_seqs: int = 32
    prefix_cache_mib: int = 512
    eos_token_ids: frozenset[int] = frozenset()
    quantization: str | None = None
    is_ready: bool = True
    deterministic: bool = False
    hugging_face_id: str = ""
    tokenizer: str | None = None
    openrouter_slug: str | None = None
    deprecation_date: str | None = None
    is_free: bool | None = None
    discount_to_user: float | None = None
    input_modalities: tuple[str, ...] = ("text",)
    output_modalities: tuple[str, ...] = ("text",)
    features: frozenset[Feature] = frozenset()
    unsupported_params: frozenset[str] = frozenset()
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    capacity: Capacity = field(default_factory=Capacity)
    rate_limits: RateLimits = field(default_factory=RateLimits)
    card: ModelCard = field(default_factory=ModelCard)
    prices: Prices = field(default_factory=Prices)
    may_build: bool = False
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How one sequence's tokens are chosen and when it ends. Defaults change nothing.

    Attributes:
        max_tokens: Most new tokens, already clamped to what fits; 0 computes the prompt only.
        min_tokens: No eos and no stop token before this many.
        temperature: 0 is greedy.
        top_k: 0 is off.
        seed: Fixes the text whatever else is in the batch; `None` draws a fresh one.
        logprobs: `None` for none; k for the chosen token's and those of the k likeliest.
        prompt_logprobs: The same for the prompt's tokens (echo).
        logit_bias: Pairs of token id and value added to the logits.
        stop_token_ids: Ids that end the sequence like eos, `ignore_eos` or not.
        ignore_eos: Go on past the model's own end.
    """

    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    top_a: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """What a text has to look like, as a client says it; `compile_grammar` makes it a `Grammar`.

    Attributes:
        kind: `json_schema` (source is the schema as JSON), `json_object` (any object; no source),
            `regex`, `lark` (a grammar in llguidance's Lark syntax), `choice` (a JSON array of
            texts).
        param: The field of the request that is to blame when it cannot be enforced.
        strict: `False` lets annotations that cannot be enforced be ignored.
    """

    kind: Literal["json_schema", "json_object", "regex", "lark", "choice"]
    source: str = ""
    param: str = "response_format"
    strict: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the model may call.

    Attributes:
        parameters: JSON Schema of its arguments; `None` takes none.
        strict: The client insists that arguments conform. They do in any case where the schema
            can be enforced; with `strict` one that cannot is refused.
        param: Where the client declared it, for errors.
    """

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    strict: bool = False
    param: str = "tools"

    @property
    def definition(self) -> dict[str, Any]:
        """The tool as OpenAI writes it, for chat templates."""
        function: dict[str, Any] = {"name": self.name}
        if self.description is not None:
            function["description"] = self.description
        if self.parameters is not None:
            function["parameters"] = dict(self.parameters)
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolChoice:
    """Whether the model calls tools.

    Attributes:
        mode: `required` means at least one call.
        names: The tools that may be called; empty means all.
        is_named: The client named exactly one to be called.
    """

    mode: Literal["none", "auto", "required"] = "auto"
    names: tuple[str, ...] = ()
    is_named: bool = False


class GrammarMatcher(Protocol):
    """Follows one sequence through its grammar. One thread at a time calls it."""

    def fill_bitmask(self, bitmask: Any) -> None:  # writable int32 array `[ceil(vocab_size / 32)]`
        """Write which ids may come next: id i is bit i % 32 of word i // 32."""
        ...

    def accept(self, token_id: int) -> bool:
        """Take the next id; `False` if the grammar does not allow it."""
        ...

    @property
    def is_finished(self) -> bool:
        """Nothing but an end of text may follow."""
        ...


class Grammar(Protocol):
    """A compiled constraint, shared by all sequences that ask for it. Thread-safe."""

    def start(self) -> GrammarMatcher:
        """A matcher at the beginning of a sequence's completion."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One sequence for an engine: ids in, ids out. A request with `n` choices is n of these.

    Attributes:
        request_id: Unique in the process; the key for `Engine.abort`.
        prompt_token_ids: At least one id.
        eos_token_ids: The model's own ends of text.
        deadline_s: On the `time.monotonic` clock; the sequence is dropped after it.
        fairness_key: Whom this work counts for when sequences compete (the API key's id).
        cache_salt: Only requests with the same salt share cached prompts (the tenant's id): how
            fast an answer begins must not tell one tenant what another sent.
        grammar: What the completion has to be; `None` is anything.
        prompt_embeddings: Pairs of a position in the prompt and float32 `[k, size]`, in order:
            what the model reads there in place of its own vectors of k ids. Two prompts whose
            vectors differ must differ in ids or in `cache_salt`.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    eos_token_ids: frozenset[int] = frozenset()
    deadline_s: float | None = None
    fairness_key: str = ""
    cache_salt: str = ""
    grammar: Grammar | None = None
    prompt_embeddings: tuple[tuple[int, memoryview], ...] = ()


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log probability of one token and of the likeliest alternatives, of the model's distribution.

    They are the log-softmax of the raw logits, before temperature, penalties and bias, so that
    they do not depend on how the token was drawn.

    Attributes:
        logprob: Natural logarithm, at most 0; `None` for the first token of a prompt.
        top: Pairs of id and logprob, likeliest first.
    """

    token_id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class EngineOutput:
    """What one step made for one sequence. After one with a `finish_reason` nothing follows.

    Attributes:
        token_ids: New ids, in order; the id that ended the sequence (eos, a stop token) included.
        finish_reason: Set on the last output only.
        stop_token_id: The eos or stop token that ended it, else `None`.
        logprobs: One entry per new id if they were asked for, else empty.
        prompt_logprobs: With the first token only, one entry per prompt id, if asked for.
        num_cached_tokens: Prompt tokens taken from a prefix cache; said once, with the first token
            or with the last output.
        started_s: When the engine began to work on it, on the `time.monotonic` clock. Said once,
            by an output of its own before all others, if the engine knows.
        error: Why, when `finish_reason` is `error`.
    """

    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    num_cached_tokens: int = 0
    error: Exception | None = None
    started_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts of one generation. Counters are nested, not disjoint.

    Attributes:
        prompt_tokens: Ids fed to the model after templating, cached ones included.
        cached_tokens: Those of them that were read from a prefix cache.
        completion_tokens: Billable ids handed to the client over all choices, reasoning included.
        reasoning_tokens: Those of them that were reasoning.
        generated_tokens: Ids the engine made, at least `completion_tokens`.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    generated_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who is calling, as far as the core needs to know. Never holds a secret.

    Attributes:
        api_key_id: Public id of the key; `anonymous` only when authentication is off.
        account_id: Owner of the key.
        label: A name for people.
        scope: A management key manages others and runs nothing itself.
        models: Ids of those it may use; `None` means all.
        rate_limits: How fast.
        spend_limit: For how much money, if that is limited.
        expires_at: RFC 3339, if it ends by itself.
    """

    api_key_id: str
    account_id: str | None = None
    label: str = ""
    scope: Literal["inference", "management"] = "inference"
    models: tuple[str, ...] | None = None
    rate_limits: RateLimits = field(default_factory=RateLimits)
    spend_limit: SpendLimit | None = None
    expires_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """The one billing record of a generation, as `usage.final` writes it.

    Attributes:
        event: The flat JSON object of the usage event, money as decimal strings.
        usage: The same counts, typed.
        cost: USD, exact.
    """

    generation_id: str
    request_id: str
    model: str
    status: Literal["ok", "cancelled", "error", "interrupted"]
    usage: Usage
    cost: Decimal
    event: Mapping[str, object]
