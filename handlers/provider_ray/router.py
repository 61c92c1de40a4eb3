"""The router that Ray Serve asks for a replica."""

import random

from ray.serve.request_router import (
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

from provider_ray.calls import Call
from provider_ray.placement import Placement


class PrefixRouter(RequestRouter):
    """Sends requests to replicas that hold their prompt's beginning; else to the least busy."""

    def initialize_state(self, busy_factor: float) -> None:
        """Take what the deployment's configuration says."""
        self._placement: Placement[ReplicaID] = Placement(busy_factor)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Rank replicas: Ray takes the least busy of a rank, and of the next if all are full."""
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True  # once all ranks are full
        replicas = random.sample(candidate_replicas, len(candidate_replicas))  # ties fall anywhere
        loads = {
            replica.replica_id: self.replica_queue_len_cache.get(replica.replica_id) or 0
            for replica in replicas
        }
        chosen = self._placement.choose(_keys_of(pending_request), loads)
        return [[each for each in replicas if each.replica_id in chosen], replicas]

    def on_request_routed(
        self,
        pending_request: PendingRequest,
        replica_id: ReplicaID,
        result: object,  # noqa: ARG002 - the signature is Ray's
    ) -> None:
        """Remember where a prompt went."""
        self._placement.note(_keys_of(pending_request), replica_id)


def _keys_of(request: PendingRequest) -> tuple[bytes, ...]:
    call = request.args[0] if request.args else None
    return call.prefix_keys if isinstance(call, Call) else ()
