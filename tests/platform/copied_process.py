"""A plugin whose process goes on twice after its snapshot, as a copy beside what it is a copy of.

The memory is shared by `fork`, which takes one thread along: the copy begins that of its log anew.
Each writes what it drew at random to the file `drawn-PID` of the working directory.
"""

import gc
import os
import random
from collections.abc import Generator
from pathlib import Path

from provider_core import hookimpl
from provider_core.observability.line_writer import LineWriter

_STDOUT = 1


class Copying:
    """The plugin."""

    @hookimpl(wrapper=True)
    def after_restore(self) -> Generator[None, None, object]:
        """Go on twice, the other plugins in each."""
        if os.fork() == 0:
            for each in gc.get_objects():
                if isinstance(each, LineWriter):
                    LineWriter.__init__(each, _STDOUT)
        answer = yield
        Path(f"drawn-{os.getpid()}").write_text(str(random.random()))  # noqa: S311 - to compare
        return answer


plugin = Copying()
