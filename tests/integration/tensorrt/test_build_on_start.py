"""Engines that are missing when a server starts: named, or built if the operator asked for it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provider_core import ConfigurationError, ModelSpec
from provider_tensorrt import building
from provider_tensorrt.artefact import FOLDER, MANIFEST, FoundEngine
from provider_tensorrt.library import TensorRt
from provider_tensorrt.loading import find_or_build_engine
from provider_tensorrt.settings import TensorRtSettings

SPEC = ModelSpec(id="tiny", source="", max_num_seqs=2, max_model_len=64, may_build=True)


def find(
    spec: ModelSpec, folder: Path, library: TensorRt, **options: object
) -> tuple[FoundEngine, list[str]]:
    """The engine for a GPU of compute capability 8.9, and what was reported on the way."""
    said: list[str] = []
    settings = TensorRtSettings.model_validate(options)
    found, content = find_or_build_engine(spec, folder, settings, library, "8.9", said.append)
    assert len(content) == found.record.num_bytes
    return found, said


def test_nothing_is_built_unless_it_was_asked_for(tiny_model: Path, library: TensorRt) -> None:
    """The message names the command."""
    with pytest.raises(ConfigurationError, match="run: provider build-engine"):
        find(replace(SPEC, may_build=False), tiny_model, library)

    assert not (tiny_model / FOLDER).exists()


def test_a_missing_engine_is_built_once(tiny_model: Path, library: TensorRt) -> None:
    """For what the server is configured to hold; `/readyz` hears how far it is."""
    built, said = find(SPEC, tiny_model, library)

    assert said[-1] == "building engine, 100 %"
    assert len(said) > 2
    limits = built.record.key.limits
    assert (limits.max_model_len, limits.max_num_seqs) == (64, 2)
    smaller = replace(SPEC, max_num_seqs=1, max_model_len=32)
    found, said = find(smaller, tiny_model, library)
    assert (found.record, said) == (built.record, [])


def test_an_engine_that_another_server_built_in_the_meantime_is_taken(
    tiny_model: Path, library: TensorRt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waited for the folder looks again, and for any engine that fits."""
    build_engines = building.build_engines

    def wait(model_dir: Path, *arguments: Any, **options: Any) -> object:
        monkeypatch.undo()
        find(replace(SPEC, max_num_seqs=3), model_dir, library)
        return build_engines(model_dir, *arguments, **options)

    monkeypatch.setattr(building, "build_engines", wait)
    found, _ = find(SPEC, tiny_model, library)

    assert found.record.key.limits.max_num_seqs == 3
    assert len(found.manifest.engines) == 1


@pytest.mark.parametrize("damage", ["truncated", "gone", "manifest"])
def test_an_engine_that_is_not_whole_is_built_again(
    tiny_model: Path, library: TensorRt, damage: str
) -> None:
    """A disk was full once, or half a folder was copied: no reason to stay down."""
    built, _ = find(SPEC, tiny_model, library)
    if damage == "truncated":
        built.path.write_bytes(built.path.read_bytes()[:5])
    elif damage == "gone":
        built.path.unlink()
    else:
        (tiny_model / FOLDER / MANIFEST).write_text("{")
    with pytest.raises(ConfigurationError, match="run: provider build-engine"):
        find(replace(SPEC, may_build=False), tiny_model, library)

    rebuilt, said = find(SPEC, tiny_model, library)

    assert said[-1] == "building engine, 100 %"
    assert find(SPEC, tiny_model, library) == (rebuilt, [])


def test_an_engine_that_is_not_trusted_is_not_built_again(
    tiny_model: Path, library: TensorRt
) -> None:
    """The new one would not be trusted, either."""
    find(SPEC, tiny_model, library)

    with pytest.raises(ConfigurationError, match="is not among the trusted engines"):
        find(SPEC, tiny_model, library, trusted_engines=("0" * 64,))


def test_engines_can_lie_elsewhere(tiny_model: Path, tmp_path: Path, library: TensorRt) -> None:
    """For a folder of models that cannot be written."""
    built, _ = find(SPEC, tiny_model, library, engine_dir=tmp_path / "elsewhere")

    assert built.path.parent == tmp_path / "elsewhere"
    assert not (tiny_model / FOLDER).exists()
