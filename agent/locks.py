"""Files that are locked by whoever they stand for.

The kernel gives a lock back with the process that held it, however that died; so a file that can
be locked is nobody's, or a dead process's. A locked file is moved into place, so that nobody ever
finds one of the living unlocked.
"""

import fcntl
import os
import time
from pathlib import Path

DRAFT = "."
"""First character of a file's name while it is being made."""


def lock(path: Path, *, create: bool = False) -> int | None:
    """A descriptor that holds the file's lock; None where it has gone, or somebody has it."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if not os.fstat(descriptor).st_nlink:  # its owner removed it while we opened it
        os.close(descriptor)
        return None
    return descriptor


def place_locked(path: Path, content: bytes = b"", *, times: tuple[int, int] | None = None) -> int:
    """Makes a file for the owner's eyes that is locked from its first moment on.

    Args:
        path: where it shall be.
        content: what it shall hold.
        times: nanoseconds of its last access and modification; None: now.
    """
    draft = path.with_name(f"{DRAFT}{os.getpid()}-{time.monotonic_ns()}")
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL
    descriptor = os.open(draft, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(descriptor, content)
        if times is not None:
            os.utime(descriptor, ns=times)
        draft.rename(path)
    except BaseException:
        os.close(descriptor)
        draft.unlink(missing_ok=True)
        raise
    return descriptor


def private_directory(path: Path) -> Path:
    """Makes the directory, for this user alone, if it is not there."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
