"""Every error of ours, as one tree.

AppError                    never raised itself
|- ConfigError              all problems in one message; the process exits 2
|- ProtocolError            LocalProtocolError: our bug. RemoteProtocolError: the peer's
|- ProviderError            Gladia, OpenAI or LiveKit refused; says whether a retry can help
|- StoreError               StoreUnavailable: keep the record and retry. NotFound. Conflict
`- AccessError              web answers 401 or 403; a WebSocket is refused before the upgrade
"""

from collections.abc import Sequence


class AppError(Exception):
    """Root of our errors; catch it only where a process ends."""


class ConfigError(AppError):
    """The configuration cannot be used. Carries every problem, not only the first."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class ProtocolError(AppError):
    """A rule of a wire protocol was broken."""


class LocalProtocolError(ProtocolError):
    """We broke it: a bug of ours, the task must crash."""


class RemoteProtocolError(ProtocolError):
    """The peer broke it: log, drop the connection, go on."""


class ProviderError(AppError):
    """A provider refused or failed.

    Attributes:
        status: HTTP status, or None where there was no answer.
        retryable: whether the same request may succeed later.
        retry_after_s: seconds the provider asked us to wait, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retryable: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class StoreError(AppError):
    """PostgreSQL or the journal could not do what was asked."""


class StoreUnavailable(StoreError):  # noqa: N818 - reads as a state, like NotFound and Conflict
    """The store is down, slow or full: keep the record and try again."""


class NotFound(StoreError):  # noqa: N818 - named like the HTTP answer that it becomes
    """No such row."""


class Conflict(StoreError):  # noqa: N818 - named like the HTTP answer that it becomes
    """The row exists already, or somebody else holds it."""


class AccessError(AppError):
    """The caller may not do this.

    Attributes:
        code: stable machine-readable reason, part of the HTTP answer.
        status: 401 when the caller is unknown, 403 when known but not allowed.
    """

    def __init__(self, code: str, message: str, *, status: int = 401) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
