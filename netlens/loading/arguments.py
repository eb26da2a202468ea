"""Which arguments a constructor really takes, also where its signature hides them behind `**kwargs`.

`torchvision.models.resnet18(**kwargs)` takes `num_classes`, because its source hands `**kwargs` on to `ResNet`. So the source is read:
every call that gets `**kwargs` is followed to what it calls. Where that cannot be told, any name is accepted and the constructor decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from inspect import Parameter

from torch import nn

from netlens.errors import ModelNotBuilt, UsageError
from netlens.loading.kwargs_reader import call_signature, kwargs_reader
from netlens.loading.suggest import closest
from netlens.loading.words import listed, one_line

BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
EXAMPLES = {"int": "10", "float": "0.5", "bool": "True"}
DEEPEST = 8  # calls that hand **kwargs on; far beyond any real constructor
# Set by netlens itself for torchvision's builders, where `weights_backbone` and `pretrained` would fetch weights from the network.
RESERVED = ("weights", "weights_backbone", "pretrained", "pretrained_backbone", "progress")


@dataclass
class Accepted:
    """The arguments that a callable takes by name."""

    parameters: dict[str, Parameter] = field(default_factory=dict)
    anything: bool = False  # its **kwargs go where the source does not tell

    def add(self, other: Accepted, without: set[str]) -> None:
        """Take over what another callable accepts, except `without`."""
        fresh = {name: parameter for name, parameter in other.parameters.items() if name not in without}
        self.parameters = {**fresh, **self.parameters}
        self.anything |= other.anything


def accepted_arguments(target: Callable[..., object]) -> Accepted:
    """Return what `target` takes by name, following its `**kwargs`."""
    return _follow(target, DEEPEST)


def check_model_args(target: Callable[..., object], args: Mapping[str, object], what: str, reserved: tuple[str, ...] = ()) -> None:
    """Refuse arguments that `target` does not take, and the lack of those that it needs.

    Raises:
        UsageError: no argument of that name, or text for a number. ModelNotBuilt: an argument without a default is not given.
    """
    accepted = accepted_arguments(target)
    known = {name: parameter for name, parameter in accepted.parameters.items() if name not in reserved}
    for name, value in args.items():
        if name in known:
            _check_text(name, value, known[name])
        elif name in reserved or not accepted.anything:
            raise unknown_argument(what, name, known)
    missing = [name for name in required_arguments(target) if name not in args]
    if missing:
        raise missing_arguments(what, missing)


def unknown_argument(what: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for an argument that does not exist, with those that do."""
    names = [other for other in known if not other.startswith("_")]
    takes = f"it takes {listed(names, most=40)}" if names else "it takes no arguments"
    close = closest(name, names)
    return UsageError(f"{what} takes no argument {name!r}", hint=f"did you mean {close!r}? {takes}" if close else takes)


def _check_text(name: str, value: object, parameter: Parameter) -> None:
    """Refuse text for an argument that is declared as a number: torch's own words for it are far from the cause."""
    kind = getattr(parameter.annotation, "__name__", parameter.annotation)
    if isinstance(value, str) and kind in ("int", "float", "bool"):
        what = f"--model-arg {name}={one_line(value)} is text, and {name} is {kind}"
        raise UsageError(what, hint=f"write it like {name}={EXAMPLES[kind]}")


def missing_arguments(what: str, missing: list[str]) -> ModelNotBuilt:
    """Return the error for a constructor that needs more than it is given."""
    options = " ".join(f"--model-arg {name}=..." for name in missing)
    noun = "the argument" if len(missing) == 1 else "the arguments"
    return ModelNotBuilt(f"{what} needs {noun} {listed(repr(name) for name in missing)}", hint=f"give a value: {options}")


def required_arguments(target: Callable[..., object]) -> list[str]:
    """Return the names of the parameters without a default."""
    signature = call_signature(target)
    parameters = signature.parameters.values() if signature else ()
    return [p.name for p in parameters if p.default is Parameter.empty and p.kind in (*BY_NAME, Parameter.POSITIONAL_ONLY)]


def described(target: Callable[..., object], without: tuple[str, ...] = ()) -> str:
    """Return the call as one would write it, `**kwargs` spelt out: "Net(width, depth=3)"; "" where nothing is known."""
    accepted = accepted_arguments(target)
    shown = [p for name, p in accepted.parameters.items() if name not in without and not name.startswith("_")]
    words = [p.name if p.default is Parameter.empty else f"{p.name}={one_line(repr(p.default), 30)}" for p in shown]
    name = getattr(target, "__name__", "it")
    return f"{name}({', '.join([*words, '...'] if accepted.anything else words)})" if words else ""


def _follow(target: object, depth: int) -> Accepted:
    if target is nn.Module:
        return Accepted()  # its __init__(*args, **kwargs) only says that there is nothing to give
    signature = call_signature(target) if callable(target) else None
    if signature is None or depth == 0:
        return Accepted(anything=True)
    accepted = Accepted({p.name: p for p in signature.parameters.values() if p.kind in BY_NAME})
    rest = [p.name for p in signature.parameters.values() if p.kind is Parameter.VAR_KEYWORD]
    if not rest:
        return accepted
    reader = kwargs_reader(target, rest[0])
    if reader is None:
        return Accepted(accepted.parameters, anything=True)
    for name in reader.picked():
        accepted.parameters.setdefault(name, Parameter(name, Parameter.KEYWORD_ONLY, default=None))
    accepted.anything |= reader.escapes()
    for callee, given in reader.receivers():
        accepted.add(_follow(callee, depth - 1), without=given)
    return accepted
