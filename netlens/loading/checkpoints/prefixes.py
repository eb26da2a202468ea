"""Which prefix of a checkpoint's names is not the model's: found by what fits, not by a list of known ones.

Every name is tried with its first segments taken off, and each prefix is credited with the tensors that then have a place of that name, and
of that shape, in the model. `torch.compile`, FSDP and activation checkpointing put a segment of their own inside names as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from netlens.errors import UsageError
from netlens.loading.checkpoints.archive import StoredTensor
from netlens.loading.words import listed, one_line

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
DEEPEST = 8  # segments that a prefix may have; names from a file may have any number
LEAST = 0.25  # of the names that could fit: below it, what fits after stripping is a coincidence
EMA = re.compile(r"(^|[._])(ema|swa|teacher|shadow|averaged?|momentum|target|encoder_k)([._]|$)", re.IGNORECASE)

Shape = tuple[int, ...] | None  # None: a lazy layer, which takes any


@dataclass(frozen=True, slots=True)
class Stripping:
    """How names of the checkpoint become names of the model."""

    prefix: str = ""  # taken off; names without it stand outside
    bare: bool = False  # segments of wrappers are taken out, on both sides

    def __call__(self, name: str) -> str | None:
        """Return the model's name; None for one that stands outside the prefix."""
        name = bare(name) if self.bare else name
        return name[len(self.prefix) :] if name.startswith(self.prefix) else None


@dataclass(slots=True)
class Tally:
    """What fits with one prefix stripped."""

    exact: int = 0  # tensors of the model's name and shape
    named: int = 0  # of the model's name

    @property
    def score(self) -> tuple[int, int]:
        """The larger, the better it fits."""
        return self.exact, self.named


def bare(name: str) -> str:
    """Take the segments of wrappers out of a name."""
    if not any(wrapper in name for wrapper in WRAPPERS):
        return name
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def tallies(tensors: Iterable[StoredTensor], places: Mapping[str, Shape], rename: Callable[[str], str] = str) -> dict[str, Tally]:
    """Credit every prefix with the tensors that fit once it is stripped; "" is no prefix."""
    found: dict[str, Tally] = {"": Tally()}
    for tensor in tensors:
        name, start = rename(tensor.name), 0
        for _ in range(DEEPEST):
            if name[start:] in places:
                shape = places[name[start:]]
                tally = found.setdefault(name[:start], Tally())
                tally.named += 1
                tally.exact += shape is None or shape == tensor.shape
            start = name.find(".", start) + 1
            if not start:
                break
    return found


def best_stripping(tensors: tuple[StoredTensor, ...], places: Mapping[str, Shape]) -> Stripping:
    """Find what to take off the names so that most of them fit; nothing, where nothing is better than that.

    Raises:
        UsageError: two prefixes fit equally well, or only an averaged copy fits.
    """
    enough = LEAST * min(len(tensors), len(places))
    plain = _best(tallies(tensors, places), enough)
    if not any(bare(name) != name for name in (*(tensor.name for tensor in tensors), *places)):
        return Stripping(_decided(plain))
    inner = {bare(name): shape for name, shape in places.items()}
    unwrapped = _best(tallies(tensors, inner, bare), enough)
    if len(inner) == len(places) and unwrapped[0][1].score > plain[0][1].score:
        return Stripping(_decided(unwrapped), bare=True)
    return Stripping(_decided(plain))


def mixed_with(tensors: Iterable[StoredTensor], missing: Mapping[str, Shape], chosen: Stripping) -> str | None:
    """Return another prefix under which tensors that are left over fill what is missing; None where there is none."""
    found = tallies(tensors, missing, bare if chosen.bare else str)
    others = [(prefix, tally.exact) for prefix, tally in found.items() if prefix != chosen.prefix and 2 * tally.exact >= len(missing)]
    return max(others, key=lambda entry: entry[1])[0] if others and missing else None


def given_stripping(tensors: tuple[StoredTensor, ...], places: Mapping[str, Shape], prefix: str) -> Stripping:
    """Take off the prefix that the user names.

    Raises:
        UsageError: no name begins with it.
    """
    prefix = prefix if prefix.endswith(".") or not prefix else f"{prefix}."
    plain, unwrapped = Stripping(prefix), Stripping(prefix, bare=True)
    counts = {way: sum(way(tensor.name) in places for tensor in tensors) for way in (plain, unwrapped)}
    chosen = unwrapped if counts[unwrapped] > counts[plain] else plain
    if all(chosen(tensor.name) is None for tensor in tensors):
        first = dict.fromkeys(tensor.name.partition(".")[0] + "." for tensor in tensors if "." in tensor.name)
        raise UsageError(
            f"no tensor's name begins with {one_line(prefix)!r}",
            hint=f"names begin with {listed(first)}" if first else "leave --strip-prefix out",
        )
    return chosen


def _best(found: dict[str, Tally], enough: float) -> list[tuple[str, Tally]]:
    """Return the prefixes with the best score; [no prefix] where that is as good, or where little fits at all."""
    nothing = found[""]
    most = max(tally.score for tally in found.values())
    if most == nothing.score or most[1] < enough:
        return [("", nothing)]
    return [(prefix, tally) for prefix, tally in found.items() if tally.score == most]


def _decided(best: list[tuple[str, Tally]]) -> str:
    """Choose between prefixes that fit equally well: the weights that were trained, never silently a copy of them."""
    prefixes = [prefix for prefix, _ in best]
    trained = [prefix for prefix in prefixes if not EMA.search(prefix)]
    if len(trained) == 1:
        return trained[0]
    if not trained:
        raise UsageError(
            f"only what stands under {listed(map(repr, prefixes))} fits the model, and by its name that is an averaged copy of the weights",
            hint=f"where you want it: --strip-prefix {one_line(prefixes[0])}",
        )
    raise UsageError(
        f"the checkpoint fits the model {len(trained)} times: under {listed(map(repr, trained))}",
        hint=f"choose one, like --strip-prefix {one_line(trained[0])}",
    )
