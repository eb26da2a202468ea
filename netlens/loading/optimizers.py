"""Optimizers by name: every class of torch.optim, or one of the user's own. Reading the name needs no torch."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from netlens.errors import UsageError
from netlens.loading.calls import Call, names_code, own_code, parse_call
from netlens.loading.suggest import closest, did_you_mean
from netlens.loading.words import cause, listed, one_line

if TYPE_CHECKING:
    from torch.optim import Optimizer

NAMES = (
    *("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax"),
    *("NAdam", "RAdam", "ASGD", "Rprop", "SparseAdam", "Adafactor", "Muon"),
)  # LBFGS is none of them: one step of it computes the loss many times
RATES = {"SGD": 0.1}  # torch's own default, 0.001, is a placeholder that hardly moves a model
EXAMPLE = "write it like sgd, adamw:weight_decay=0.1 or package.module:Class"


def parse_optimizer(text: str, lr: float | None = None) -> Call:
    """Read `--optimizer` before torch is imported: "sgd", "adamw:weight_decay=0.1", "pkg.mod:Lion"; and `--lr`, among the options.

    A name that nothing resembles is left to `make_optimizer`: torch may have got a new one.

    Raises:
        UsageError: there is no such optimizer, or a rate that is no number of 0 or more.
    """
    call = parse_call("--optimizer", text)
    options = dict(call.options)
    if lr is not None and "lr" in options:
        raise UsageError("--lr and --optimizer both give a learning rate", hint="leave one of them out")
    options |= {} if lr is None else {"lr": lr}
    _check_rate(options.get("lr"))
    name = _canonical(call.name)
    head, _, rest = call.name.partition(":")
    if name is None and rest and _canonical(head):
        what = f"--optimizer {one_line(text)!r}: {one_line(rest)!r} is not NAME=VALUE"
        raise UsageError(what, hint=f"write it like {head}:weight_decay=0.1")
    if name is None and names_code(call.name):
        return own_code("--optimizer", Call(call.name, options))
    if name is None and (not call.name.isidentifier() or closest(call.name, NAMES) or call.name.lower() == "lbfgs"):
        raise _unknown(call.name, NAMES)
    return Call(name or call.name, options)


def make_optimizer(name: str, parameters: Iterable[Any], lr: float | None = None, **options: Any) -> Optimizer:
    """Make an optimizer.

    Args:
        name: of a class of torch.optim, in any case; or "pkg.mod:Class".
        parameters: tensors, named ones, or groups of them.
        lr: None: the class's own default; 0.1 for SGD.
        options: of the class.

    Raises:
        UsageError: there is no such optimizer, or it refuses an option or the parameters.
    """
    from torch.optim import Optimizer

    make, shown = _class(name)
    known = inspect.signature(make).parameters
    for option in options:
        if option not in known and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
            names = [other for other in known if other != "params"]
            raise UsageError(f"{shown} has no option {option!r}", hint=did_you_mean(option, names, f"it takes {listed(names, most=20)}"))
    rate = RATES.get(shown) if lr is None else lr
    try:
        made: object = make(parameters, **({} if rate is None else {"lr": rate}), **options)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        hint = "unfreeze some parameters" if "empty parameter list" in str(error) else "change its options, or take another --optimizer"
        raise UsageError(f"{shown} cannot be made: {cause(error)}", hint=hint) from error
    if not isinstance(made, Optimizer):
        raise UsageError(f"{one_line(name)} makes an object of type {type(made).__name__}, and no optimizer", hint=EXAMPLE)
    return made


def described(optimizer: Optimizer) -> str:
    """Return "AdamW(lr=0.001, weight_decay=0.1)": the learning rate, and what differs from the class's defaults."""
    usual = {name: p.default for name, p in inspect.signature(type(optimizer)).parameters.items()}
    values = {**optimizer.defaults, **{key: value for key, value in optimizer.param_groups[0].items() if key in optimizer.defaults}}
    shown = {name: value for name, value in values.items() if name == "lr" or (name in usual and value != usual[name])}
    rate = shown.pop("lr", None)
    words = [f"lr={rate:g}"] if isinstance(rate, (int, float)) else []
    return f"{type(optimizer).__name__}({', '.join([*words, *(f'{name}={value}' for name, value in shown.items())])})"


def _canonical(name: str) -> str | None:
    plain = name.lower().removeprefix("torch.").removeprefix("optim.").replace("_", "")
    return next((known for known in NAMES if known.lower() == plain), None)


def _class(name: str) -> tuple[Callable[..., Optimizer], str]:
    import torch

    if _canonical(name) is None and names_code(name):
        from netlens.loading.from_python import import_attribute

        spec = own_code("--optimizer", Call(name)).spec
        assert spec is not None
        found = import_attribute(spec)
        if not callable(found):
            raise UsageError(f"{one_line(name)} is of the type {type(found).__name__}", hint="name a class of torch.optim.Optimizer")
        return found, getattr(found, "__name__", name)
    classes = {
        key: value
        for key, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer and key != "LBFGS"
    }
    wanted = (_canonical(name) or name).lower()
    for key, value in classes.items():
        if key.lower() == wanted:
            return value, key
    raise _unknown(name, classes)


def _unknown(name: str, known: Iterable[str]) -> UsageError:
    if name.lower() == "lbfgs":
        return UsageError(
            "LBFGS computes the loss many times in one step, and has no single gradient to look at", hint="take --optimizer sgd"
        )
    return UsageError(f"there is no optimizer {one_line(name)!r}", hint=did_you_mean(name, known, EXAMPLE))


def _check_rate(rate: object) -> None:
    if rate is not None and not (isinstance(rate, (int, float)) and 0 <= rate < math.inf):
        raise UsageError(f"the learning rate {one_line(rate)} is no number of 0 or more", hint="write it like --lr 0.1 or --lr 1e-3")
