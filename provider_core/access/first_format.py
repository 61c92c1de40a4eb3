"""`keys.json`, in which the first version kept its keys: read once more, never written."""

import json
import sqlite3
from functools import partial
from pathlib import Path

from provider_core.access import key_rows
from provider_core.access.api_key import ApiKey
from provider_core.access.database import AccessDatabase
from provider_core.errors import ConfigurationError

_VERSION = 1


def import_keys(data_dir: Path, database: AccessDatabase) -> None:
    """Take its keys over. Those that are known already stay as they are, revoked ones too.

    Raises:
        ConfigurationError: The file is there and cannot be understood.
    """
    path = data_dir / "keys.json"
    try:
        if not path.exists():
            return
        document = json.loads(path.read_bytes())
        entries = {_VERSION: document["keys"]}[document["version"]]
        for entry in entries:
            digest = bytes.fromhex(entry.pop("digest"))
            database.submit(partial(key_rows.insert, key=ApiKey(**entry), digest=digest)).result()
    except (OSError, ValueError, TypeError, KeyError, sqlite3.Error) as error:
        raise ConfigurationError(f"{path} is unreadable or damaged") from error
