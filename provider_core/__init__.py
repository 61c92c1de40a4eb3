"""Turn a folder with an ONNX model into a listed, billable LLM provider.

This module is the public API: what plugins and handlers may import, beside `provider_core.server`,
`provider_core.decoder_io` and `provider_core.testing`.
"""

import pluggy

from provider_core.diagnosis import Finding
from provider_core.encoders import Encoder, EncoderInfo, EncoderRow
from provider_core.errors import (
    AuthenticationFailed,
    BackendError,
    ConfigurationError,
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineDead,
    InsufficientCredits,
    InvalidRequest,
    Overloaded,
    PermissionDenied,
    PluginError,
    ProviderError,
    RateLimited,
    StepFailed,
    Unavailable,
    UnsupportedParameter,
)
from provider_core.interfaces import (
    Batch,
    BlockStore,
    ChatTemplate,
    Engine,
    EngineLoad,
    MixedRunner,
    ModelRunner,
    RenderedPrompt,
    RunnerInfo,
    TokenDecoder,
    Tokenizer,
)
from provider_core.model_card import (
    CardExample,
    CardMeasurement,
    CardRecommendation,
    ModelCard,
)
from provider_core.prices import Prices, PriceTier, PriceWindow
from provider_core.quotas import ConcurrencyLimit, RateBucket, RateLimits, SpendLimit
from provider_core.stores import (
    Balance,
    CreditLedger,
    LimitStore,
    Movement,
    StoreKind,
    Taking,
    Unread,
    UsageEvent,
)
from provider_core.tool_calling import (
    CallArguments,
    CallEnd,
    CallStart,
    ToolParser,
    ToolStream,
    ToolSyntax,
)
from provider_core.types import (
    Constraint,
    EngineOutput,
    FinishReason,
    GenerationRequest,
    Grammar,
    GrammarMatcher,
    ModelSpec,
    Principal,
    SamplingParams,
    TokenLogprobs,
    Tool,
    Usage,
    UsageRecord,
)
from provider_core.vision import ImageEncoder

__version__ = "0.1.0"

hookimpl = pluggy.HookimplMarker("provider_core")
"""Marks a plugin's implementation of a hook of `provider_core.hookspecs`."""

__all__ = [
    "AuthenticationFailed",
    "BackendError",
    "Balance",
    "Batch",
    "BlockStore",
    "CallArguments",
    "CallEnd",
    "CallStart",
    "CardExample",
    "CardMeasurement",
    "CardRecommendation",
    "ChatTemplate",
    "ConcurrencyLimit",
    "ConfigurationError",
    "Constraint",
    "ContextLengthExceeded",
    "CreditLedger",
    "DeadlineExceeded",
    "Encoder",
    "EncoderInfo",
    "EncoderRow",
    "Engine",
    "EngineDead",
    "EngineLoad",
    "EngineOutput",
    "Finding",
    "FinishReason",
    "GenerationRequest",
    "Grammar",
    "GrammarMatcher",
    "ImageEncoder",
    "InsufficientCredits",
    "InvalidRequest",
    "LimitStore",
    "MixedRunner",
    "ModelCard",
    "ModelRunner",
    "ModelSpec",
    "Movement",
    "Overloaded",
    "PermissionDenied",
    "PluginError",
    "PriceTier",
    "PriceWindow",
    "Prices",
    "Principal",
    "ProviderError",
    "RateBucket",
    "RateLimited",
    "RateLimits",
    "RenderedPrompt",
    "RunnerInfo",
    "SamplingParams",
    "SpendLimit",
    "StepFailed",
    "StoreKind",
    "Taking",
    "TokenDecoder",
    "TokenLogprobs",
    "Tokenizer",
    "Tool",
    "ToolParser",
    "ToolStream",
    "ToolSyntax",
    "Unavailable",
    "Unread",
    "UnsupportedParameter",
    "Usage",
    "UsageEvent",
    "UsageRecord",
    "__version__",
    "hookimpl",
]
