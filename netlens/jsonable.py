"""Reports as strict JSON, and the JSON Schema that follows from the types of a report.

A report is a frozen dataclass of plain values, so nothing has to be described twice: the fields are the keys.
"""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, TypeAlias, Union

JSON: TypeAlias = bool | int | float | str | list["JSON"] | dict[str, "JSON"] | None

WIDTH = 120  # characters of a line
NON_FINITE = ("nan", "inf", "-inf")  # JSON has no such numbers, and Python's NaN is read by no strict reader
DRAFT = "https://json-schema.org/draft/2020-12/schema"
PLAIN: dict[Any, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"anyOf": [{"type": "number"}, {"enum": list(NON_FINITE)}]},
    str: {"type": "string"},
    type(None): {"type": "null"},
}


def dumps(value: object) -> str:
    """Write `value` as one strict JSON document in ASCII, which every reader and every encoding can carry.

    What fits into a line stays on one: a shape is one line, not five.
    """
    return _laid_out(jsonable(value), "")


def _laid_out(value: JSON, margin: str) -> str:
    """Write from the inside out: what does not fit into a line makes everything around it too long for one, too."""
    if not isinstance(value, (dict, list)):
        return json.dumps(value, allow_nan=False)
    inner = margin + "  "
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {_laid_out(entry, inner)}" for key, entry in value.items()]
    else:
        parts = [_laid_out(entry, inner) for entry in value]
    line = ", ".join(parts)
    if len(margin) + len(line) + 2 <= WIDTH and "\n" not in line:
        return f"{opening}{line}{closing}"
    return f"{opening}\n{inner}" + f",\n{inner}".join(parts) + f"\n{margin}{closing}"


def jsonable(value: object) -> JSON:
    """Turn a report into what JSON knows.

    Dataclasses and mappings become objects, sequences arrays, enums their name in lower case, non-finite numbers strings; integers stay
    exact whatever their size.

    Raises:
        TypeError: a value of another type, which does not belong into a report.
    """
    if isinstance(value, Enum):  # before int and str: some enums are both
        return value.name.lower()
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else _non_finite(value)
    if isinstance(value, str):
        return _well_formed(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {_key(key): jsonable(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [jsonable(entry) for entry in value]
    raise TypeError(f"{type(value).__name__} does not belong into a report: {value!r}")


def schema_of(cls: type) -> dict[str, Any]:
    """Derive the JSON Schema (2020-12) of a dataclass from its type hints.

    Every field is required, because `jsonable` writes every field. Further fields are allowed: a new field keeps the schema's number.
    """
    definitions: dict[str, Any] = {}
    return {"$schema": DRAFT, **_schema(cls, definitions), "$defs": dict(sorted(definitions.items()))}


def _non_finite(value: float) -> str:
    if math.isnan(value):
        return "nan"
    return "inf" if value > 0 else "-inf"


def _well_formed(text: str) -> str:
    # A lone surrogate (an undecodable file name has them) is no Unicode text; it is shown as Python would write it.
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _key(key: object) -> str:
    if isinstance(key, Enum):
        return key.name.lower()
    if isinstance(key, (str, int)) and not isinstance(key, bool):
        return _well_formed(str(key))
    raise TypeError(f"{type(key).__name__} cannot be a key of a report: {key!r}")


def _schema(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Describe one type hint; dataclasses are described once, in `definitions`."""
    if hint in PLAIN:
        return PLAIN[hint]
    if hint is Any or hint is object:
        return {}
    if is_dataclass(hint):
        return _reference(hint, definitions)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {"enum": [member.name.lower() for member in hint]}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(argument, definitions) for argument in arguments]}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin is tuple and arguments[-1] is not Ellipsis:
        entries = [_schema(argument, definitions) for argument in arguments]
        return {"type": "array", "prefixItems": entries, "minItems": len(entries), "maxItems": len(entries)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    raise TypeError(f"{hint!r} does not belong into a report")


def _reference(cls: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    name = cls.__name__
    if name not in definitions:
        definitions[name] = {}  # stands for itself while its fields are described: dataclasses may be recursive
        hints = typing.get_type_hints(cls)
        properties = {field.name: _schema(hints[field.name], definitions) for field in fields(cls)}
        definitions[name] = {
            "description": (cls.__doc__ or "").partition("\n")[0],
            "type": "object",
            "properties": properties,
            "required": list(properties),
        }
    return {"$ref": f"#/$defs/{name}"}
