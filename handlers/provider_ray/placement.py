"""Where a prompt goes: to a replica that holds its beginning, unless that one is much busier.

What a replica has computed of a prompt it need not compute again for the next one that begins
alike. So it is remembered where beginnings went; the longest one that is known decides. A beginning
that many share comes to be held by as many replicas as its requests keep busy.
"""

from collections import OrderedDict
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

_MAX_PREFIXES = 65_536

R = TypeVar("R", bound=Hashable)


class Placement(Generic[R]):
    """Which replicas were given which beginnings, the least recently given forgotten first.

    Args:
        busy_factor: A replica is too busy with more than so many times what the least busy one
            would have with one request more.
        max_prefixes: So many are remembered.
    """

    def __init__(self, busy_factor: float, max_prefixes: int = _MAX_PREFIXES) -> None:
        self._busy_factor = busy_factor
        self._max_prefixes = max_prefixes
        self._holders: OrderedDict[bytes, set[R]] = OrderedDict()

    def note(self, keys: Sequence[bytes], replica: R) -> None:
        """A replica was given a prompt with these beginnings.

        Args:
            keys: The shortest first.
            replica: Which.
        """
        for key in reversed(keys):  # the shortest is the last to be forgotten
            self._holders.setdefault(key, set()).add(replica)
            self._holders.move_to_end(key)
        while len(self._holders) > self._max_prefixes:
            self._holders.popitem(last=False)

    def choose(self, keys: Sequence[bytes], loads: Mapping[R, int]) -> Collection[R]:
        """Those that should have the prompt; none if any may.

        Args:
            keys: Of its beginnings, the shortest first.
            loads: Requests of each replica that runs.
        """
        most = self._busy_factor * (1 + min(loads.values(), default=0))
        for key in reversed(keys):
            if holders := self._holders.get(key, set()) & loads.keys():
                return {replica for replica in holders if loads[replica] <= most}
        return ()
