"""Which published architecture a list of tensors belongs to: by a fingerprint of names and shapes. Standard library only.

Heads are named but not measured, because their shapes depend on the number of classes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator

from netlens.loading.checkpoints.prefixes import bare

HEAD = re.compile(r"(^|\.)(fc|heads?|classifier\w*|aux\w*|AuxLogits|last_linear|\w*predictor|\w*logits?|\w*_head)(\.|$)")
LEAST = 6  # tensors; fewer are no architecture

Entry = tuple[str, tuple[int, ...]]  # name and shape


def architectures(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Return the names in torchvision of the models that have just these tensors; several where they cannot be told apart."""
    from netlens.loading.checkpoints.architectures import BODIES, WHOLE

    for stripped in _without_prefixes(list(entries)):
        found = WHOLE.get(whole(stripped)) or BODIES.get(body(stripped))
        if found and len(stripped) >= LEAST:
            return tuple(found.split())
    return ()


def whole(entries: Iterable[Entry]) -> str:
    """Return the fingerprint of the names of all tensors, and of the shapes of those outside the head."""
    return _digest(f"{name}:{'' if HEAD.search(name) else _shape(shape)}" for name, shape in entries if _counts(name))


def body(entries: Iterable[Entry]) -> str:
    """Return the fingerprint of what is outside the head."""
    return _digest(f"{name}:{_shape(shape)}" for name, shape in entries if _counts(name) and not HEAD.search(name))


def _without_prefixes(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Yield the tensors as they are named, then without the segments that all names begin with."""
    entries = [(bare(name), shape) for name, shape in entries]
    yield entries
    for _ in range(4):
        first = {name.partition(".")[0] for name, _ in entries}
        if len(first) != 1 or not all("." in name for name, _ in entries):
            return
        entries = [(name.partition(".")[2], shape) for name, shape in entries]
        yield entries


def _counts(name: str) -> bool:
    return not name.endswith(("num_batches_tracked", "n_averaged"))


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode("utf-8", "surrogatepass")).hexdigest()[:12]
