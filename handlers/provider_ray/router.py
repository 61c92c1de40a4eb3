"""The router that Ray Serve asks for a replica."""

import random

from ray.serve.request_router import (
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

from provider_ray.calls import Call
from provider_ray.loads import Loads
from provider_ray.placement import Placement


class PrefixRouter(RequestRouter):
    """Sends requests to replicas that hold their prompt's beginning; else to the least busy."""

    def initialize_state(self, busy_factor: float) -> None:
        """Take what the deployment's configuration says."""
        self._placement: Placement[ReplicaID] = Placement(busy_factor)
        self._loads: Loads[ReplicaID] = Loads()

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Rank replicas: the best alone, and all for Ray to choose from if that one is full."""
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True  # once all ranks are full
        self._loads.forget_choice(pending_request.future)  # it was full
        replicas = random.sample(candidate_replicas, len(candidate_replicas))  # ties fall anywhere
        said = {
            each.replica_id: self.replica_queue_len_cache.get(each.replica_id) for each in replicas
        }
        # What a replica said has other ingresses' requests, too, but not yet the latest of ours.
        loads = {each: max(self._loads[each], said[each] or 0) for each in said}
        chosen = self._placement.choose(_keys_of(pending_request), loads) or loads
        best = min(
            (each for each in replicas if each.replica_id in chosen),
            key=lambda each: (loads[each.replica_id], said[each.replica_id] is None),
        )
        self._loads.note_choice(pending_request.future, best.replica_id)
        return [[best], replicas]

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Count a request from here on; Ray says of each how it ended."""
        super().on_send_request(replica_id)
        self._loads.note_start(replica_id)

    def on_request_completed(
        self,
        replica_id: ReplicaID,
        internal_request_id: str,  # noqa: ARG002 - the signature is Ray's
    ) -> None:
        """Count it no longer: it was answered, refused, cancelled or lost."""
        self._loads.note_end(replica_id)

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
