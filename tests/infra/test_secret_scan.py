"""The rule for leaked keys: it finds minted ones, and none in this repository."""

import re
import subprocess
import tomllib
from pathlib import Path

from provider_core.access.key_format import KEY_PATTERN, mint

ROOT = Path(__file__).parents[2]
(RULE,) = tomllib.loads((ROOT / "infra/secrets/gitleaks.toml").read_text())["rules"]
REGEX = re.compile(RULE["regex"])


def test_minted_keys_are_found_in_any_text() -> None:
    """By the pattern that the server's own code names."""
    assert KEY_PATTERN in RULE["regex"]
    for _ in range(100):
        key = mint().key
        found = REGEX.search(f'OPENAI_API_KEY="{key}"\n')
        assert found is not None
        assert found[RULE["secretGroup"]] == key
        assert any(word in key for word in RULE["keywords"])


def commits_with_keys(repository: Path) -> list[str]:
    """Those that brought one in or took one away, as gitleaks looks at each commit's lines."""
    return subprocess.run(
        ["git", "log", f"-G{KEY_PATTERN}", "--format=%h"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()


def test_no_key_was_ever_in_the_repository(tmp_path: Path) -> None:
    """A key that was taken away has leaked all the same."""
    assert commits_with_keys(ROOT) == []
    as_nobody = ["git", "-c", "user.name=nobody", "-c", "user.email=nobody@example.com"]
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    for text in (f"key = {mint().key}\n", "key = \n"):
        (tmp_path / "leak.txt").write_text(text)
        subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
        subprocess.run([*as_nobody, "commit", "--quiet", "-m", "."], cwd=tmp_path, check=True)
    assert len(commits_with_keys(tmp_path)) == 2


def test_no_key_is_in_the_repository() -> None:
    """Nor in what is not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    assert len(paths) > 500
    leaked = [
        str(path.relative_to(ROOT))
        for path in paths
        if path.is_file() and REGEX.search(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert leaked == []
