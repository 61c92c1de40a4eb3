"""Threads for work that may never end, and must not keep the process from ending."""

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

_T = TypeVar("_T")


class DaemonExecutor:
    """Runs what is submitted, in order, on daemon threads that start with the first of it.

    The interpreter waits at its end for the threads of a `ThreadPoolExecutor`, whatever they do.

    Args:
        num_threads: How many things run at the same time.
        name: Of the threads.
    """

    def __init__(self, num_threads: int, name: str) -> None:
        self._num_threads = num_threads
        self._name = name
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._is_closed = False

    def submit(self, work: Callable[[], _T]) -> Future[_T]:
        """Run something; it may be cancelled until it begins.

        Whoever waits gets what it raised, or `RuntimeError` from what is no `Exception`: a panic of
        Rust, say, would pass everything that turns failures into answers.

        Raises:
            RuntimeError: It was closed.
        """
        if self._is_closed:
            raise RuntimeError("work for a closed executor")
        future: Future[_T] = Future()
        self._work.put(lambda: _run(future, work))
        if len(self._threads) < self._num_threads:
            thread = Thread(target=self._serve, name=self._name, daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def close(self) -> None:
        """Begin nothing more. Idempotent."""
        self._is_closed = True
        for _ in self._threads:
            self._work.put(None)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            if not self._is_closed:
                work()
            del work  # while it waits it keeps nobody's result


def _run(future: Future[_T], work: Callable[[], _T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except Exception as error:  # noqa: BLE001 - whoever waits has it
        future.set_exception(error)
    except BaseException as error:  # noqa: BLE001 - or nobody would ever be told
        panic = RuntimeError("the work broke off")
        panic.__cause__ = error
        future.set_exception(panic)
    else:
        future.set_result(result)
