"""What is known of a server before it starts."""

from pathlib import Path

import pytest

from provider_core import ConfigurationError
from provider_core.server.configuration import read_configuration

_FILE = """
data_dir = "data"
[limits]
queue_factor = 0.5
[[model]]
id = "one"
source = "nowhere"
max_num_seqs = 4
[[model]]
id = "two"
source = "nowhere"
max_num_seqs = 6
"""


def test_slots_and_places_are_of_all_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No folder is looked into, and nothing is written."""
    (tmp_path / "provider.toml").write_text(_FILE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    configuration = read_configuration("local")

    assert [spec.id for spec in configuration.specs] == ["one", "two"]
    assert configuration.num_slots == 10
    assert configuration.num_places == 15
    assert not (tmp_path / "data").exists()


def test_a_wrong_setting_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stops the server."""
    (tmp_path / "provider.toml").write_text("prot = 1\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigurationError, match="prot"):
        read_configuration("local")
