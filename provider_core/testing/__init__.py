"""For the tests of plugin authors, and ours: a scripted runner and the contracts to fulfil."""

from provider_core.testing.scripted_runner import ScriptedRunner

__all__ = ["ScriptedRunner"]
