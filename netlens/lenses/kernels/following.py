"""Whether a normalisation follows a weight, as far as the order in which layers are registered tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest


@dataclass(frozen=True, slots=True)
class Place:
    """A weight or a normalisation, in the order of registration; layers of other kinds are left out."""

    path: str  # "layer1.0.conv1"
    outputs: int = 0  # of a weight
    norm: bool = False
    features: frozenset[int] | None = None  # that a normalisation may have; None: not known

    def fits(self, outputs: int) -> bool:
        """Tell whether this normalisation may stand behind so many outputs."""
        return self.features is None or outputs in self.features

    def may_fit(self, outputs: int) -> bool:
        """Tell whether this normalisation may be applied to so many outputs, or to equal parts of them, as to the heads of attention."""
        return self.features is None or any(size and outputs % size == 0 for size in self.features)


@dataclass(frozen=True, slots=True)
class Containers:
    """What the modules that hold others are."""

    ordered: Callable[[str], bool]  # runs its children one after the other
    listing: Callable[[str], bool]  # only holds them: ModuleList, ModuleDict

    def scope(self, path: str) -> str:
        """Return the path of the module whose forward calls what stands at `path`."""
        parent = parent_of(path)
        while parent and self.listing(parent):
            parent = parent_of(parent)
        return parent


def followed(places: Sequence[Place], containers: Containers) -> list[bool | None]:
    """Say of each place whether a normalisation follows; None where that does not tell, as at the end of a residual branch."""
    claimed = {after.path for before, after in pairwise(places) if after.norm and not before.norm}
    norms = [place for place in places if place.norm]
    loose = [norm for norm in norms if norm.path not in claimed]
    return [_followed(place, after, norms, loose, containers) for place, after in zip_longest(places, places[1:])]


def _followed(place: Place, after: Place | None, norms: Sequence[Place], loose: Sequence[Place], containers: Containers) -> bool | None:
    parent, scope = parent_of(place.path), containers.scope(place.path)
    if after is None:
        return False
    if after.norm:
        common = _common(parent, parent_of(after.path))
        near = common in (parent, scope) or (containers.ordered(common) and parent_of(after.path) == common)
        return True if near and after.fits(place.outputs) else None
    if containers.ordered(parent) and _common(parent, after.path) == parent:
        return False
    if _common(scope, after.path) != scope:  # the end of a block: what its output meets, registration does not tell
        return None if any(norm.may_fit(place.outputs) for norm in norms) else False
    # conv1, conv2, norm1, norm2: a normalisation of the same module that stands behind no weight may belong to any.
    return None if any(containers.scope(norm.path) == scope and norm.may_fit(place.outputs) for norm in loose) else False


def parent_of(path: str) -> str:
    """Return the path of the module that holds `path`; "" for the model itself."""
    return path.rpartition(".")[0]


def _common(first: str, second: str) -> str:
    """Return the path of the innermost module that holds both."""
    same = []
    for left, right in zip(first.split("."), second.split("."), strict=False):
        if left != right:
            break
        same.append(left)
    return ".".join(same)
