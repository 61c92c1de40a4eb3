"""A real, small `Engine` that a test drives output by output."""

from collections.abc import Callable

from provider_core.errors import EngineDead
from provider_core.interfaces import EngineLoad, RunnerInfo
from provider_core.types import EngineOutput, GenerationRequest

OutputCallback = Callable[[EngineOutput], None]


class ScriptedEngine:
    """Takes sequences in and waits to be told what they made.

    Args:
        capacity: Sequences it takes before it is dead.

    Attributes:
        aborted: Ids of the sequences that were ended from outside, in order.
    """

    def __init__(self, capacity: int = 99) -> None:
        self.info = RunnerInfo(
            backend="scripted",
            backend_version="1",
            device="cpu",
            max_num_seqs=capacity,
            max_model_len=4096,
            vocab_size=1000,
        )
        self.aborted: list[str] = []
        self._callbacks: dict[str, OutputCallback] = {}
        self._capacity = capacity

    def submit(self, request: GenerationRequest, on_output: OutputCallback) -> None:
        """Take a sequence in."""
        if len(self._callbacks) >= self._capacity:
            raise EngineDead("the engine is closed")
        self._callbacks[request.request_id] = on_output

    def push(self, request_id: str, output: EngineOutput) -> None:
        """Give a sequence an output, as the engine's loop callback does."""
        self._callbacks[request_id](output)

    def abort(self, request_id: str) -> None:
        """End a sequence; its last output comes when the test pushes it, as it does later."""
        self.aborted.append(request_id)

    def load(self) -> EngineLoad:
        """How many sequences there are."""
        return EngineLoad(
            num_running=len(self._callbacks),
            num_waiting=0,
            num_waiting_prompt_tokens=0,
            num_slots=self._capacity,
            num_kv_tokens=0,
            num_steps=0,
            num_prompt_tokens=0,
            num_generated_tokens=0,
            step_started_s=None,
        )

    def check_health(self) -> None:
        """It is always well."""

    async def close(self) -> None:
        """It holds nothing."""
