"""The one place where asyncpg's errors become ours."""

import contextlib
from collections.abc import Iterator

import asyncpg

from core.errors import AppError, Conflict, StoreError, StoreUnavailable

_UNIQUE_VIOLATION = "23505"
_FOREIGN_KEY_VIOLATION = "23503"
_REJECTED_CLASSES = frozenset({"22", "23"})
# 08 connection, 25006 read-only (a standby), 40 rolled back, 53 no resources, 55P03 lock not
# available, 57 operator intervention, 58 system error: the same statement may work later.
_UNAVAILABLE = ("08", "25006", "40", "53", "55P03", "57", "58")


class Rejected(StoreError):  # noqa: N818 - named like its siblings NotFound and Conflict
    """PostgreSQL refuses these values; the same statement will fail again.

    Attributes:
        sqlstate: five characters; empty when the driver could not even send the values.
    """

    def __init__(self, message: str, *, sqlstate: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate

    @property
    def is_missing_reference(self) -> bool:
        """A row that ours refers to was deleted meanwhile; another try may find or make it."""
        return self.sqlstate == _FOREIGN_KEY_VIOLATION


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raises our errors for the driver's.

    Raises:
        StoreUnavailable: away, restarting, too slow or out of resources: retry later.
        Conflict: a unique constraint; the message names it.
        Rejected: the values break another constraint or cannot be stored.
        StoreError: anything else, a bug of ours or a schema that does not fit.
    """
    try:
        yield
    except AppError:
        raise
    except asyncpg.PostgresError as exc:
        # DETAIL quotes the row, which holds what people said; it must not reach a log.
        exc.detail = None  # type: ignore[attr-defined, unused-ignore]  # set by the driver
        raise _translated(exc) from exc
    except (OSError, asyncpg.InternalClientError) as exc:
        raise StoreUnavailable(_text(exc)) from exc
    except asyncpg.InterfaceError as exc:
        if isinstance(exc, ValueError):
            raise Rejected("a value cannot be encoded") from None
        raise StoreUnavailable(_text(exc)) from exc


def _translated(exc: asyncpg.PostgresError) -> StoreError:
    state: str = getattr(exc, "sqlstate", None) or ""
    if state.startswith(_UNAVAILABLE):
        return StoreUnavailable(f"{state}: {_text(exc)}")
    if state == _UNIQUE_VIOLATION:
        return Conflict(f"exists already: {getattr(exc, 'constraint_name', '')}")
    if state[:2] in _REJECTED_CLASSES:
        return Rejected(f"{state}: {_text(exc)}", sqlstate=state)
    return StoreError(f"{state}: {_text(exc)}")


def _text(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__
