"""What a scripted model was asked, as the text that the template wrote."""

import numpy as np

from provider_core.interfaces import Batch
from tests.serving import ids_of


class PromptsSeen:
    """Remembers the prompts that a runner was given; an instance is an `on_execute`."""

    def __init__(self) -> None:
        self._ids: list[int] = []

    def __call__(self, batch: Batch) -> None:
        """Take a chunk of one."""
        if batch.phase == "prefill":
            self._ids += np.asarray(batch.token_ids)[0].tolist()

    def holds(self, text: str) -> bool:
        """Whether a text was in one."""
        part = ids_of(text)
        return any(self._ids[i : i + len(part)] == part for i in range(len(self._ids)))
