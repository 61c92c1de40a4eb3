"""From a parsed request to a running, settled generation; no HTTP, no dialect.

A route, and a platform's job handler alike, parses its dialect, calls `prepare`, gives `start` a
callback for the events, waits, and settles. Whatever can be refused is refused by `prepare`, before
a settlement is open; from there every exit goes through `Run.settle`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from provider_core import hookspecs
from provider_core.billing.events import Endpoint
from provider_core.billing.journal import UsageJournal
from provider_core.billing.settlement import Ledger, Settlement
from provider_core.errors import ContextLengthExceeded, InvalidRequest
from provider_core.interfaces import RenderedPrompt
from provider_core.lifecycle import Lifecycle
from provider_core.plugins import PluginManager
from provider_core.server.call import Call
from provider_core.server.chat_plan import ChatPlanner, ReplyPlan
from provider_core.server.gate import Gate
from provider_core.server.generation_run import Prepared, Run
from provider_core.server.grammars import GrammarCompiler
from provider_core.server.images import PromptImages
from provider_core.server.looking import ImageLooker
from provider_core.server.models import Models, Served, ServedModel
from provider_core.server.open_run import OpenRun
from provider_core.server.quotas import Quotas
from provider_core.settings import Settings
from provider_core.stores import CreditLedger, LimitStore
from provider_core.text.events import Event
from provider_core.text.prompt import encode_prompt
from provider_core.types import GenerationRequest, Principal, SamplingParams, UsageRecord

_SEED_STEP = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, as splitmix64 steps

SamplingFor = Callable[[int], SamplingParams]
"""Completes the sampling of a prompt once its length in tokens is known."""


class Dispatcher:
    """What all routes share. One per server.

    Attributes:
        runs: Whatever is not settled.
        quotas: What keys may use.
        gate: The last that can refuse a request.
        planner: Turns conversations into prompts and grammars.
        looker: Shows models what prompts show.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        plugins: PluginManager,
        models: Models,
        ledger: Ledger,
        lifecycle: Lifecycle,
        journal: UsageJournal | None = None,
        limit_store: LimitStore | None = None,
        credit_ledger: CreditLedger | None = None,
    ) -> None:
        self.settings = settings
        self.models = models
        self.lifecycle = lifecycle
        self.runs: set[OpenRun] = set()
        self.quotas = Quotas(settings.limits, limit_store, credit_ledger)
        self.gate = Gate(settings, plugins, self.quotas, journal)
        self.planner = ChatPlanner(plugins, GrammarCompiler(plugins, settings.limits))
        self.looker = ImageLooker()
        self._plugins = plugins
        self._ledger = ledger

    async def encode_chat(self, model: ServedModel, prompt: RenderedPrompt) -> tuple[int, ...]:
        """A rendered conversation to ids.

        Raises:
            ContextLengthExceeded: More tokens than the model takes.
        """
        return await _encode(model, prompt, "messages")

    async def encode_prompt(self, model: ServedModel, text: str) -> tuple[int, ...]:
        """A raw prompt to ids; control tokens in it stay plain text.

        Raises:
            ContextLengthExceeded: More tokens than the model takes.
        """
        return await _encode(model, text, "prompt")

    async def prepare(
        self,
        call: Call,
        model: ServedModel,
        prompts: Sequence[tuple[int, ...]],
        *,
        sampling_for: SamplingFor,
        n: int,
        best_of: int,
        stop: tuple[str, ...],
        cache_salt: str = "",
        plan: ReplyPlan | None = None,
        images: PromptImages | None = None,
    ) -> Prepared:
        """Pass the second gate and freeze the engine's requests.

        Args:
            call: The HTTP request.
            model: Which model.
            prompts: Ids of k prompts, each at least one.
            sampling_for: Checks and completes the sampling, given a prompt's length.
            n: Choices of each prompt that will be returned.
            best_of: Choices of each prompt to generate, at least `n`.
            stop: Stop strings.
            cache_salt: The client's own division of its cached prompts.
            plan: How the replies are constrained and read; by default free text.
            images: What each prompt shows beside its ids.

        Raises:
            ProviderError: Of any kind: context, sampling, limits, overload, deadline, or no way
                to keep the bill.
        """
        self.gate.check_billing()
        plan = plan or ReplyPlan()
        images = images or PromptImages()
        generation_id = call.begin_generation()
        requests: list[GenerationRequest] = []
        for prompt in prompts:
            sampling = sampling_for(len(prompt))
            requests += [
                GenerationRequest(
                    request_id=f"{generation_id}:{len(requests) + choice}",
                    prompt_token_ids=prompt,
                    sampling=_for_choice(sampling, choice),
                    eos_token_ids=model.spec.eos_token_ids,
                    deadline_s=call.deadline_s,
                    fairness_key=call.principal.api_key_id,
                    cache_salt=f"{_tenant(call.principal)}/{cache_salt}{images.salt}",
                    grammar=plan.grammar,
                )
                for choice in range(best_of)
            ]
        num_prompt_tokens = sum(map(len, prompts))
        await self.gate.admit(
            call,
            model,
            num_sequences=len(requests),
            num_computed_tokens=best_of * num_prompt_tokens,
            num_prompt_tokens=num_prompt_tokens,
            max_tokens=sum(request.sampling.max_tokens for request in requests),
            image_count=images.count,
        )
        return Prepared(
            model=model,
            requests=tuple(requests),
            stop=stop,
            output=plan.output,
            num_choices=best_of,
            num_returned=n * len(prompts),
            images=images,
        )

    def start(
        self,
        call: Call,
        prepared: Prepared,
        endpoint: Endpoint,
        on_event: Callable[[Event], bool | None],
    ) -> Run:
        """Open the settlement and submit every sequence, once what the prompt shows is seen.

        Args:
            call: The HTTP request.
            prepared: What to run.
            endpoint: The route's name in the usage event.
            on_event: Told of each event on the loop's thread; `False` says that the client is gone.

        Raises:
            ProviderError: The engine takes nothing; already settled.
        """
        run = Run(
            call,
            prepared,
            on_event,
            looker=self.looker,
            open_settlement=lambda: self.open_settlement(
                call,
                prepared.model,
                endpoint,
                n=prepared.num_returned,
                image_count=prepared.images.count,
            ),
            on_settled=self.finished,
        )
        self.runs.add(run)
        try:
            run.start()
        except BaseException as exc:
            run.settle(exc)
            raise
        return run

    def open_settlement(
        self, call: Call, model: Served, endpoint: Endpoint, *, n: int, image_count: int = 0
    ) -> Settlement:
        """Admit a generation at today's prices; whoever opens must settle."""
        return self._ledger.open(
            generation_id=call.generation_id or call.begin_generation(),
            request_id=call.request_id,
            principal=call.principal,
            model=model.spec,
            runner_info=model.engine.info,
            endpoint=endpoint,
            stream=call.stream,
            n=n,
            image_count=image_count,
            received_wall_s=call.received_wall,
            received_mono_s=call.received_mono,
            user_id=call.user_id,
            app_title=call.app_title,
            app_referer=call.app_referer,
            session_id=call.session_id,
            client_request_id=call.client_request_id,
            idempotency_key=call.idempotency_key,
        )

    def finished(self, run: OpenRun, record: UsageRecord) -> None:
        """Forget a run that has settled and tell whoever wants to know."""
        self.runs.discard(run)
        self._plugins.notify(hookspecs.request_finished, record=record)


async def _encode(model: ServedModel, prompt: str | RenderedPrompt, param: str) -> tuple[int, ...]:
    limit = model.spec.max_model_len
    try:
        ids = await encode_prompt(model.tokenizer, prompt, max_tokens=limit - 1)
    except ContextLengthExceeded as exc:
        raise ContextLengthExceeded(
            f"this model's maximum context length is {limit} tokens: {exc.message}", param=param
        ) from exc
    if not ids:
        raise InvalidRequest("the prompt has no tokens", param=param)
    return ids


def _for_choice(sampling: SamplingParams, choice: int) -> SamplingParams:
    """Give the choices of a seeded request different seeds; the first keeps the client's."""
    if sampling.seed is None or choice == 0:
        return sampling
    return replace(sampling, seed=(sampling.seed + choice * _SEED_STEP) % 2**64)


def _tenant(principal: Principal) -> str:
    """The tenant whose prompts may speed up each other: the account, or the key that has none."""
    if principal.account_id is not None:
        return f"account:{principal.account_id}"
    return f"key:{principal.api_key_id}"
