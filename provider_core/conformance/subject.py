"""The model under test, as the provider lists it in each of its documents."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Document = Mapping[str, Any]
"""JSON of any server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One model of one provider.

    Attributes:
        model: Its id.
        listed: Its item in OpenAI's list; empty if there is none.
        monitored: Its document for OpenRouter's monitor, schema 2.4; empty if there is none.
        mirrored: Its item in OpenRouter's own list; empty if there is none.
    """

    model: str
    listed: Document = field(default_factory=dict)
    monitored: Document = field(default_factory=dict)
    mirrored: Document = field(default_factory=dict)

    @property
    def parameters(self) -> frozenset[str] | None:
        """Names of the parameters that it is listed with; `None` if no list says any."""
        for modality in self.monitored.get("output_modalities", ()):
            if isinstance(modality, dict) and modality.get("type") == "text":
                return frozenset(modality.get("supported_parameters", ()))
        for document in (self.mirrored, self.listed):
            names = document.get("supported_parameters")
            if isinstance(names, list):
                return frozenset(str(name) for name in names)
        return None

    def declares(self, name: str) -> bool | None:
        """Whether it is listed with a parameter; `None` if no list says."""
        names = self.parameters
        return None if names is None else name in names

    @property
    def sees(self) -> bool | None:
        """Whether it is listed as taking images; `None` if no list says."""
        if entries := self.monitored.get("input_modalities"):
            return any(
                isinstance(entry, dict) and entry.get("type") == "image" for entry in entries
            )
        architecture = self.mirrored.get("architecture")
        if isinstance(architecture, dict):
            return "image" in architecture.get("input_modalities", ())
        return None

    @property
    def context_length(self) -> int | None:
        """Tokens of prompt and completion together, if a list says."""
        for document in (self.listed, self.mirrored):
            for name in ("context_length", "max_model_len"):
                if type(document.get(name)) is int:
                    return int(document[name])
        return None

    @property
    def max_output_tokens(self) -> int | None:
        """Most tokens of one completion, if a list says."""
        for name in ("max_output_tokens", "max_output_length", "max_completion_tokens"):
            if type(self.listed.get(name)) is int:
                return int(self.listed[name])
        return self.context_length
