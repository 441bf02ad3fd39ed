"""Programs that stand still, as on a host that hangs: their sockets stay open and say nothing."""

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def frozen(pids: Iterable[int]) -> Iterator[None]:
    """These processes do not run inside the context, and go on after it, whatever happened."""
    stopped = tuple(pids)
    assert stopped
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
