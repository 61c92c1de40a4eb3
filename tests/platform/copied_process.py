"""A plugin whose process goes on twice after its snapshot, as a copy beside what it is a copy of.

The memory is shared by `fork`, which takes one thread along: the copy begins that of its log anew.
"""

import gc
import os
import sys

from provider_core import hookimpl
from provider_core.observability.line_writer import LineWriter

LOADS = "a model is loaded"
"""Written to standard error at each."""
_STDOUT = 1


class Copying:
    """The plugin."""

    @hookimpl(tryfirst=True)
    def load_model(self) -> None:
        """Say that it is, and leave it to another plugin."""
        sys.stderr.write(f"{LOADS}\n")

    @hookimpl(tryfirst=True)
    def after_restore(self) -> None:
        """Go on twice, the other plugins in each."""
        if os.fork() == 0:
            for each in gc.get_objects():
                if isinstance(each, LineWriter):
                    LineWriter.__init__(each, _STDOUT)


plugin = Copying()
