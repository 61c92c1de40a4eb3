"""What a provider says of a model for people: the words of its page of documentation."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class CardExample:
    """A prompt and what the model says to it."""

    prompt: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CardRecommendation:
    """Parameters of requests that suit a purpose."""

    purpose: str
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CardMeasurement:
    """A measured fact: a score, a latency, a throughput.

    Attributes:
        name: What was measured.
        value: With its unit.
        conditions: How, so that it can be measured again.
    """

    name: str
    value: str
    conditions: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """A model's card; what is empty is not shown.

    Attributes:
        use_cases: What it is for.
        strengths: What it does well.
        limitations: What it does not, and what it must not be used for.
        prompting: How to write to it.
    """

    use_cases: tuple[str, ...] = ()
    strengths: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()
    prompting: tuple[str, ...] = ()
    examples: tuple[CardExample, ...] = ()
    recommendations: tuple[CardRecommendation, ...] = ()
    measurements: tuple[CardMeasurement, ...] = ()
