"""Where models come from: a folder's files from elsewhere, fetched, checked and kept.

A source says which files there are and reads their bytes by range (`RemoteFolder`); `fetch_folder`
does the rest, the same for all: several connections, retries, resumption, checksums, one download
for many processes. `docs/models.md` is the page for operators.
"""

from provider_core.sources.fetch import fetch_folder
from provider_core.sources.remote import (
    FetchProgress,
    RemoteFile,
    RemoteFolder,
    SourceUnavailable,
)

__all__ = ["FetchProgress", "RemoteFile", "RemoteFolder", "SourceUnavailable", "fetch_folder"]
