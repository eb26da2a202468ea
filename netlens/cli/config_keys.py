"""The keys of `[tool.netlens]`: how the value of each is read, and in which tables it may stand. Choices are those of the option."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from netlens.cli.options import FailLevel, HalfPrecision, Precision, ReportFormat


@dataclass(frozen=True, slots=True)
class Key:
    """One key: `read` returns the option's value and raises ValueError for what it does not take."""

    read: Callable[[object], object]
    takes: str
    places: frozenset[str] = frozenset({"defaults", "models"})


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_text(part) for part in (value if isinstance(value, list) else [value]))


def _words(value: object) -> str:
    return ",".join(_texts(value))


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError
    return value


def _count(value: object) -> int:
    count = _whole(value)
    if count == 0:
        raise ValueError
    return count


def _seed(value: object) -> int:
    seed = _whole(value)
    if seed >= 2**32:  # numpy takes no larger one
        raise ValueError
    return seed


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _amount(value: object) -> str | int:
    return _text(value) if isinstance(value, str) else _whole(value)


def _model_args(value: object) -> tuple[str, ...]:
    """A table gives Python literals, so that a text stays a text: {act = "10"} is act='10'."""
    if isinstance(value, dict):
        return tuple(f"{name}={_literal(argument)!r}" for name, argument in value.items())
    texts = _texts(value)
    if not all("=" in text for text in texts):
        raise ValueError
    return texts


def _literal(value: object) -> object:
    if isinstance(value, list):
        return [_literal(part) for part in value]
    if isinstance(value, dict):
        return {name: _literal(part) for name, part in value.items()}
    if not isinstance(value, (str, int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError
    return value


def _one_of(known: Sequence[str], places: frozenset[str]) -> Key:
    def choice(value: object) -> object:
        if value not in known:
            raise ValueError
        return value

    return Key(choice, "one of " + ", ".join(f'"{text}"' for text in known), places)


def _values(choices: type[Enum]) -> tuple[str, ...]:
    return tuple(choice.value for choice in choices)


_MODEL = frozenset({"models"})
_ALL = frozenset({"defaults"})
_BOTH = _MODEL | _ALL

KEYS: dict[str, Key] = {
    "model": Key(_text, 'the name of a model: "resnet18", "my.models:Net"', _MODEL),
    "model-arg": Key(_model_args, 'a table or a list of texts: { num_classes = 10 } or ["num_classes=10"]', _MODEL),
    "weights": Key(_text, 'a text: "DEFAULT"', _MODEL),
    "checkpoint": Key(_text, 'the path of a file: "weights.safetensors"', _MODEL),
    "input": Key(_texts, 'a text or a list of texts: "1,3,224,224"', _MODEL),
    "expect-output": Key(_texts, 'a text or a list of texts: "1,1000" or ["logits=1,1000", "boxes=*,4"]', _MODEL),
    "expect-params": Key(_amount, 'a whole number or a text: 11689512, "11.7M" or "11.7M±1%"', _MODEL),
    "max-params": Key(_amount, 'a whole number or a text: "12M"'),
    "max-macs": Key(_amount, 'a whole number or a text: "2G"'),
    "max-size": Key(_amount, 'a whole number of bytes or a text: "50MB"'),
    "max-memory": Key(_amount, 'a whole number of bytes or a text: "24GiB"'),
    "lock": Key(_text, 'the path of a file: "netlens.lock.json"'),
    "lock-level": _one_of(("output", "params", "layers"), _BOTH),
    "device": Key(_text, 'a text: "meta", "cpu" or "cuda:0"'),
    "dtype": _one_of(_values(Precision), _ALL),
    "autocast": _one_of(_values(HalfPrecision), _ALL),
    "channels-last": Key(_flag, "true or false", _ALL),
    "batch-size": Key(_count, "a whole number from 1", _ALL),
    "auto-batch": Key(_flag, "true or false", _ALL),
    "seed": Key(_seed, "a whole number from 0 to 4294967295"),
    "depth": Key(_whole, "a whole number"),
    "columns": Key(_words, 'a text or a list of texts: "params,macs"'),
    "sort": Key(_text, 'a text: "params"'),
    "top": Key(_whole, "a whole number"),
    "only": Key(_words, 'a text or a list of texts: "Conv2d"'),
    "time": Key(_flag, "true or false"),
    "format": _one_of(_values(ReportFormat), _ALL),
    "fail-on": _one_of(_values(FailLevel), _ALL),
    "out": Key(_text, 'the path of a folder: "netlens-out"', _ALL),
    "show": Key(_flag, "true or false", _ALL),
}
