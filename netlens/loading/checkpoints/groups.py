"""Which of the state dicts inside a checkpoint is meant."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from netlens.errors import UsageError
from netlens.loading.checkpoints.archive import Archive, StoredTensor, TensorGroup
from netlens.loading.suggest import did_you_mean
from netlens.loading.words import listed, one_line

PREFERRED = ("", "state_dict", "model_state_dict", "model", "module", "net", "network", "params", "weights", "generator")

Score = Callable[[Sequence[StoredTensor]], tuple[int, int]]


def chosen_group(archive: Archive, score: Score, key: str | None) -> TensorGroup:
    """Choose the group to load: the one that the user names, or the one whose names fit the model best.

    Raises:
        UsageError: there is none, or several are as good.
    """
    if key is not None:
        return _named(archive, key)
    found = candidates(archive)
    if not found:
        raise _no_weights(archive)
    if len(found) == 1:
        return found[0]
    scores = {group.key: score(group.tensors) for group in found}
    best = max(scores.values())
    fitting = sorted((group for group in found if scores[group.key] == best), key=_rank)
    if len(fitting) > 1 and _rank(fitting[0]) == _rank(fitting[1]) and best > (0, 0):
        raise UsageError(
            f"{one_line(archive.path.name)} holds {len(fitting)} sets of weights that fit equally well: {_described(fitting)}",
            hint=f"choose one: --key {one_line(fitting[0].key)}",
        )
    return fitting[0]


def checked_group(archive: Archive, key: str | None) -> None:
    """Refuse, without knowing the model, a key that is not there, and a file without weights.

    Raises:
        UsageError: it says what the file holds instead.
    """
    if key is not None:
        _named(archive, key)
    elif not candidates(archive):
        raise _no_weights(archive)


def candidates(archive: Archive) -> list[TensorGroup]:
    """Return the groups that may be loaded unasked: weights, and averaged weights only where they are the whole file."""
    found = [group for group in archive.groups if group.tensors]
    weights = [group for group in found if group.role == "weights"]
    return weights or [group for group in found if group.role == "other" or (group.role == "ema" and not group.key)]


def copies(archive: Archive, chosen: TensorGroup) -> tuple[str, ...]:
    """Return the keys of averaged copies beside the chosen group."""
    return tuple(group.key for group in archive.groups if group.role == "ema" and group.tensors and group.key != chosen.key)


def _named(archive: Archive, key: str) -> TensorGroup:
    group = next((group for group in archive.groups if group.key == key), None)
    if group is not None:
        return group
    keys = [group.key for group in archive.groups if group.key]
    if not keys:
        raise UsageError(f"{one_line(archive.path.name)} has no keys: it is a state dict itself", hint="leave --key out")
    otherwise = f"it has {_described(archive.groups)}"
    raise UsageError(f"{one_line(archive.path.name)} has no tensors under the key {key!r}", hint=did_you_mean(key, keys, otherwise))


def _no_weights(archive: Archive) -> UsageError:
    name, roles = one_line(archive.path.name), {group.role for group in archive.groups if group.tensors}
    if "ema" in roles:
        copy = next(group for group in archive.groups if group.role == "ema" and group.tensors)
        what = f"{name} holds only averaged weights (EMA), which are never taken unasked"
        return UsageError(what, hint=f"where you want them: --key {one_line(copy.key)}")
    if "optimizer" in roles:
        what = f"{name} holds the state of an optimizer, and no weights"
        return UsageError(what, hint="look for the file of the model beside it: an optimizer's state cannot be turned back into weights")
    return UsageError(f"{name} holds no tensors", hint=f"`netlens summary {name}` shows what is in it")


def _described(groups: Sequence[TensorGroup]) -> str:
    return listed(f"{group.key or 'the file itself'} ({len(group.tensors):,} tensors)" for group in groups)


def _rank(group: TensorGroup) -> int:
    return PREFERRED.index(group.key) if group.key in PREFERRED else len(PREFERRED)
