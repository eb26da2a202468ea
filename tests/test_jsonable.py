"""Reports as strict JSON: what a report holds comes back exactly, by any reader."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import Literal, Optional

import pytest

from netlens.findings import Finding, Severity
from netlens.jsonable import dumps, jsonable, schema_of
from netlens.lenses import LENSES
from tests import schemas


class Kind(Enum):
    """An enum whose values are not its names."""

    ROUND = "a"
    SQUARE = 2


class Level(IntEnum):
    """An enum that is an int, too."""

    LOW = 1


@dataclass(frozen=True, slots=True)
class Part:
    """One part.

    More about it.
    """

    name: str
    shape: tuple[int, ...] = ()
    pair: tuple[int, str] = (1, "a")
    score: float = 0.5
    parent: Optional["Part"] = None  # noqa: UP037, UP045  (a recursive type, in the older spelling)


@dataclass(frozen=True)
class Whole:
    """All parts."""

    parts: tuple[Part, ...]
    bytes_by_dtype: dict[str, int]
    kind: Kind = Kind.ROUND
    mode: Literal["eval", "train"] = "eval"
    seconds: float | None = None
    extra: Mapping[str, object] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (2**200 + 1, str(2**200 + 1)),
        (-0.1, "-0.1"),
        (1e300, "1e+300"),
        (float("nan"), '"nan"'),
        (float("inf"), '"inf"'),
        (-math.inf, '"-inf"'),
        (Kind.SQUARE, '"square"'),
        (Level.LOW, '"low"'),
        (Severity.ERROR, '"error"'),
        ((1, [2, ()]), "[1, [2, []]]"),
        ({Kind.ROUND: 1, 7: 2, "a": 3}, '{"round": 1, "7": 2, "a": 3}'),
        (MappingProxyType({"a": (1.0,)}), '{"a": [1.0]}'),
        ("ü", '"\\u00fc"'),
        ("a\udcff.pt", '"a\\\\udcff.pt"'),
        ({"\ud800": "\ud800"}, '{"\\\\ud800": "\\\\ud800"}'),
    ],
)
def test_values(value, text):
    assert dumps(value) == text


def test_a_pair_of_surrogates_is_one_character():
    assert json.loads(dumps("\U0001f600")) == "\U0001f600"


def test_dataclasses_become_objects_with_their_fields_in_order():
    whole = Whole((Part("a", (1, 2), parent=Part("b")),), {"float32": 4}, Kind.SQUARE, seconds=math.nan)
    part = {"name": "b", "shape": [], "pair": [1, "a"], "score": 0.5, "parent": None}
    expected = {
        "parts": [{"name": "a", "shape": [1, 2], "pair": [1, "a"], "score": 0.5, "parent": part}],
        "bytes_by_dtype": {"float32": 4},
        "kind": "square",
        "mode": "eval",
        "seconds": "nan",
        "extra": {},
    }
    assert json.dumps(jsonable(whole)) == json.dumps(expected)
    assert json.loads(dumps(whole), parse_constant=pytest.fail) == expected


def test_findings_are_written_with_the_name_of_their_severity():
    finding = Finding("max-params", Severity.WARNING, "fc", "too many", "12", "10")
    assert jsonable([finding]) == [
        {
            "code": "max-params",
            "severity": "warning",
            "where": "fc",
            "message": "too many",
            "measured": "12",
            "threshold": "10",
            "remedy": "",
            "examples": [],
        }
    ]


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", 1j, object(), {(1, 2): 3}, {True: 1}, Part, {None: 1}])
def test_what_does_not_belong_into_a_report_is_refused(value):
    with pytest.raises(TypeError, match="report"):
        jsonable(value)


def test_the_schema_of_a_dataclass():
    part = {
        "description": "One part.",
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "pair": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
            "score": {"anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}]},
            "parent": {"anyOf": [{"$ref": "#/$defs/Part"}, {"type": "null"}]},
        },
        "required": ["name", "shape", "pair", "score", "parent"],
    }
    schema = schema_of(Whole)
    assert schema["$ref"] == "#/$defs/Whole"
    assert schema["$defs"]["Part"] == part
    properties = schema["$defs"]["Whole"]["properties"]
    assert properties["parts"] == {"type": "array", "items": {"$ref": "#/$defs/Part"}}
    assert properties["bytes_by_dtype"] == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert properties["kind"] == {"enum": ["round", "square"]}
    assert properties["mode"] == {"enum": ["eval", "train"]}
    assert properties["seconds"]["anyOf"][-1] == {"type": "null"}
    assert properties["extra"] == {"type": "object", "additionalProperties": {}}


def test_an_independent_validator_takes_the_document_and_refuses_wrong_ones():
    jsonschema = pytest.importorskip("jsonschema", reason="in the dev extra")
    validator = jsonschema.Draft202012Validator(schema_of(Whole))
    validator.check_schema(schema_of(Whole))
    good = jsonable(Whole((Part("a", (1, 2), score=math.inf, parent=Part("b")),), {"float32": 4}, seconds=math.nan))
    validator.validate(good)
    validator.validate({**good, "new_field": 1})
    without_kind = {name: value for name, value in good.items() if name != "kind"}
    wrong = [
        {**good, "parts": [{"name": 1}]},
        {**good, "bytes_by_dtype": {"float32": "4"}},
        {**good, "kind": "oval"},
        {**good, "seconds": "infinite"},
        without_kind,
    ]
    assert [validator.is_valid(document) for document in wrong] == [False] * len(wrong)


@pytest.mark.parametrize("lens", LENSES)
def test_the_checked_in_schema_is_the_one_of_the_code(lens):
    assert schemas.path(lens).read_text(encoding="utf-8") == schemas.generated(lens), (
        f"the report of {lens} changed: `python -m tests.schemas` writes its schema again; "
        "raise the schema's number where a field changed or went"
    )


@pytest.mark.parametrize("lens", LENSES)
def test_the_checked_in_schema_is_a_json_schema(lens):
    jsonschema = pytest.importorskip("jsonschema", reason="in the dev extra")
    jsonschema.Draft202012Validator.check_schema(json.loads(schemas.path(lens).read_text(encoding="utf-8")))
