"""From what the unpickler read to the parts of an Archive: groups, scalars, verdicts and oddities."""

from __future__ import annotations

from dataclasses import dataclass, field

from netlens.loading.checkpoints.archive import ForeignGlobal, TensorGroup
from netlens.loading.checkpoints.modules import is_module, model_class
from netlens.loading.checkpoints.pickles import Pickled
from netlens.loading.checkpoints.scalars import Wrapper
from netlens.loading.checkpoints.tensors import odd_tensors, stored, subclasses
from netlens.loading.checkpoints.unwrap import Group, Node, Walk, groups_of
from netlens.loading.checkpoints.verdicts import foreign
from netlens.loading.words import listed


@dataclass(slots=True)
class Description:
    """The parts of an Archive that a pickle gives."""

    groups: tuple[TensorGroup, ...] = ()
    scalars: dict[str, str] = field(default_factory=dict)
    contents: tuple[tuple[str, str], ...] = ()
    foreign: tuple[ForeignGlobal, ...] = ()
    model_class: str = ""
    modules_only: bool = False  # all its weights are inside of pickled modules
    runs_code: str = ""
    complete: bool = True
    oddities: list[str] = field(default_factory=list)


def describe(pickled: Pickled, folder: str = "", file: str = "") -> Description:
    """Describe a checkpoint's value. The storages' places must be known by now."""
    value = pickled.value
    walk, wrapper = Walk(), Wrapper()
    root = walk.tree(value)
    found = groups_of(root)
    wrapper.read(value, _grouped(root))
    groups = tuple(
        TensorGroup(group.key, group.role, tuple(stored(name, tensor, folder, file) for name, tensor in group.tensors)) for group in found
    )
    verdicts = foreign(pickled.globals.values(), pickled.misused)
    weights = [group for group in found if group.role in ("weights", "ema")]
    oddities = [*pickled.oddities, *walk.oddities]
    oddities += odd_tensors(tensor for group in groups for tensor in group.tensors)
    oddities += subclasses(tensor for group in found for _, tensor in group.tensors)
    return Description(
        groups,
        wrapper.scalars,
        tuple(wrapper.contents),
        verdicts,
        _class(value, weights),
        (bool(weights) and all(group.module for group in weights)) or is_module(value),
        runs(verdicts) or ("" if pickled.complete else "what netlens did not read of its pickle"),
        pickled.complete and walk.complete,
        oddities,
    )


def _grouped(root: Node) -> set[int]:
    """Return the identities of the outermost containers that hold tensors."""
    return {id(child.value) for child in root.children if child.total}


def _class(value: object, weights: list[Group]) -> str:
    if is_module(value):
        return model_class(value)
    return next((group.module for group in weights if group.module), "")


def runs(verdicts: tuple[ForeignGlobal, ...]) -> str:
    """Say what unpickling would run; "" where nothing but well-known classes is named."""
    for verdict, what in (("hostile", "names that no checkpoint needs"), ("foreign", "classes or functions of its own")):
        names = [one.name for one in verdicts if one.verdict == verdict]
        if names:
            return f"{what}: {listed(names, 4)}"
    return ""
