"""What the keys of a server may use, asked at both gates of a request and told at its end."""

from time import monotonic, time

from aiohttp import web

from provider_core.access.rate_limits import RateLimiter
from provider_core.billing.money import highest_cost, prices_at
from provider_core.dialects.rate_headers import rate_headers
from provider_core.quotas import RateLimits
from provider_core.server.call import Call
from provider_core.server.edge import CALL
from provider_core.settings import LimitSettings
from provider_core.stores import CreditLedger, LimitStore
from provider_core.types import ModelSpec


class Quotas:
    """One per server.

    Args:
        limits: Rates of keys that have none of their own.
        limit_store: Where replicas count together; `None` if this one counts by itself.
        credit_ledger: What keys and accounts may spend; `None` if nobody counts.
    """

    def __init__(
        self,
        limits: LimitSettings,
        limit_store: LimitStore | None = None,
        credit_ledger: CreditLedger | None = None,
    ) -> None:
        self._credits = credit_ledger
        self._limiter = RateLimiter(
            RateLimits(
                requests_per_minute=limits.requests_per_minute,
                requests_per_day=limits.requests_per_day,
                tokens_per_minute=limits.tokens_per_minute,
                concurrent_requests=limits.concurrent_requests,
            ),
            limit_store,
        )

    @property
    def is_sharing(self) -> bool | None:
        """Whether replicas are counted together now; `None` if they never are."""
        return self._limiter.is_sharing

    def install(self, app: web.Application) -> None:
        """Tell every answer's client how its limits stand."""
        app.on_response_prepare.append(self._add_headers)

    async def enter(self, call: Call) -> None:
        """The first gate: the number of requests.

        Raises:
            RateLimited: Too many.
        """
        caller = call.principal
        call.rates = self._limiter.open(call.request_id, caller.api_key_id, caller.rate_limits)
        call.at_end(self._leave)
        if call.rates is not None:
            await self._limiter.enter(call.rates)

    async def admit(
        self,
        call: Call,
        model: ModelSpec,
        *,
        num_prompt_tokens: int,
        max_tokens: int,
        image_count: int,
    ) -> None:
        """The second gate: the model's own limits, the number of tokens, and the money.

        Raises:
            RateLimited: Too many.
            InsufficientCredits: It might cost more than is there.
            Unavailable: Nobody knows how much is there.
        """
        caller = call.principal
        call.rates = self._limiter.at_model(
            call.rates, call.request_id, caller.api_key_id, model.id, model.rate_limits
        )
        if call.rates is not None:
            await self._limiter.admit(call.rates, num_prompt_tokens, max_tokens)
        if self._credits is None or (caller.account_id is None and caller.spend_limit is None):
            return
        prices = prices_at(model.prices, call.received_wall)
        generation_id = call.generation_id or call.begin_generation()
        if await self._credits.reserve(
            generation_id,
            caller,
            highest_cost(prices, num_prompt_tokens, max_tokens, image_count=image_count),
            deadline_s=call.deadline_s - monotonic(),
        ):
            call.at_end(lambda call: self._release(call, generation_id))

    def forgive(self, call: Call) -> None:
        """Do not count a request that is answered from the cache."""
        if call.rates is not None:
            self._limiter.forgive(call.rates)

    async def close(self) -> None:
        """Close the store of limits. Idempotent."""
        await self._limiter.close()

    def _release(self, call: Call, generation_id: str) -> None:
        """Give back what was reserved for a request that never ran: no event will do it."""
        has_settled = call.record is not None and call.record.generation_id == generation_id
        if self._credits is not None and not has_settled:
            self._credits.release(generation_id)

    def _leave(self, call: Call) -> None:
        if call.rates is not None:
            usage = None if call.record is None else call.record.usage
            self._limiter.leave(call.rates, usage)

    async def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        call = request.get(CALL)
        if call is not None and call.rates is not None:
            rates = self._limiter.status(call.rates)
            response.headers.update(rate_headers(call.dialect, response.status, rates, time()))
