"""`make gpu`, as far as it goes without a GPU: processes, engine, figures, page."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.gpu import NAMES, PAGE, REHEARSAL, RUNTIMES, load
from provider_core.testing import prefill_batch
from provider_export.export import export_decoder
from tests.generation import generate_greedily

ROOT = Path(__file__).parents[3]
HERE = [name for name in RUNTIMES if name != "torch" or find_spec("torch")]


def test_every_runtime_that_is_here_is_measured(tmp_path: Path) -> None:
    """On the host, each in a process of its own; one that is missing is named with the reason."""
    before = PAGE.read_bytes() if PAGE.exists() else None
    page = tmp_path / "rehearsal.md"
    command = [sys.executable, "-m", "bench.gpu", "--rehearse", str(page)]

    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr
    figures, _, missing = page.read_text().partition("## Not measured")
    measured = [runtime for runtime in RUNTIMES if f"| {NAMES[runtime]} | " in figures]
    assert measured == HERE
    assert ("No module named 'torch'" in missing) == ("torch" not in measured)
    assert (PAGE.read_bytes() if PAGE.exists() else None) == before


@pytest.mark.parametrize("runtime", HERE)
def test_the_same_weights_make_the_same_tokens(runtime: str, tmp_path: Path) -> None:
    """Else their speeds would not be comparable."""
    folder = tmp_path / "model"
    export_decoder(REHEARSAL.shape, folder, target="tensorrt", precision="fp16", activations="fp16")
    reference = load("onnxruntime", folder, REHEARSAL)
    prompts = [[5, 900, 77, 4000, 9], [31, 8, 2500]]
    expected = generate_greedily(reference, prompts, 8)

    runner = load(runtime, folder, REHEARSAL)

    assert generate_greedily(runner, prompts, 8) == expected
    every = runner.execute_model(prefill_batch(0, prompts[0], num_logits=len(prompts[0])))
    assert every.shape == (len(prompts[0]), runner.info.vocab_size)
    runner.close()
    reference.close()
