"""Changes of keys that race: each writes what it changes, and none undoes a revocation."""

from pathlib import Path

import pytest

from provider_core.access import AccessDatabase, KeyStore
from provider_core.access.pepper import Pepper
from provider_core.errors import AuthenticationFailed
from tests.unit.access.test_keys import TestClock


def open_store(folder: Path, clock: TestClock) -> KeyStore:
    """What one process has of a folder's keys."""
    return KeyStore(AccessDatabase(folder / "access.sqlite"), Pepper(folder / "pepper"), clock)


async def test_a_change_that_began_before_a_revocation_revives_nothing(tmp_path: Path) -> None:
    """Whoever revoked it, and when: the second time changes nothing."""
    clock = TestClock()
    server, command_line = open_store(tmp_path, clock), open_store(tmp_path, clock)
    seen, secret = await server.create(label="app")
    revoked = await command_line.revoke(seen)
    clock.now_s += 60
    assert await server.update(seen, label="renamed", disabled=False) is None
    assert await server.revoke(seen) == revoked == await server.find(seen.id)
    with pytest.raises(AuthenticationFailed, match="revoked"):
        await server.authenticate(secret)
    server.close()
    command_line.close()


async def test_changes_of_different_facts_do_not_undo_each_other(tmp_path: Path) -> None:
    """Though both saw the key as it was before."""
    clock = TestClock()
    one, other = open_store(tmp_path, clock), open_store(tmp_path, clock)
    seen, _ = await one.create(label="app")
    await one.update(seen, disabled=True)
    changed = await other.update(seen, spend_limit="5")
    assert changed is not None
    assert (changed.disabled, changed.spend_limit, changed.label) == (True, "5", "app")
    one.close()
    other.close()
