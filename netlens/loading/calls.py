"""`NAME:OPTION=VALUE,...`, as `--loss` and `--optimizer` are written: read without torch."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from netlens.errors import UsageError
from netlens.loading.specs import ModelSpec, parse_model_spec
from netlens.loading.words import one_line


@dataclass(frozen=True, slots=True)
class Call:
    """What is called, and with which options."""

    name: str  # a name that netlens knows, or what the user typed for code of his own
    options: Mapping[str, object] = field(default_factory=dict)
    spec: ModelSpec | None = None  # of that code


def parse_call(option: str, text: str) -> Call:
    """Read "adamw:weight_decay=0.1,betas=(0.9,0.95)", "pkg.mod:fn" or "file.py:fn:gamma=2"; values are Python literals or a word.

    Args:
        option: for messages: "--optimizer".
        text: what was typed.

    Raises:
        UsageError: the options are no NAME=VALUE.
    """
    found = re.fullmatch(r"(.+?):\s*([A-Za-z_]\w*\s*=[^=].*)", text.strip(), re.DOTALL)
    if found is None:
        return Call(text.strip())
    try:
        call = ast.parse(f"call({found[2]})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("something in it has no name")
        options = {str(keyword.arg): _value(keyword.value) for keyword in call.keywords}
        if len(options) < len(call.keywords):
            raise ValueError("one of them is given twice")
        return Call(found[1].strip(), options)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        what = f"{option} {one_line(text)!r}: {one_line(found[2])!r} cannot be read as NAME=VALUE,NAME=VALUE"
        hint = f"write it like {option} {one_line(found[1])}:NAME=0.1; values are Python's, True and not true"
        raise UsageError(what, hint=hint) from error


def own_code(option: str, call: Call) -> Call:
    """Return `call` with the place of the user's code that its name says: "pkg.mod:fn", "pkg.mod.fn" or "file.py:fn".

    Raises:
        NetlensError: there is no such file or module.
    """
    if call.name.endswith(".py"):
        raise UsageError(f"{option} {one_line(call.name)!r} does not say what of the file is meant", hint=f"name it: {call.name}:NAME")
    return Call(call.name, call.options, parse_model_spec(call.name))


def names_code(name: str) -> bool:
    """Tell whether a name looks like one in the user's own code."""
    return name.endswith(".py") or re.fullmatch(r"(.+\.py:+|[A-Za-z_][\w.]*[:.])[A-Za-z_][\w.]*", name) is not None


def _value(node: ast.expr) -> object:
    if isinstance(node, ast.Name):
        if node.id.lower() in ("true", "false"):  # a text would count as true
            raise ValueError(node.id)
        return node.id
    return ast.literal_eval(node)
