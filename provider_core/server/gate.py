"""The second gate of a request: exact, and the last that can refuse it."""

from dataclasses import replace
from functools import partial
from time import monotonic

from provider_core import hookspecs
from provider_core.billing.journal import UsageJournal
from provider_core.errors import DeadlineExceeded, Unavailable
from provider_core.plugins import PluginManager
from provider_core.server.admission import check_queue
from provider_core.server.call import Call
from provider_core.server.models import Served, ServedModel
from provider_core.server.quotas import Quotas
from provider_core.settings import Settings

_JOURNAL_RETRY_S = 5.0


class Gate:
    """Asks the journal, the queue, the plugins and the clock.

    Args:
        settings: Of the server.
        plugins: Asked by the hook `admit_request`.
        quotas: What keys may use.
        journal: Where bills go, if they go to the disk.
    """

    def __init__(
        self,
        settings: Settings,
        plugins: PluginManager,
        quotas: Quotas,
        journal: UsageJournal | None,
    ) -> None:
        self._settings = settings
        self._plugins = plugins
        self._quotas = quotas
        self._journal = journal

    def check_billing(self) -> None:
        """Refuse while no bill can be kept.

        Raises:
            Unavailable: The journal says so.
        """
        problem = None if self._journal is None else self._journal.problem
        if problem is not None:
            raise Unavailable(problem, code="billing_unavailable", retry_after_s=_JOURNAL_RETRY_S)

    async def admit(
        self,
        call: Call,
        model: Served,
        *,
        num_sequences: int,
        num_computed_tokens: int,
        num_prompt_tokens: int,
        max_tokens: int,
        image_count: int = 0,
    ) -> None:
        """Let a request in, or not; who is let in starts before anything else is awaited.

        Args:
            call: The HTTP request.
            model: Which model.
            num_sequences: What it asks of the engine.
            num_computed_tokens: Prompt tokens of all of them.
            num_prompt_tokens: As they are billed, once for all choices.
            max_tokens: Most that can be generated.
            image_count: Shown to the model.

        Raises:
            ProviderError: Overload, a limit of the key, or a deadline that has passed.
        """
        check_room = partial(
            self._check_room,
            call,
            model,
            num_sequences=num_sequences,
            num_prompt_tokens=num_computed_tokens,
        )
        check_room()
        for answer in self._plugins.every(
            hookspecs.admit_request,
            principal=call.principal,
            model=model.spec,
            num_prompt_tokens=num_prompt_tokens,
            max_tokens=max_tokens,
        ):
            if answer is not None:
                await answer
        await self._quotas.admit(
            call,
            model.spec,
            num_prompt_tokens=num_prompt_tokens,
            max_tokens=max_tokens,
            image_count=image_count,
        )
        if monotonic() >= call.deadline_s:
            raise DeadlineExceeded("the request's deadline passed before it could start")
        check_room()  # again: others that were asked meanwhile have maybe taken the place

    def _check_room(
        self, call: Call, model: Served, *, num_sequences: int, num_prompt_tokens: int
    ) -> None:
        """See that the engine can serve a request soon.

        Raises:
            Overloaded: It cannot.
        """
        load = model.engine.load()
        if isinstance(model, ServedModel) and model.num_looking:  # they come to the engine next
            load = replace(load, num_waiting=load.num_waiting + model.num_looking)
        rate = model.prefill_rate
        rate.observe(load.num_prompt_tokens + load.num_cached_prompt_tokens, load.prefill_s)
        check_queue(
            load,
            self._settings.limits,
            num_sequences=num_sequences,
            num_prompt_tokens=num_prompt_tokens,
            prefill_tokens_per_s=rate.tokens_per_s,
            time_left_s=call.deadline_s - monotonic(),
        )
