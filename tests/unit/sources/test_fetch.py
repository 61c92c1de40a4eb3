"""From a source to a folder: whole or not at all, checked, resumed, and kept."""

import errno
import hashlib
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from provider_core.errors import ConfigurationError
from provider_core.sources import download as download_module
from provider_core.sources.fetch import fetch_folder
from provider_core.sources.remote import RemoteFile, SourceUnavailable
from tests.source_progress import NotedProgress
from tests.unit.sources.scripted_folder import RANGE, ScriptedFolder, failing

MODEL = {
    "config.json": b'{"model_type": "tiny"}',
    "model.onnx": bytes(range(256)) * 17,  # 4,352 bytes: five ranges
    "onnx/empty.data": b"",
    "tokenizer.json": b"{}" * 700,
}
NUM_BYTES = sum(map(len, MODEL.values()))


@pytest.fixture(autouse=True)
def _short_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,000 bytes, so that small files have many."""
    monkeypatch.setattr(download_module, "RANGE_BYTES", RANGE)


def fetch(source: ScriptedFolder, cache_dir: Path, progress: NotedProgress | None = None) -> Path:
    """Fetch it."""
    return fetch_folder(source, cache_dir, progress or NotedProgress())


def files_in(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_folder_comes_whole(tmp_path: Path) -> None:
    """All files, byte for byte, and nothing else; each byte is asked for once."""
    source = ScriptedFolder(MODEL)
    folder = fetch(source, tmp_path)
    assert files_in(folder) == MODEL
    assert sum(end - start for _, start, end in source.reads) == NUM_BYTES
    assert {path.name for path in folder.parent.iterdir()} == {".lock", folder.name}


def test_progress_is_told(tmp_path: Path) -> None:
    """Up to the last byte, and when configuration and tokenizer can be read."""
    progress = NotedProgress()
    fetch(ScriptedFolder(MODEL), tmp_path, progress)
    assert progress.steps[0] == (0, NUM_BYTES)
    assert progress.steps[-1] == (NUM_BYTES, NUM_BYTES)
    assert progress.steps == sorted(progress.steps)
    (there,) = progress.small
    assert {"config.json", "tokenizer.json"} <= set(there)


def test_what_is_here_is_not_fetched_again(tmp_path: Path) -> None:
    """A second start lists and reads nothing."""
    source = ScriptedFolder(MODEL)
    folder = fetch(source, tmp_path)
    source.reads.clear()
    progress = NotedProgress()
    assert fetch(source, tmp_path, progress) == folder
    assert (source.reads, progress.steps) == ([], [])


def test_another_version_goes_beside_the_one_before(tmp_path: Path) -> None:
    """A server that has the old files mapped does not notice."""
    old = fetch(ScriptedFolder(MODEL), tmp_path)
    changed = {**MODEL, "model.onnx": b"other"}
    new = fetch(ScriptedFolder(changed), tmp_path)
    assert (files_in(old), files_in(new)) == (MODEL, changed)


@pytest.mark.parametrize("has_sums", [True, False])
def test_failures_that_pass_are_tried_again(tmp_path: Path, *, has_sums: bool) -> None:
    """And cost no more than what had not come."""
    source = ScriptedFolder(MODEL, has_sums=has_sums, change=failing(0, 2, 3, 5, 8, 9))
    assert files_in(fetch(source, tmp_path)) == MODEL


def test_a_cut_off_range_goes_on_where_it_ended(tmp_path: Path) -> None:
    """What came of it is kept."""
    source = ScriptedFolder({"model.onnx": MODEL["model.onnx"][:900]})
    source.change = lambda number, piece: piece[:600] if number == 0 else piece
    assert files_in(fetch(source, tmp_path)) == source.content
    assert source.reads == [("model.onnx", 0, 900), ("model.onnx", 600, 900)]


def test_a_source_may_give_less_than_it_was_asked_for(tmp_path: Path) -> None:
    """Each time, and without a wait; what comes is what counts."""
    content = MODEL["model.onnx"][:RANGE]
    sums = f"{hashlib.sha256(content).hexdigest()}  model.onnx\n".encode()
    source = ScriptedFolder({"model.onnx": content, "SHA256SUMS": sums}, has_sums=False)
    source.change = lambda _, piece: piece[:40]
    with capture_logs() as logs:
        assert files_in(fetch(source, tmp_path)) == {"model.onnx": content}
    assert len(source.reads) == RANGE / 40 + math.ceil(len(sums) / 40)
    assert [line["event"] for line in logs] == ["model.fetched"]


def test_a_source_that_breaks_off_again_and_again_gets_there(tmp_path: Path) -> None:
    """Attempts are counted from the last one by which anything came."""

    class Breaking(ScriptedFolder):
        def read(self, file: RemoteFile, start: int, end: int) -> Iterator[bytes]:
            self.reads.append((file.path, start, end))
            yield self.content[file.path][start : start + 40]
            raise SourceUnavailable("broken off")

    source = Breaking({"model.onnx": MODEL["model.onnx"][:RANGE]})
    assert files_in(fetch(source, tmp_path)) == source.content


def test_more_than_was_asked_for_is_no_answer(tmp_path: Path) -> None:
    """It would write over the next range."""
    source = ScriptedFolder(MODEL)
    source.change = lambda number, piece: piece * 2 if number == 1 else piece
    assert files_in(fetch(source, tmp_path)) == MODEL


def test_a_damaged_file_is_fetched_again(tmp_path: Path) -> None:
    """And said to be so; the progress goes back."""
    source = ScriptedFolder(MODEL)
    source.change = lambda number, piece: piece[::-1] if number == 2 else piece
    progress = NotedProgress()
    with capture_logs() as logs:
        assert files_in(fetch(source, tmp_path, progress)) == MODEL
    assert [line["event"] for line in logs] == ["model.file_damaged", "model.fetched"]
    assert progress.steps != sorted(progress.steps)
    assert progress.steps[-1] == (NUM_BYTES, NUM_BYTES)


def test_a_file_that_is_damaged_each_time_is_refused(tmp_path: Path) -> None:
    """Nothing of that version is served, now or at the next start."""
    source = ScriptedFolder(MODEL)
    source.change = lambda _, piece: b"\0" * len(piece)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="does not match its SHA-256"):
            fetch(source, tmp_path)


def test_a_fetch_that_failed_goes_on(tmp_path: Path) -> None:
    """What is on disk is not asked for again; a process that was killed leaves the same."""
    source = ScriptedFolder(MODEL, change=failing(*range(4, 100)))
    with pytest.raises(ConfigurationError, match="cannot be fetched: busy"):
        fetch(source, tmp_path)
    source.change = lambda _, piece: piece
    source.reads.clear()
    progress = NotedProgress()
    assert files_in(fetch(source, tmp_path, progress)) == MODEL
    num_kept = progress.steps[0][0]
    assert num_kept >= RANGE
    assert sum(end - start for _, start, end in source.reads) == NUM_BYTES - num_kept


def test_a_file_of_another_size_is_not_taken_for_whole(tmp_path: Path) -> None:
    """As a disk may leave one that loses power."""
    source = ScriptedFolder(MODEL)
    folder = fetch(source, tmp_path)
    folder.with_name(f"{folder.name}.parts").mkdir()  # as if it had not been finished
    (folder / "config.json").write_bytes(MODEL["config.json"] + b"\1")
    source.reads.clear()
    assert files_in(fetch(source, tmp_path)) == MODEL
    assert {path for path, _, _ in source.reads} == {"config.json"}


def test_a_failure_for_good_stops_what_is_under_way(tmp_path: Path) -> None:
    """Nobody waits for ranges that nobody needs."""

    class Changed(ScriptedFolder):
        def read(self, file: RemoteFile, start: int, end: int) -> Iterator[bytes]:
            if file.path == "tokenizer.json":
                raise ConfigurationError("it changed")
            while True:
                yield b""

    with pytest.raises(ConfigurationError, match="it changed"):
        fetch(Changed({**MODEL, "config.json": b""}), tmp_path)


def test_a_source_that_is_away_is_served_from_its_copy(tmp_path: Path) -> None:
    """The last one that was used; and said so."""

    class Away(ScriptedFolder):
        def list_files(self) -> Sequence[RemoteFile]:
            self.num_listed += 1
            raise SourceUnavailable("no answer")

    away = Away({})
    with pytest.raises(ConfigurationError, match=r"test://folder/tiny cannot .* no answer"):
        fetch(away, tmp_path)
    assert away.num_listed == 8
    first = fetch(ScriptedFolder(MODEL), tmp_path)
    other = fetch(ScriptedFolder({**MODEL, "model.onnx": b"other"}), tmp_path)
    os.utime(other, ns=(1, 1))
    half = tmp_path / first.parent.name / "half"
    half.mkdir()
    half.with_name("half.parts").mkdir()
    with capture_logs() as logs:
        assert fetch(away, tmp_path) == first
    assert away.num_listed == 8 + 2  # nobody waits long for what can be done without
    assert logs[-1]["event"] == "model.source_unavailable"


def test_a_disk_that_is_too_small_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is fetched; what is there already needs no room."""
    free = [NUM_BYTES - 1]
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free[0]))
    source = ScriptedFolder(MODEL)
    with pytest.raises(ConfigurationError, match=r"needs 0\.0 GB more .* set data_dir"):
        fetch(source, tmp_path)
    assert source.reads == []
    free[0] = NUM_BYTES
    assert files_in(fetch(source, tmp_path)) == MODEL


def test_a_disk_that_fails_is_said_to_be_so(tmp_path: Path) -> None:
    """With its own words."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"cannot be kept in .*: Not a directory"):
        fetch(ScriptedFolder(MODEL), tmp_path / "file")


@pytest.mark.parametrize(
    "path", ["../escape", "/etc/passwd", "a/../../b", "a//b", "./a", "a\\b", "a\nb", "", ".."]
)
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, path: str) -> None:
    """A source's names are data from strangers."""
    with pytest.raises(ConfigurationError, match="no path in a folder"):
        fetch(ScriptedFolder({path: b"x"}), tmp_path)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    """Nothing at all, and a whole bucket."""
    with pytest.raises(ConfigurationError, match="holds no files"):
        fetch(ScriptedFolder({}), tmp_path)
    with pytest.raises(ConfigurationError, match="more than 1000 files"):
        fetch(ScriptedFolder({f"{i}.json": b"" for i in range(1001)}), tmp_path)


def test_sums_in_the_folder_are_held_to(tmp_path: Path) -> None:
    """Also where the source itself gives none."""
    files = {name: content for name, content in MODEL.items() if "/" not in name}
    named = ScriptedFolder(files).list_files()
    sums = "".join(f"{file.sha256}  {file.path}\n" for file in named).encode()
    source = ScriptedFolder({**files, "SHA256SUMS": sums}, has_sums=False)
    source.change = lambda number, piece: piece[::-1] if number == 3 else piece
    with capture_logs() as logs:
        assert files_in(fetch(source, tmp_path)) == files
    assert logs[0]["event"] == "model.file_damaged"
    absent = ScriptedFolder({"SHA256SUMS": sums}, has_sums=False, uri="test://folder/other")
    with pytest.raises(ConfigurationError, match=r"names 'config\.json', which is not there"):
        fetch(absent, tmp_path)


def test_a_connection_that_is_too_slow_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For another one, which goes on from there."""
    now_s = iter(range(0, 10**6, 20))
    monkeypatch.setattr("provider_core.sources.download.time.monotonic", lambda: next(now_s))
    monkeypatch.setattr(download_module, "NUM_CONNECTIONS", 1)

    class Trickle(ScriptedFolder):
        def read(self, file: RemoteFile, start: int, end: int) -> Iterator[bytes]:
            self.reads.append((file.path, start, end))
            yield from (self.content[file.path][i : i + 1] for i in range(start, end))

    source = Trickle({"model.onnx": b"abcdef"})
    assert files_in(fetch(source, tmp_path)) == source.content
    assert source.reads == [("model.onnx", first, 6) for first in (0, 2, 4)]


def test_what_the_listener_raises_ends_the_fetch(tmp_path: Path) -> None:
    """A configuration that does not fit is said before gigabytes come."""

    class Refusing(NotedProgress):
        def small_files_ready(self, folder: Path) -> None:
            raise ConfigurationError("max_model_len is over the limit")

    with pytest.raises(ConfigurationError, match="over the limit"):
        fetch(ScriptedFolder(MODEL), tmp_path, Refusing())


def test_a_copy_on_a_read_only_disk_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that came with the image, also when the source has another by now."""
    source = ScriptedFolder(MODEL)
    folder = fetch(source, tmp_path)

    def refuse(*args: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    assert fetch(source, tmp_path) == folder
    source.content = {"model.onnx": b"other"}
    with capture_logs() as logs:
        assert fetch(source, tmp_path) == folder
    assert [line["event"] for line in logs] == ["model.copy_outdated"]
    source.uri = "test://folder/none"
    with pytest.raises(ConfigurationError, match="Read-only file system"):
        fetch(source, tmp_path)


def test_a_file_without_ranges_needs_no_request(tmp_path: Path) -> None:
    """There is nothing to ask for."""
    source = ScriptedFolder({"config.json": b""})
    assert files_in(fetch(source, tmp_path)) == source.content
    assert source.reads == []
