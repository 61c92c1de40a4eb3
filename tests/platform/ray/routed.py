"""Where the router sends what comes together: `python routed.py`, where Ray is installed.

Two replicas that answer nothing stand behind Ray's own routing. Writes a JSON object to standard
output: for each case, how many requests each replica was chosen for.
"""

import asyncio
import json
import sys
from collections import Counter
from dataclasses import dataclass

from ray.serve._private.common import (  # what Ray makes routers and requests of
    DeploymentHandleSource,
    DeploymentID,
    RequestMetadata,
)
from ray.serve.request_router import PendingRequest, ReplicaID

from provider_ray.router import PrefixRouter

_DEPLOYMENT = DeploymentID("replicas", "default")
_ONE, _TWO = ReplicaID("one", _DEPLOYMENT), ReplicaID("two", _DEPLOYMENT)
_BURST = 10


@dataclass
class _Replica:
    """Tells Ray how many requests it has."""

    replica_id: ReplicaID
    num_ongoing: int = 0
    max_ongoing_requests: int = 100

    async def get_queue_len(self, *, deadline_s: float) -> int:
        return self.num_ongoing


class _Requests:
    """A router, and requests that it is to place."""

    def __init__(self, *replicas: _Replica) -> None:
        self.router = PrefixRouter(
            _DEPLOYMENT, DeploymentHandleSource.REPLICA, use_replica_queue_len_cache=True
        )
        self.router.initialize_state(busy_factor=2)
        self.router.update_replicas(list(replicas))
        self._num_asked = 0

    async def place(self) -> ReplicaID:
        """Have a replica chosen for one request, and send it there."""
        self._num_asked += 1
        name = str(self._num_asked)
        request = PendingRequest([], {}, RequestMetadata(name, name))
        replica = await self.router._choose_replica_for_request(request)
        self.router.on_send_request(replica.replica_id)
        return replica.replica_id

    async def burst(self) -> list[int]:
        """Place many at once; returns how many each replica has of them."""
        counts = Counter(await asyncio.gather(*(self.place() for _ in range(_BURST))))
        return [counts[_ONE], counts[_TWO]]


async def _idle() -> list[int]:
    return await _Requests(_Replica(_ONE), _Replica(_TWO)).burst()


async def _one_has_a_request() -> list[int]:
    requests = _Requests(_Replica(_ONE, num_ongoing=1), _Replica(_TWO))
    await asyncio.sleep(0)
    requests.router.on_new_queue_len_info(_ONE, 1)
    requests.router.on_new_queue_len_info(_TWO, 0)
    return await requests.burst()


async def _one_was_not_heard_of_lately() -> list[int]:
    requests = _Requests(_Replica(_ONE), _Replica(_TWO))
    requests.router.on_new_queue_len_info(_TWO, 0)
    return await requests.burst()


async def _one_belongs_to_other_ingresses() -> list[int]:
    requests = _Requests(_Replica(_ONE, num_ongoing=50), _Replica(_TWO))
    requests.router.on_new_queue_len_info(_ONE, 50)
    return await requests.burst()


async def _one_is_full() -> list[int]:
    requests = _Requests(_Replica(_ONE, num_ongoing=2, max_ongoing_requests=2), _Replica(_TWO, 5))
    requests.router.on_new_queue_len_info(_ONE, 2)
    requests.router.on_new_queue_len_info(_TWO, 5)
    return await requests.burst()


async def _after_all_have_ended() -> list[int]:
    """Others were given up before they were placed, and say nothing."""
    requests = _Requests(_Replica(_ONE), _Replica(_TWO))
    for replica in [await requests.place() for _ in range(3)]:
        requests.router.on_request_completed(replica, "any")
    given_up = [asyncio.ensure_future(requests.place()) for _ in range(9)]
    await asyncio.sleep(0)
    for each in given_up:
        each.cancel()
    await asyncio.wait(given_up)
    await asyncio.sleep(0)
    return [requests.router._loads[_ONE], requests.router._loads[_TWO]]


async def _main() -> None:
    async with asyncio.timeout(30):
        cases = {
            case.__name__.strip("_"): await case()
            for case in (
                _idle,
                _one_has_a_request,
                _one_was_not_heard_of_lately,
                _one_belongs_to_other_ingresses,
                _one_is_full,
                _after_all_have_ended,
            )
        }
    json.dump(cases, sys.stdout)


if __name__ == "__main__":
    asyncio.run(_main())
