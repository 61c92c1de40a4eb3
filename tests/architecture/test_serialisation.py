"""What is read from disk or from a client is data: nothing that we ship unpickles."""

import re
import tomllib

import pytest

from tests.architecture.source_files import ROOT, SHIPPED, SourceFile, source_files

UNPICKLERS = {"cloudpickle", "dill", "diskcache", "joblib", "marshal", "pickle", "shelve"}


@pytest.mark.parametrize("file", source_files(*SHIPPED), ids=lambda file: str(file.path))
def test_s11_no_module_unpickles(file: SourceFile) -> None:
    """S11: an object from a file or a client could run code."""
    assert {name.partition(".")[0] for name in file.imports()} & UNPICKLERS == set()
    assert "allow_pickle=True" not in file.text


def test_s11_no_dependency_is_a_pickling_cache() -> None:
    """S11: caches on disk that unpickle come in with nobody's help."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.split(r"[^A-Za-z0-9_-]", entry)[0].lower() for group in groups for entry in group}
    assert "aiohttp" in names
    assert names & UNPICKLERS == set()
