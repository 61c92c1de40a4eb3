"""Decodes as CUDA graphs, over a scripted GPU: identities, addresses, padding, and what is refused.

What a GPU computes is not shown here; `tests/gpu` needs one.
"""

from collections import Counter
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from structlog.testing import capture_logs

from provider_core import ConfigurationError, EngineDead, ModelRunner, ModelSpec, gpu_models
from provider_core.testing import RunnerContract, decode_batch, prefill_batches
from provider_export.export import export_decoder
from provider_onnxruntime import capturing_decoder, diagnose, load_model
from provider_onnxruntime.capturing_decoder import round_window
from provider_onnxruntime.cuda_graphs import NO_GRAPH
from tests.decoder_variants import GrowingTarget, MaskedGenaiTarget, write_variant
from tests.generation import generate_greedily, prefill
from tests.reference_decoder import ReferenceDecoder
from tests.scripted_cuda import ScriptedGpu, ScriptedSession, SessionRecord
from tests.tiny_checkpoints import write_checkpoint

CONVENTIONS = ("genai", "masked genai", "scatter")
PROMPTS = [[3, 14, 15, 92, 65], [35, 89, 79], [32, 38, 46, 26, 43, 38]]
LONG_PROMPT = [7 * position % 96 for position in range(400)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One random checkpoint as a decoder of each convention."""
    root = tmp_path_factory.mktemp("decoders")
    checkpoint = write_checkpoint(root / "checkpoint")
    export_decoder(checkpoint, root / "genai", target="cpu")
    export_decoder(checkpoint, root / "scatter", target="tensorrt")
    write_variant(checkpoint, root / "masked genai", MaskedGenaiTarget)
    write_variant(checkpoint, root / "optimum", GrowingTarget)
    return {name: root / name for name in (*CONVENTIONS, "optimum", "checkpoint")}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ScriptedGpu:
    """A GPU, and an ONNX Runtime for it."""
    return ScriptedGpu(monkeypatch)


def load(folder: Path, max_num_seqs: int = 4, **options: object) -> ModelRunner:
    """A runner on it."""
    spec = ModelSpec(
        id="tiny",
        source="",
        max_num_seqs=max_num_seqs,
        max_model_len=512,
        options={"provider": "cuda", **options},
    )
    runner = load_model(spec, folder)
    assert isinstance(runner, ModelRunner)
    return runner


def count_graphs(session: SessionRecord) -> Counter[int]:
    """Runs of each graph."""
    return Counter(number for number in session.graph_ids if number != NO_GRAPH)


class _ScriptedCuda(RunnerContract):
    """All that the contract asks, with copies that are done only when they are waited for."""

    convention: str
    folders: dict[str, Path]

    @pytest.fixture(autouse=True)
    def take_fixtures(self, folders: dict[str, Path], gpu: ScriptedGpu) -> None:
        """Contract tests take no fixtures of their own."""
        self.folders, self.gpu = folders, gpu

    def make_runner(self) -> ModelRunner:
        """Four slots."""
        return load(self.folders[self.convention])


class TestScatter(_ScriptedCuda):
    """TensorScatter over slots in place."""

    convention = "scatter"


class TestGenai(_ScriptedCuda):
    """GroupQueryAttention, told lengths."""

    convention = "genai"


class TestMaskedGenai(_ScriptedCuda):
    """GroupQueryAttention that counts lengths out of a mask."""

    convention = "masked genai"


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_graphs_give_the_tokens_of_a_plain_forward_pass(
    folders: dict[str, Path], gpu: ScriptedGpu, convention: str
) -> None:
    """With one graph for all decodes of a shape, and none for prompts."""
    runner = load(folders[convention], cuda_graphs="on")
    reference = ReferenceDecoder(folders["checkpoint"])

    answers = generate_greedily(runner, PROMPTS, 20)

    assert answers == [reference.greedy(prompt, 20) for prompt in PROMPTS]
    [session] = gpu.sessions
    assert count_graphs(session) == {1: 19}
    assert session.graph_ids.count(NO_GRAPH) == len(PROMPTS)
    runner.close()
    assert not gpu.runtime.pinned


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_each_shape_is_a_graph(folders: dict[str, Path], gpu: ScriptedGpu, convention: str) -> None:
    """Of rows, and where lengths come from the host, of the longest one: 256, 512."""
    runner = load(folders[convention])
    reference = ReferenceDecoder(folders["checkpoint"])
    prompts = [LONG_PROMPT[:250], *PROMPTS]
    expected = [reference.greedy(prompt, 12) for prompt in prompts]

    for rows in (1, 2, 3, 4, 1):
        assert generate_greedily(runner, prompts[:rows], 12) == expected[:rows]

    [session] = gpu.sessions
    assert len(session.graphs) == (3 if convention == "scatter" else 6)
    assert len(session.graphs) == len(count_graphs(session))


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_padding_writes_where_nobody_reads(
    folders: dict[str, Path], gpu: ScriptedGpu, convention: str
) -> None:
    """A prompt is half computed in the slot that a decode of three rows is rounded up to."""
    runner = load(folders[convention])
    reference = ReferenceDecoder(folders["checkpoint"])
    answers = [[prefill(runner, slot, prompt)] for slot, prompt in enumerate(PROMPTS)]
    pieces = list(prefill_batches(3, LONG_PROMPT, chunk=100))
    for step, piece in enumerate(pieces):
        runner.execute_model(piece)
        lengths = [len(prompt) + step for prompt in PROMPTS]
        batch = decode_batch([answer[-1] for answer in answers], lengths)
        for answer, logits in zip(answers, runner.execute_model(batch), strict=True):
            answer.append(int(logits.argmax()))

    assert answers == [reference.greedy(prompt, len(pieces) + 1) for prompt in PROMPTS]
    ids = [answer[-1] for answer in answers] + [reference.greedy(LONG_PROMPT, 1)[0]]
    lengths = [len(prompt) + len(pieces) for prompt in PROMPTS] + [len(LONG_PROMPT)]
    logits = runner.execute_model(decode_batch(ids, lengths))
    expected = reference.logits([*LONG_PROMPT, ids[3]])
    np.testing.assert_allclose(logits[3], expected[-1], atol=1e-4)
    assert all(number > 0 for number in count_graphs(gpu.sessions[0]).values())


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_prompt_of_one_token_is_computed_in_its_own_slot(
    folders: dict[str, Path], gpu: ScriptedGpu, convention: str
) -> None:
    """It has the shape of a decode, whose graph is that of the first slots."""
    runner = load(folders[convention])
    reference = ReferenceDecoder(folders["checkpoint"])
    first = prefill(runner, 0, PROMPTS[0])

    assert prefill(runner, 2, [35]) == reference.greedy([35], 1)[0]

    [logits] = runner.execute_model(decode_batch([first], [len(PROMPTS[0])]))
    assert int(logits.argmax()) == reference.greedy(PROMPTS[0], 2)[1]
    assert count_graphs(gpu.sessions[0]) == {1: 1}


def test_a_slot_that_moved_is_padded_behind_its_text(
    folders: dict[str, Path], gpu: ScriptedGpu
) -> None:
    """As when a row before it has ended."""
    runner = load(folders["genai"], max_num_seqs=8)
    reference = ReferenceDecoder(folders["checkpoint"])
    first = prefill(runner, 7, PROMPTS[0])
    runner.move_slot(7, 6, len(PROMPTS[0]))
    lengths = [len(prompt) for prompt in PROMPTS[:2]] * 3  # five rows and more become eight
    for slot, prompt in enumerate((PROMPTS[:2] * 3)[:5]):
        prefill(runner, slot, prompt)

    runner.execute_model(decode_batch([1] * 5, lengths[:5]))
    runner.move_slot(6, 0, len(PROMPTS[0]))

    [logits] = runner.execute_model(decode_batch([first], [len(PROMPTS[0])]))
    assert int(logits.argmax()) == reference.greedy(PROMPTS[0], 2)[1]
    assert len(gpu.sessions[0].graphs) == 2


def test_a_model_that_cannot_be_captured_is_served_without(
    folders: dict[str, Path], gpu: ScriptedGpu
) -> None:
    """With a line that has the runtime's reason; if graphs are demanded, that ends the start."""
    reference = ReferenceDecoder(folders["checkpoint"])
    gpu.refusal = "compute graph nodes have not been partitioned to the CUDAExecutionProvider"
    with capture_logs() as logs:
        runner = load(folders["scatter"])

    assert generate_greedily(runner, PROMPTS[:1], 5) == [reference.greedy(PROMPTS[0], 5)]
    [line] = [line for line in logs if line["event"] == "graphs.unavailable"]
    assert gpu.refusal in line["reason"]
    assert [session.asked for session in gpu.sessions] == [{"device_id": "0"}]
    assert set(gpu.sessions[0].graph_ids) == {0}
    with pytest.raises(ConfigurationError, match=r"cuda_graphs is on.*not been partitioned"):
        load(folders["scatter"], cuda_graphs="on")


def test_a_capture_that_fails_is_run_as_it_is(folders: dict[str, Path], gpu: ScriptedGpu) -> None:
    """As if for want of memory: shapes before it are replayed, and others never captured."""
    reference = ReferenceDecoder(folders["checkpoint"])
    gpu.max_graphs = 1
    runner = load(folders["scatter"], cuda_graphs="on")
    with capture_logs() as logs:
        runner.warm_up()
        for rows in (1, 2, 3, 1):
            expected = [reference.greedy(prompt, 5) for prompt in PROMPTS[:rows]]
            assert generate_greedily(runner, PROMPTS[:rows], 5) == expected

    assert [(line["captured"], line["reason"]) for line in logs] == [
        (1, "operation not permitted when stream is capturing")
    ]
    assert count_graphs(gpu.sessions[0]) == {1: 9, 2: 1}


def test_a_first_capture_that_fails_ends_the_start_where_graphs_are_demanded(
    folders: dict[str, Path], gpu: ScriptedGpu
) -> None:
    """The warm-up is the first to know."""
    gpu.max_graphs = 0
    with pytest.raises(ConfigurationError, match=r"is on, and the first decode cannot be captured"):
        load(folders["scatter"], cuda_graphs="on").warm_up()
    load(folders["scatter"]).warm_up()


def test_nothing_is_captured_beside_another_model(
    folders: dict[str, Path], gpu: ScriptedGpu
) -> None:
    """Its calls would fail while CUDA captures; once it is gone, shapes are captured again."""
    reference = ReferenceDecoder(folders["checkpoint"])
    runner = load(folders["scatter"])
    runner.warm_up()
    other = load(folders["genai"], cuda_graphs="off")
    with capture_logs() as logs:
        for rows in (1, 2):
            expected = [reference.greedy(prompt, 5) for prompt in PROMPTS[:rows]]
            assert generate_greedily(runner, PROMPTS[:rows], 5) == expected
            assert generate_greedily(other, PROMPTS[:rows], 5) == expected

    assert [(line["event"], line["reason"]) for line in logs] == [
        ("graphs.waiting", "other models of this process use a GPU")
    ]
    assert count_graphs(gpu.sessions[0]) == {1: 5}
    assert set(gpu.sessions[1].graph_ids) == {0}
    assert gpu.sessions[1].asked == {"device_id": "0"}
    other.close()
    generate_greedily(runner, PROMPTS[:2], 5)
    assert count_graphs(gpu.sessions[0]) == {1: 5, 2: 4}


class ForeignModel:
    """Of another backend."""


def test_nothing_is_captured_beside_a_model_of_another_backend(
    folders: dict[str, Path], gpu: ScriptedGpu
) -> None:
    """Nor does such a model load meanwhile: both are counted in one place."""
    runner = load(folders["scatter"])
    other = gpu_models.GPU_MODELS.open(ForeignModel)
    with capture_logs() as logs:
        runner.warm_up()
    assert [line["event"] for line in logs] == ["graphs.waiting"]
    assert count_graphs(gpu.sessions[0]) == {}

    gpu_models.GPU_MODELS.leave(other)

    generate_greedily(runner, PROMPTS[:1], 5)
    assert set(count_graphs(gpu.sessions[0])) == {1}


def test_graphs_are_not_counted_without_end(
    folders: dict[str, Path], gpu: ScriptedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime gives none back."""
    monkeypatch.setattr(capturing_decoder, "MAX_GRAPHS", 2)
    reference = ReferenceDecoder(folders["checkpoint"])
    runner = load(folders["scatter"])
    with capture_logs() as logs:
        for rows in (1, 2, 3, 2):
            expected = [reference.greedy(prompt, 4) for prompt in PROMPTS[:rows]]
            assert generate_greedily(runner, PROMPTS[:rows], 4) == expected

    assert [line["reason"] for line in logs] == ["there are 2 already"]
    assert count_graphs(gpu.sessions[0]) == {1: 3, 2: 6}


@pytest.mark.parametrize(
    ("convention", "provider", "reason"),
    [
        ("optimum", "cuda", "the decoder's caches grow"),
        ("genai", "cpu", "only the provider cuda is captured, not cpu"),
        ("scatter", "tensorrt_rtx", "only the provider cuda is captured, not tensorrt_rtx"),
    ],
)
def test_what_is_never_captured_is_refused_where_graphs_are_demanded(
    folders: dict[str, Path], convention: str, provider: str, reason: str
) -> None:
    """Nothing is captured silently not."""
    with pytest.raises(ConfigurationError, match=f"cuda_graphs is on.*{reason}"):
        load(folders[convention], provider=provider, cuda_graphs="on")


def test_a_decoder_whose_caches_grow_says_so(folders: dict[str, Path], gpu: ScriptedGpu) -> None:
    """And is served."""
    with capture_logs() as logs:
        runner = load(folders["optimum"])

    assert [line["reason"] for line in logs if line["event"] == "graphs.unavailable"] == [
        "the decoder's caches grow, so that every step has other shapes"
    ]
    expected = [ReferenceDecoder(folders["checkpoint"]).greedy(PROMPTS[0], 5)]
    assert generate_greedily(runner, PROMPTS[:1], 5) == expected
    assert [session.captures for session in gpu.sessions] == [False]


def test_an_error_of_a_replay_is_the_step_s(
    folders: dict[str, Path], gpu: ScriptedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ran before is not tried in another way: the GPU is not well."""
    runner = load(folders["scatter"])
    runner.warm_up()
    assert count_graphs(gpu.sessions[0]) == {1: 1}

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error 700")

    monkeypatch.setattr(ScriptedSession, "run_with_iobinding", fail)
    with pytest.raises(RuntimeError, match="CUDA error 700"):
        runner.execute_model(decode_batch([1], [8]))


def test_the_doctor_says_which_decoders_are_captured(
    gpu: ScriptedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is a runtime for CUDA."""
    [finding] = diagnose()
    assert "CUDA graphs of decoders that write caches in place (genai, scatter)" in finding.detail
    monkeypatch.undo()
    [finding] = diagnose()
    assert "CUDA graphs" not in finding.detail
    assert gpu.sessions == []


def test_each_thread_captures_for_itself(folders: dict[str, Path], gpu: ScriptedGpu) -> None:
    """As ONNX Runtime does: a model is warmed up by another thread than it is served by."""
    runner = load(folders["scatter"], cuda_graphs="on")
    runner.warm_up()
    answers: list[list[int]] = []
    thread = Thread(target=lambda: answers.extend(generate_greedily(runner, PROMPTS[:1], 6)))
    thread.start()
    thread.join()

    assert answers == [ReferenceDecoder(folders["checkpoint"]).greedy(PROMPTS[0], 6)]
    assert count_graphs(gpu.sessions[0]) == {1: 1, 2: 5}
    runner.close()
    assert len(gpu_models.GPU_MODELS._open) == 0


@pytest.mark.parametrize("setting", ["on", "off"])
def test_a_closed_runner_holds_no_session(
    folders: dict[str, Path], gpu: ScriptedGpu, setting: str
) -> None:
    """Weights and what was compiled go with it, although somebody still holds the runner."""
    runner = load(folders["scatter"], cuda_graphs=setting)
    runner.warm_up()
    assert len(gpu_models.GPU_MODELS._open) == len(gpu.sessions)
    runner.close()
    runner.close()

    assert len(gpu_models.GPU_MODELS._open) == 0
    with pytest.raises(EngineDead, match="the decoder is closed"):
        runner.execute_model(decode_batch([1], [8]))


def test_shapes_are_few() -> None:
    """Longest lengths go in steps of four."""
    assert [round_window(length, 5000) for length in (1, 256, 257, 1024, 1025, 4097)] == [
        256, 256, 1024, 1024, 4096, 5000,
    ]  # fmt: skip
    assert np.unique([round_window(length, 300) for length in range(1, 301)]).tolist() == [256, 300]
