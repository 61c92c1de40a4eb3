"""The cache of optimised graphs: what is found was written by us, whole, for this very key."""

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from provider_onnxruntime.optimise.cache import (
    DATA,
    GRAPH,
    MANIFEST,
    MAX_ENTRIES,
    SAMPLED_BYTES,
    GraphCache,
    InvalidEntry,
    fingerprint,
    fingerprint_source,
    make_key,
    read_processor_features,
)

KEY = "0123abcd"


def write_files(folder: Path) -> None:
    """A graph and weights of more than is hashed whole."""
    (folder / GRAPH).write_bytes(b"graph" * 100)
    (folder / DATA).write_bytes(bytes(SAMPLED_BYTES + 2**16))


@pytest.fixture
def cache(tmp_path: Path) -> GraphCache:
    """A cache with one entry."""
    cache = GraphCache(tmp_path / "cache")
    cache.build(KEY, write_files)
    return cache


@pytest.fixture
def entry(cache: GraphCache, tmp_path: Path) -> Path:
    """The entry's folder."""
    return tmp_path / "cache" / KEY


def test_nothing_is_found_where_nothing_was_built(tmp_path: Path) -> None:
    """Neither without the folder nor in an empty one; and looking makes none."""
    assert GraphCache(tmp_path / "none").find(KEY) is None
    assert GraphCache(tmp_path).find(KEY) is None
    assert list(tmp_path.iterdir()) == []


def test_an_entry_is_found_again(cache: GraphCache, entry: Path) -> None:
    """With the files that were made, and no others."""
    assert cache.find(KEY) == entry / GRAPH
    assert (entry / GRAPH).read_bytes() == b"graph" * 100
    assert {path.name for path in entry.iterdir()} == {GRAPH, DATA, MANIFEST}
    assert cache.find("another") is None


def test_an_entry_is_made_once(cache: GraphCache, entry: Path) -> None:
    """Who asks for one that is there gets it."""

    def refuse(folder: Path) -> None:
        pytest.fail("made again")

    assert cache.build(KEY, refuse) == entry / GRAPH


def flip(path: Path, offset: int) -> None:
    """Change a byte in place, and leave the time of the last change as it was."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def link_from_outside(entry: Path) -> None:
    """A weight file that is somewhere else."""
    outside = entry.parent.parent / "outside"
    (entry / DATA).rename(outside)
    (entry / DATA).symlink_to(outside)


def link_hard(entry: Path) -> None:
    """A weight file with a second name."""
    os.link(entry / DATA, entry.parent.parent / "second")


def link_entry(entry: Path) -> None:
    """The whole entry somewhere else."""
    entry.rename(entry.parent.parent / "elsewhere")
    entry.symlink_to(entry.parent.parent / "elsewhere")


def change_manifest(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    """Something else in the manifest."""

    def damage(entry: Path) -> None:
        manifest = json.loads((entry / MANIFEST).read_bytes())
        change(manifest)
        (entry / MANIFEST).write_text(json.dumps(manifest))

    return damage


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated graph": lambda entry: os.truncate(entry / GRAPH, 100),
    "truncated weights": lambda entry: os.truncate(entry / DATA, 2**16),
    "longer weights": lambda entry: os.truncate(entry / DATA, 2**26),
    "empty weights": lambda entry: os.truncate(entry / DATA, 0),
    "a flipped bit of the graph": lambda entry: flip(entry / GRAPH, 77),
    "a flipped bit at the weights' start": lambda entry: flip(entry / DATA, 0),
    "a flipped bit at the weights' end": lambda entry: flip(
        entry / DATA, SAMPLED_BYTES + 2**16 - 1
    ),
    "no graph": lambda entry: (entry / GRAPH).unlink(),
    "no weights": lambda entry: (entry / DATA).unlink(),
    "no manifest": lambda entry: (entry / MANIFEST).unlink(),
    "an empty manifest": lambda entry: (entry / MANIFEST).write_bytes(b""),
    "a manifest that is no JSON": lambda entry: (entry / MANIFEST).write_bytes(b"\xff{"),
    "a manifest that is a list": lambda entry: (entry / MANIFEST).write_text("[]"),
    "a deep manifest": lambda entry: (entry / MANIFEST).write_text("[" * 60_000),
    "a huge manifest": lambda entry: os.truncate(entry / MANIFEST, 2**20),
    "a manifest without files": change_manifest(lambda it: it.pop("files")),
    "a manifest with a list of files": change_manifest(lambda it: it.update(files=[GRAPH])),
    "a manifest of no files": change_manifest(lambda it: it.update(files={})),
    "a manifest of numbers": change_manifest(lambda it: it.update(files={GRAPH: 1})),
    "a manifest of another key": change_manifest(lambda it: it.update(key="other")),
    "a manifest that leaves the entry": change_manifest(
        lambda it: it.update(files={GRAPH: {}, "../../etc": {}})
    ),
    "a symbolic link": link_from_outside,
    "a hard link": link_hard,
    "a linked entry": link_entry,
    "weights that all may write": lambda entry: (entry / DATA).chmod(0o666),
    "a graph that the group may write": lambda entry: (entry / GRAPH).chmod(0o664),
    "a manifest that all may write": lambda entry: (entry / MANIFEST).chmod(0o646),
    "an entry that all may write": lambda entry: entry.chmod(0o777),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_noticed_and_repaired(
    damage: Callable[[Path], object], cache: GraphCache, entry: Path
) -> None:
    """An entry that is not what was written is refused with a reason, and can be built again."""
    damage(entry)
    with pytest.raises(InvalidEntry, match=r"\w"):
        cache.find(KEY)
    cache.build(KEY, write_files)
    assert cache.find(KEY) == entry / GRAPH


def test_a_file_where_an_entry_should_be_is_replaced(cache: GraphCache, tmp_path: Path) -> None:
    """It is no folder of ours."""
    (tmp_path / "cache" / "other").write_text("what")
    with pytest.raises(InvalidEntry):
        cache.find("other")
    assert cache.build("other", write_files).is_file()


def test_a_folder_that_all_may_write_is_not_used(cache: GraphCache, tmp_path: Path) -> None:
    """Anybody could put an entry there."""
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(InvalidEntry):
        cache.find(KEY)
    with pytest.raises(OSError, match="written by others"):
        cache.build("other", write_files)


def test_files_of_another_user_are_not_used(
    cache: GraphCache, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only our own, and those of root, who can do anything."""
    if os.geteuid() == 0:
        os.chown(entry / DATA, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(InvalidEntry, match="somebody else"):
        cache.find(KEY)


def test_files_of_root_are_used(cache: GraphCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are built by root and run by others."""
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    if owner == 0:
        assert cache.find(KEY) is not None
    else:
        with pytest.raises(InvalidEntry):
            cache.find(KEY)


def test_every_byte_is_compared(cache: GraphCache, entry: Path) -> None:
    """Samples may miss one flipped bit among gigabytes; who builds then looks at all of them."""
    cache.compare(KEY)
    flip(entry / DATA, 4096 + 5)
    assert cache.find(KEY) == entry / GRAPH
    with pytest.raises(InvalidEntry, match=DATA):
        cache.compare(KEY)
    cache.build(KEY, write_files)
    cache.compare(KEY)


def test_an_entry_that_cannot_be_used_is_replaced_under_the_lock(cache: GraphCache) -> None:
    """Whatever its manifest says, and but once: the next server leaves what it finds."""
    made: list[Path] = []

    def make(folder: Path) -> None:
        write_files(folder)
        made.append(folder)

    def refuse(graph: Path) -> None:
        raise InvalidEntry("no runtime reads it")

    cache.build(KEY, make, refuse)
    assert len(made) == 1
    cache.build(KEY, make, lambda _: None)
    assert len(made) == 1


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    """A full disk, half way."""

    def fail(folder: Path) -> None:
        (folder / GRAPH).write_bytes(b"half")
        raise OSError("No space left on device")

    cache = GraphCache(tmp_path / "cache")
    with pytest.raises(OSError, match="No space"):
        cache.build(KEY, fail)
    assert cache.find(KEY) is None
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"lock"}


def test_what_a_killed_server_left_is_cleared_away(cache: GraphCache, tmp_path: Path) -> None:
    """The next one that builds removes it."""
    left = tmp_path / "cache" / "building-x"
    left.mkdir()
    (left / DATA).write_bytes(b"half")
    cache.build("another", write_files)
    assert not left.exists()


def test_old_entries_make_room(tmp_path: Path) -> None:
    """Versions and weight sets that nobody uses any more do not fill the disk."""
    cache = GraphCache(tmp_path)

    def write_small(folder: Path) -> None:
        (folder / GRAPH).write_bytes(b"small")

    keys = [f"key{number}" for number in range(MAX_ENTRIES + 2)]
    for number, key in enumerate(keys):
        entry = cache.build(key, write_small).parent
        os.utime(entry / MANIFEST, (number, number))
    assert [key for key in keys if cache.find(key)] == keys[2:]


def _build(folder: Path, started: Path) -> None:
    def count(target: Path) -> None:
        with started.open("a") as file:
            file.write("x")
        write_files(target)

    GraphCache(folder).build(KEY, count)


def test_two_servers_that_start_at_once_build_once(tmp_path: Path) -> None:
    """The second waits for the first one's entry."""
    started = tmp_path / "started"
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_build, args=(tmp_path / "cache", started)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert started.read_text() == "x"
    assert GraphCache(tmp_path / "cache").find(KEY) is not None


def test_a_key_depends_on_every_part() -> None:
    """And on nothing else, such as their order."""
    parts = {"version": 1, "processor": "a", "weights": None}
    assert make_key(parts) == make_key(dict(reversed(parts.items())))
    keys = {make_key({**parts, name: "other"}) for name in parts} | {make_key(parts)}
    assert len(keys) == len(parts) + 1


def test_a_model_that_changed_is_another(tmp_path: Path) -> None:
    """By size, by content, and where samples do not see it by when it was written."""
    path = tmp_path / "model.onnx.data"
    path.write_bytes(bytes(SAMPLED_BYTES + 2**16))
    os.utime(path, (1000, 1000))
    seen = [fingerprint_source([path])]
    flip(path, 0)
    seen.append(fingerprint_source([path]))
    os.truncate(path, SAMPLED_BYTES + 2**17)
    os.utime(path, (1000, 1000))
    seen.append(fingerprint_source([path]))
    flip(path, 4096 + 5)
    assert fingerprint_source([path]) == seen[-1]
    os.utime(path, (1001, 1001))
    seen.append(fingerprint_source([path]))
    assert all(one != other for one in seen for other in seen if one is not other)


def test_small_files_are_compared_whole(tmp_path: Path) -> None:
    """Every byte counts."""
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(2**16))
    before = fingerprint(path)
    flip(path, 12345)
    assert fingerprint(path) != before


CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Some CPU
cpu MHz\t\t: {mhz}
flags\t\t: fpu sse2 {flag}

processor\t: 1
flags\t\t: ignored
"""


def test_processors_differ_by_their_instructions(tmp_path: Path) -> None:
    """And not by the speed they happen to run at."""
    path = tmp_path / "cpuinfo"

    def features(**values: object) -> str:
        path.write_text(CPUINFO.format(**values))
        return read_processor_features(path)

    assert features(mhz=1, flag="avx2") == features(mhz=2, flag="avx2")
    assert features(mhz=1, flag="avx2") != features(mhz=1, flag="avx512_vnni")
    assert "ignored" not in features(mhz=1, flag="avx2")
    assert read_processor_features(tmp_path / "none") != ""
