"""What a provider says of itself: the tables of its `provider.toml`, as far as they are filled."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Values that no request can measure.

    Attributes:
        provider: The table `[provider]`, without defaults.
        model: The `[[model]]` table of the model under test, without defaults.
        source: The file's name; `None` if there is none.
    """

    provider: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None

    def value(self, key: str) -> Any:  # what TOML can hold
        """The value of `provider.x` or `model.x.y`; `None` if it was left open."""
        found: Any = {"provider": self.provider, "model": self.model}
        for step in key.split("."):
            found = found.get(step) if isinstance(found, Mapping) else None
        is_empty = isinstance(found, str | list | tuple) and not found
        return None if is_empty else found


def show(value: Any) -> str:  # what TOML or JSON can hold
    """A value for people, on one line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {show(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(show(each) for each in value)
    return str(value)
