"""infra/logs/fluent-bit.yaml: what runs of Fluent Bit itself showed to lose bills stays mended.

No registry that continuous integration reaches has the program; test_s3_shippers.py runs it where
it is installed.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from tests.infra.shipping import bills

CONFIGURATION = Path(__file__).parents[2] / "infra/logs/fluent-bit.yaml"
FLUENT_BIT: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text())
(TAIL,) = FLUENT_BIT["pipeline"]["inputs"]
(GREP,) = FLUENT_BIT["pipeline"]["filters"]
(S3,) = FLUENT_BIT["pipeline"]["outputs"]


def test_files_are_read_from_their_beginning_to_their_end() -> None:
    """Those that were there before it, those that were rotated, and those with a long line."""
    assert TAIL["read_from_head"] is True
    assert TAIL["path"].endswith(".log*")
    assert TAIL["skip_long_lines"] is True  # without it such a file is left for good


def test_a_position_moves_on_after_what_was_read_is_kept() -> None:
    """What has been read is on disk before, and reading waits where there is no more room."""
    assert FLUENT_BIT["service"]["storage.sync"] == "full"
    assert TAIL["db"].startswith("/var/lib/")
    assert TAIL["db.sync"] == "full"
    assert TAIL["storage.type"] == "filesystem"
    assert TAIL["storage.pause_on_chunks_overlimit"] is True


def test_nothing_is_given_up() -> None:
    """S3's plugin takes no limit for five tries, and a limit of its size for leave to drop."""
    assert S3["retry_limit"] >= 10**9
    assert not {"storage.total_limit_size", "store_dir_limit_size"} & set(S3)


def test_the_filter_passes_bills_alone(tmp_path: Path) -> None:
    """By how a line begins, wherever else it has the words."""
    key, pattern = GREP["regex"].split(" ", 1)
    assert key == S3["log_key"] == "log"
    assert all(re.search(pattern, line.decode()) for line in bills(tmp_path / "journal", 1))
    others = ['{"event":"server.ready"}', 'Traceback: "event":"usage.final"']
    assert not any(re.search(pattern, line) for line in others)
