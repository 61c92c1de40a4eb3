"""Platforms that call a container over HTTP: a profile each, `NAME.toml`, and no code.

The server does the rest; see `provider_core.platforms`. A value stands here only if it differs from
the core's own, and it is what the platform does unless told otherwise: who configures the platform
to wait longer says so in `provider.toml`, which is stronger.
"""
