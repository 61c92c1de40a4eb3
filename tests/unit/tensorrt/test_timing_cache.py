"""Times of kernels that builds leave for the next ones."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from provider_export.export import export_decoder
from provider_tensorrt import building
from provider_tensorrt.artefact import FOLDER
from provider_tensorrt.builder import attach_timing_cache
from provider_tensorrt.building import build_engines
from provider_tensorrt.library import TensorRt
from tests.tiny_checkpoints import write_checkpoint

USABLE, OF_ANOTHER_GPU, DAMAGED = b"usable", b"of another GPU", b"damaged"


class ScriptedConfig:
    """`IBuilderConfig`, as far as it takes timing caches."""

    attached: SimpleNamespace | None = None

    def create_timing_cache(self, content: bytes) -> SimpleNamespace | None:
        """None of what cannot be read."""
        return None if content == DAMAGED else SimpleNamespace(content=content)

    def set_timing_cache(self, cache: SimpleNamespace, *, ignore_mismatch: bool) -> bool:
        """Whether it is of this GPU."""
        assert not ignore_mismatch
        if cache.content == OF_ANOTHER_GPU:
            return False
        self.attached = cache
        return True


@pytest.mark.parametrize(
    ("content", "expected"),
    [(USABLE, USABLE), (b"", b""), (OF_ANOTHER_GPU, b""), (DAMAGED, b"")],
)
def test_times_that_do_not_fit_are_measured_anew(content: bytes, expected: bytes) -> None:
    """And there is a cache for them, which the next build finds."""
    config = ScriptedConfig()

    cache = attach_timing_cache(config, content)

    assert cache is config.attached
    assert cache is not None
    assert cache.content == expected


def test_each_kind_of_gpu_has_times_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder is shared by machines, and neither takes the other's for its own."""
    model_dir = export_decoder(
        write_checkpoint(tmp_path / "source"), tmp_path / "model", target="tensorrt"
    ).parent
    given = []

    def build_engine(*arguments: Any, timing_cache: bytes, **_: Any) -> tuple[bytes, bytes]:
        given.append(timing_cache)
        return f"engine {len(given)}".encode(), f"times of {arguments[3]}".encode()

    monkeypatch.setattr(building, "build_engine", build_engine)
    monkeypatch.setattr(building, "check_capability", lambda *_: None)
    for max_num_seqs in (1, 2):
        build_engines(
            model_dir,
            TensorRt("tensorrt", "11.3", SimpleNamespace()),
            max_num_seqs=max_num_seqs,
            max_prefill_tokens=16,
            compute_capabilities=("8.0", "9.0"),
        )

    assert given == [b"", b"", b"times of 8.0", b"times of 9.0"]
    assert {path.name for path in (model_dir / FOLDER).glob("*.timing")} == {
        "tensorrt-11.3-sm80.timing",
        "tensorrt-11.3-sm90.timing",
    }
