"""Where models come from: a folder's files from elsewhere, fetched, checked and kept.

A source says which files there are and reads their bytes by range (`remote.RemoteFolder`);
`fetch.fetch_folder` does the rest, the same for all: several connections, retries, resumption,
checksums, one download for many processes. `docs/models.md` is the page for operators.

Nothing is imported here: most starts serve a folder, and need no more than `remote`'s names.
"""
