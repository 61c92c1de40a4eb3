"""What the clients ask: prompts of planned lengths, or the requests of a trace.

Everything is drawn from a seed, so that two servers get the same requests.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import orjson

from provider_core.errors import ConfigurationError
from provider_core.loadtest.replies import MAX_TOKENS, token_count

PromptKind = Literal["ids", "text"]

_LENGTH = re.compile(r"(\d{1,18})(?:(?:±|\+-|~)(\d{1,18}))?")

# Short, common, and one token each in most vocabularies of natural English.
_COMMON_WORDS = (
    "the of and to in is you that it he was for on are as with his they at be this have from or "
    "one had by word but not what all were we when your can said there use an each which she do "
    "how their if will up other about out many then them these so some her would make like him "
    "into time has look two more write go see number no way could people my than first water been "
    "call who oil its now find long down day did get come made may part over new sound take only "
    "little work know place year live me back give most very after thing our just name good say"
)
WORDS = tuple(_COMMON_WORDS.split())


@dataclass(frozen=True, slots=True)
class Length:
    """A number of tokens: fixed, or uniform over `mean - spread` to `mean + spread`.

    Attributes:
        mean: At least 1.
        spread: 0 is a fixed length; less than the mean.
    """

    mean: int
    spread: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `128` or `128±32`, which may be written `128+-32` or `128~32`.

        Raises:
            ConfigurationError: It is neither, reaches below 1, or is beyond any prompt.
        """
        match = _LENGTH.fullmatch(text.strip())
        if match is None:
            raise ConfigurationError(f"{text!r} is not a number of tokens such as 128 or 128±32")
        length = cls(int(match[1]), int(match[2] or 0))
        if length.mean - length.spread < 1:
            raise ConfigurationError(f"{text!r} reaches below one token")
        if length.mean > MAX_TOKENS:
            raise ConfigurationError(f"{text!r} is over {MAX_TOKENS} tokens")
        return length

    def __str__(self) -> str:
        return f"{self.mean}±{self.spread}" if self.spread else str(self.mean)

    def draw(self, random: np.random.Generator) -> int:
        """One length."""
        return int(random.integers(self.mean - self.spread, self.mean + self.spread + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one client asks.

    Attributes:
        prompt: Token ids or text; of a trace of chats, its messages' text.
        max_tokens: Output tokens to ask for.
        num_shared_tokens: How many tokens at the start other requests have, too.
        at_s: When it arrives after the start; `None` if a trace does not say.
        extra: Further fields of the body.
        chat: Messages of a trace; without them the prompt is the user's only message.
    """

    prompt: str | list[int]
    max_tokens: int
    num_shared_tokens: int = 0
    at_s: float | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    chat: Sequence[Mapping[str, object]] | None = None

    @property
    def messages(self) -> Sequence[Mapping[str, object]]:
        """The prompt as a chat."""
        return self.chat or [{"role": "user", "content": self.prompt}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """How the requests of a point look.

    Attributes:
        prompt_tokens: Of each prompt, the shared ones included. Text has about as many words.
        output_tokens: To ask for.
        shared_prefix_tokens: The same at the start of every prompt of the run.
        kind: Token ids, or words.
        token_ids: First id and end of the range that random ids come from.
        trace: Requests to take in turn, in the place of drawn ones.
    """

    prompt_tokens: Length
    output_tokens: Length
    shared_prefix_tokens: int = 0
    kind: PromptKind = "ids"
    token_ids: tuple[int, int] = (100, 2000)
    trace: tuple[Request, ...] = ()

    def __post_init__(self) -> None:
        shortest = self.prompt_tokens.mean - self.prompt_tokens.spread
        if not self.trace and self.shared_prefix_tokens >= shortest:
            raise ConfigurationError(
                f"a prompt of {self.prompt_tokens} tokens cannot begin with "
                f"{self.shared_prefix_tokens} shared ones and have one of its own"
            )
        if not 0 <= self.token_ids[0] < self.token_ids[1]:
            raise ConfigurationError("the range of token ids is empty")

    def draw(self, seed: Sequence[int]) -> Iterator[Request]:
        """Make the requests of one round, one by one and without end.

        Args:
            seed: Gives the same requests again; the shared prefix depends on its first number
                only.
        """
        if self.trace:
            yield from cycle(self.trace)
        random = np.random.default_rng(seed)
        shared = self._ids(self.shared_prefix_tokens, np.random.default_rng(seed[0]))
        while True:
            yield self._draw_one(random, shared)

    def _draw_one(self, random: np.random.Generator, shared: list[int]) -> Request:
        num_own = self.prompt_tokens.draw(random) - len(shared)
        ids = shared + self._ids(num_own, random)
        return Request(
            prompt=ids if self.kind == "ids" else " ".join(WORDS[i % len(WORDS)] for i in ids),
            max_tokens=self.output_tokens.draw(random),
            num_shared_tokens=len(shared),
        )

    def _ids(self, count: int, random: np.random.Generator) -> list[int]:
        ids: list[int] = random.integers(*self.token_ids, count).tolist()
        return ids


def read_trace(path: Path, workload: Workload, seed: int) -> tuple[Request, ...]:
    """Read requests from a file of one JSON object a line.

    Each has `messages`, `prompt` (text or token ids) or `prompt_tokens` (then the prompt is drawn),
    and may have `timestamp` (seconds, any origin), `max_tokens` and, under `body`, further fields
    of the request.

    Args:
        path: The file.
        workload: Says what a line leaves out.
        seed: For drawn prompts.

    Returns:
        The requests in the order of their arrival, the first at 0 s if the trace has times.

    Raises:
        ConfigurationError: The file cannot be read, or a line is not such an object.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(f"the trace {path} cannot be read: {error.strerror}") from error
    requests = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                requests.append(_read_line(line, workload, (seed, number)))
            except (ConfigurationError, ValueError) as error:
                raise ConfigurationError(f"{path}, line {number}: {error}") from error
    if not requests:
        raise ConfigurationError(f"the trace {path} holds no request")
    times = [request.at_s for request in requests if request.at_s is not None]
    if len(times) < len(requests):
        if times:
            raise ConfigurationError(f"{path}: some lines have a timestamp and some have none")
        return tuple(requests)
    timed = [replace(request, at_s=(request.at_s or 0.0) - min(times)) for request in requests]
    return tuple(sorted(timed, key=lambda request: request.at_s or 0.0))


def _read_line(line: bytes, workload: Workload, seed: tuple[int, int]) -> Request:
    """One request of a trace.

    Raises:
        ConfigurationError: It is not an object, holds no prompt, or a field is not what it must be.
        ValueError: It is not JSON.
    """
    fields = orjson.loads(line)
    if not _is_object(fields):
        raise ConfigurationError("not a JSON object")
    random = np.random.default_rng(seed)
    max_tokens = _tokens(fields, "max_tokens") or workload.output_tokens.draw(random)
    at_s = _field(fields, "timestamp", "a number of seconds", _is_time)
    extra = _field(fields, "body", "a JSON object", _is_object) or {}
    chat = _field(fields, "messages", "a list of JSON objects", _is_chat)
    prompt = _field(fields, "prompt", "text or a list of token ids", _is_prompt)
    num_tokens = _tokens(fields, "prompt_tokens")
    if chat is not None:
        prompt = "\n".join(str(message.get("content") or "") for message in chat)
    elif prompt is None:
        if num_tokens is None:
            raise ConfigurationError("neither messages, prompt nor prompt_tokens")
        lengths = replace(workload, prompt_tokens=Length(num_tokens), trace=())
        prompt = next(lengths.draw(seed)).prompt
    return Request(prompt=prompt, max_tokens=max_tokens, at_s=at_s, extra=extra, chat=chat)


def _field(
    fields: Mapping[str, Any], name: str, meaning: str, is_valid: Callable[[Any], bool]
) -> Any:  # JSON, checked by `is_valid`
    """A field of a trace's line, `None` if it is missing or null.

    Raises:
        ConfigurationError: It is not valid.
    """
    value = fields.get(name)
    if value is not None and not is_valid(value):
        raise ConfigurationError(f"{name} is {value!r:.60}, not {meaning}")
    return value


def _tokens(fields: Mapping[str, Any], name: str) -> int | None:
    return token_count(_field(fields, name, f"a number of tokens up to {MAX_TOKENS}", _is_size))


def _is_size(value: Any) -> bool:
    try:
        return token_count(value) != 0
    except ValueError:
        return False


def _is_time(value: Any) -> bool:
    return type(value) in {int, float} and math.isfinite(value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_object, value))


def _is_prompt(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(type(id_) is int and id_ >= 0 for id_ in value)
    return isinstance(value, str)
