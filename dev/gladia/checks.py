"""Checks of one JSON value; each yields sentences in the form of `validation_errors`."""

from collections.abc import Callable, Iterator, Mapping, Sequence

Check = Callable[[object, str], Iterator[str]]


def flag(value: object, path: str) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f"{path} must be a boolean value"


def text(value: object, path: str) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{path} must be a string"


def one_of(*allowed: object) -> Check:
    def check(value: object, path: str) -> Iterator[str]:
        if isinstance(value, bool) or value not in allowed:
            yield f"{path} must be one of the following values: {', '.join(map(str, allowed))}"

    return check


def number(low: float, high: float, *, whole: bool = False) -> Check:
    def check(value: object, path: str) -> Iterator[str]:
        kind = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kind):
            yield f"{path} must be {'an integer' if whole else 'a number'}"
        elif not low <= value <= high:
            yield f"{path} must not be less than {low} nor greater than {high}"

    return check


def list_of(check_item: Check, *, at_least: int = 0) -> Check:
    def check(value: object, path: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{path} must be an array"
            return
        if len(value) < at_least:
            yield f"{path} must contain at least {at_least} elements"
        for index, item in enumerate(value):
            yield from check_item(item, f"{path}.{index}")

    return check


def map_of(check_item: Check) -> Check:
    def check(value: object, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{path} must be an object"
            return
        for key, item in value.items():
            yield from check_item(item, f"{path}.{key}")

    return check


def record(fields: Mapping[str, Check], required: Sequence[str] = ()) -> Check:
    """An object with these fields and no others."""

    def check(value: object, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{path or 'body'} must be an object"
            return
        prefix = f"{path}." if path else ""
        for name in required:
            if name not in value:
                yield f"{prefix}{name} should not be empty"
        for name, item in value.items():
            if name in fields:
                yield from fields[name](item, f"{prefix}{name}")
            else:
                yield f"{path or 'body'}: property {name} should not exist"

    return check


def either(first: Check, second: Check) -> Check:
    """Passes what one of them passes; complains in the words of the second."""

    def check(value: object, path: str) -> Iterator[str]:
        if any(first(value, path)):
            yield from second(value, path)

    return check
