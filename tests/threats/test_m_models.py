"""M: runners that misbehave while serving, and what our own code must never contain.

What model files may not do is tested beside the code that reads them; `test_every_id` says where.
"""

import re
import tomllib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from provider_core import Batch, EngineDead, StepFailed
from tests.serving import Serving, saying, scripted_runner, serving
from tests.threats.aftermath import CANARY, canary
from tests.threats.refusals import COMPLETIONS

ROOT = Path(__file__).parents[2]
SERVED = [
    path
    for folder in ("provider_core", "plugins")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "recipe" not in path.parts
]


def lines_with(pattern: str) -> list[str]:
    """Where the code that is shipped and served says something."""
    found = re.compile(pattern)
    return [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in SERVED
        for line in path.read_text(encoding="utf-8").splitlines()
        if found.search(line)
    ]


def test_m2_nothing_writes_weights_beside_a_model_it_read() -> None:
    """Only the export writes models, and those are its own."""
    assert lines_with(r"save_external_data|convert_model_to_external_data") == []


def test_m5_no_format_that_carries_code_is_read() -> None:
    """Weights are safetensors or ONNX."""
    pattern = r"torch\.load|trust_remote_code|auto_map|joblib|numpy\.load|np\.load\("
    assert lines_with(pattern) == []


def test_m7_m8_nothing_is_deserialised_and_no_memory_is_shared() -> None:
    """There is no pickle, no socket between workers, and no named memory."""
    pattern = r"^\s*(import|from) (pickle|marshal|shelve|dill|cloudpickle|multiprocessing|zmq)"
    assert lines_with(pattern) == []
    assert lines_with(r"shared_memory|shm_open|\beval\(|\bexec\(") == []


FLOORS = {"aiohttp": (3, 14, 3), "jinja2": (3, 1, 6), "orjson": (3, 11, 6)}


@pytest.mark.parametrize("package", FLOORS)
def test_m11_libraries_with_known_holes_are_not_installed(package: str) -> None:
    """The least version of each is one that is mended."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    floors = dict(item.split(">=") for item in project["dependencies"] if ">=" in item)
    assert tuple(map(int, floors[package].split("."))) >= FLOORS[package]


async def statuses(served: Serving, count: int) -> list[int]:
    """Answers to one good request after the other."""
    return [(await served.post(COMPLETIONS, CANARY)).status for _ in range(count)]


@pytest.mark.parametrize(
    "failure", [StepFailed("lost"), RuntimeError("secret"), MemoryError(), ValueError("secret")]
)
async def test_m9_a_step_that_raises_costs_its_requests_only(failure: Exception) -> None:
    """They end as 502 in fixed words; the next one is served."""
    async with serving(saying("Hello!", failures={0: failure})) as served:
        reply = await served.post(COMPLETIONS, CANARY)
        assert reply.status == 502
        error = (await reply.json())["error"]
        assert error["code"] == "backend_error"
        assert "secret" not in error["message"]
        [event] = served.usage.events
        assert (event["status"], event["completion_tokens"]) == ("error", 0)
        await canary(served)


async def test_m9_a_dead_device_ends_the_server() -> None:
    """Its requests are told, and the process is asked to end with a code that says so."""
    async with serving(saying("Hello!", failures={0: EngineDead("device lost")})) as served:
        reply = await served.post(COMPLETIONS, CANARY)
        assert reply.status == 503
        assert (await reply.json())["error"]["code"] == "backend_unavailable"
        await served.server.stopping.wait()
        assert served.server.exit_code != 0
        assert served.usage.events[0]["status"] == "error"
        reply = await served.session.get(served.url + "/readyz")
        assert reply.status == 503


def not_a_number(_: Batch, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Every logit is NaN."""
    return np.full_like(logits, np.nan)


def too_narrow(_: Batch, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Half of the vocabulary."""
    return logits[:, : logits.shape[1] // 2]


def too_few(_: Batch, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """No row at all."""
    return logits[:0]


@pytest.mark.parametrize("corrupt", [not_a_number, too_narrow, too_few])
async def test_m9_logits_that_are_none_end_in_an_error_not_in_text(corrupt: object) -> None:
    """Nobody is answered with what they would yield."""
    async with serving(scripted_runner(corrupt=corrupt)) as served:
        reply = await served.post(COMPLETIONS, CANARY)
        assert reply.status in {502, 503}
        assert [event["status"] for event in served.usage.events] == ["error"]
