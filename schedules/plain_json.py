"""Frozen dataclasses of numbers, texts, tuples and one another <-> plain JSON objects, by their fields' types."""

import types
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints


def to_json(value: Any) -> Any:
    """A dataclass as ``{field: value}``, a tuple as a list."""
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    return [to_json(item) for item in value] if isinstance(value, tuple) else value


def from_json(kind: Any, value: Any) -> Any:
    """The inverse of :func:`to_json` for a type; ValueError where the value is not of it."""
    if is_dataclass(kind):
        return _instance(kind, value)
    if get_origin(kind) is tuple:
        return _tuple(get_args(kind), value)
    if get_origin(kind) in (Union, types.UnionType):
        (inner,) = (option for option in get_args(kind) if option is not types.NoneType)
        return None if value is None else from_json(inner, value)
    if type(value) is not kind:  # a bool is no int here
        raise ValueError(f"{value!r} is not of type {kind.__name__}")
    return value


def _instance(kind: type, value: Any):
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not a {kind.__name__}")
    hints = _hints(kind)
    needed = {field.name for field in fields(kind) if field.default is MISSING}
    if not needed <= value.keys() <= hints.keys():
        raise ValueError(f"{sorted(value)} are not the fields of {kind.__name__}")
    return kind(**{name: from_json(hints[name], item) for name, item in value.items()})


def _tuple(kinds: tuple, value: Any) -> tuple:
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is not a list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise ValueError(f"{value!r} has not {len(kinds)} elements")
    return tuple(from_json(kind, item) for kind, item in zip(kinds, value, strict=True))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
