"""Reading settings from an environment mapping, collecting every problem before failing."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from core.errors import ConfigError

T = TypeVar("T")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


class Env:
    """Typed access to environment variables; call `check` once everything was read.

    A variable that is set to the empty string counts as unset, as in Compose files.
    A bad value is reported with its name and what would be right, never with its content:
    it may be a secret.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._problems: list[str] = []

    def problem(self, message: str) -> None:
        """Adds a problem found by the caller, such as two settings that exclude each other."""
        self._problems.append(message)

    def check(self) -> None:
        """Raises ConfigError with all problems so far, if there are any."""
        if self._problems:
            raise ConfigError(self._problems)

    def text(self, name: str, default: str = "") -> str:
        return self._environ.get(name, "").strip() or default

    def required(self, name: str, hint: str) -> str:
        """The value, or "" and a problem that carries `hint`, which says where to get one."""
        value = self.text(name)
        if not value:
            self.problem(f"{name} is not set: {hint}")
        return value

    def choice(self, name: str, default: str, allowed: Iterable[str]) -> str:
        value = self.text(name, default)
        options = tuple(allowed)
        if value not in options:
            self.problem(f"{name} must be one of: {', '.join(options)}")
            return default
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.text(name).lower()
        if not value:
            return default
        if value in _TRUE or value in _FALSE:
            return value in _TRUE
        self.problem(f"{name} must be 1 or 0")
        return default

    def integer(self, name: str, default: int, *, low: int, high: int) -> int:
        return self._number(name, default, low, high, int, "a whole number")

    def number(self, name: str, default: float, *, low: float, high: float) -> float:
        return self._number(name, default, low, high, float, "a number")

    def words(self, name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """A comma-separated list, stripped, empty items dropped."""
        value = self.text(name)
        items = tuple(item.strip() for item in value.split(",") if item.strip())
        return items or default

    def _number(
        self, name: str, default: T, low: T, high: T, parse: Callable[[str], T], what: str
    ) -> T:
        value = self.text(name)
        if not value:
            return default
        try:
            parsed = parse(value)
        except ValueError:
            parsed = None
        if parsed is None or not (low <= parsed <= high):  # type: ignore[operator]  # int or float
            self.problem(f"{name} must be {what} from {low} to {high}")
            return default
        return parsed
