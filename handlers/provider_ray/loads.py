"""How busy replicas are, as one router knows it.

Ray's own count has a request from when it is sent, and is overwritten by what replicas say. Of
requests that come together each is placed before the one ahead of it is sent, so by that count all
would go to one replica.
"""

import asyncio
from collections import Counter
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

R = TypeVar("R", bound=Hashable)


class Loads(Generic[R]):
    """Requests of each replica: those that are to be sent there, and those that were."""

    def __init__(self) -> None:
        self._to_be_sent: dict[asyncio.Future[Any], R] = {}
        self._counts: Counter[R] = Counter()

    def __getitem__(self, replica: R) -> int:
        """Of one replica."""
        return self._counts[replica]

    def note_choice(self, routing: asyncio.Future[Any], replica: R) -> None:
        """A replica was chosen for a request; a later choice for the same request replaces it.

        Args:
            routing: Ends when the request is sent, wherever that is, or given up.
            replica: Which.
        """
        self.forget_choice(routing)
        routing.add_done_callback(self.forget_choice)
        self._to_be_sent[routing] = replica
        self._counts[replica] += 1

    def forget_choice(self, routing: asyncio.Future[Any]) -> None:
        """What was chosen for a request counts no more, if anything was."""
        routing.remove_done_callback(self.forget_choice)
        if (replica := self._to_be_sent.pop(routing, None)) is not None:
            self.note_end(replica)

    def note_start(self, replica: R) -> None:
        """A request was sent."""
        self._counts[replica] += 1

    def note_end(self, replica: R) -> None:
        """A request has ended, well or not."""
        self._counts[replica] -= 1
        if self._counts[replica] <= 0:  # below where Ray could not send what it says has ended
            del self._counts[replica]
