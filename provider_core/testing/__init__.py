"""For the tests of plugin authors, and ours: a scripted runner and the contracts to fulfil.

Inherit `RunnerContract` (or `EngineContract`, if your runtime batches by itself), say how yours is
made, and let pytest collect the class. Nothing here needs pytest itself.
"""

from provider_core.testing.batches import decode_batch, prefill_batch, prefill_batches
from provider_core.testing.engine_contract import EngineContract
from provider_core.testing.generation import (
    ContractViolation,
    Recorder,
    generate,
    submit,
    succeeded,
)
from provider_core.testing.runner_contract import RunnerContract
from provider_core.testing.scripted_encoder import ScriptedEncoder
from provider_core.testing.scripted_runner import ScriptedRunner
from provider_core.testing.wrapped_runners import BlockingRunner, FailingRunner

__all__ = [
    "BlockingRunner",
    "ContractViolation",
    "EngineContract",
    "FailingRunner",
    "Recorder",
    "RunnerContract",
    "ScriptedEncoder",
    "ScriptedRunner",
    "decode_batch",
    "generate",
    "prefill_batch",
    "prefill_batches",
    "submit",
    "succeeded",
]
