"""The command `provider`: it hears stop signals before it imports what it needs."""

import gc
import os
import signal
import sys


def main() -> None:
    """Run `provider` on `sys.argv`.

    The first process of a container has no default for a stop signal: one that came before a
    handler would be lost. Until the loop takes it over nothing runs that has to end in form.
    SIGHUP would end it, too: it is ignored, and the file is read anew once the models are loaded.
    """
    if sys.argv[1:2] == ["serve"]:
        gc.disable()  # what imports make stays; `run` turns it on again
        # numpy's BLAS starts a thread per core that spins for 0.1 s; nothing here multiplies by it.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # noqa: TID251 - not a setting of ours
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda *_: os._exit(0))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from provider_core.cli import main as run_command  # noqa: PLC0415 - takes most of a start

    run_command()


if __name__ == "__main__":
    main()
