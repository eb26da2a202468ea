"""What it means that a pickle names a class or a function: whether plain weights need it, and whether it can do harm."""

from __future__ import annotations

from collections.abc import Container, Iterable

from netlens.loading.checkpoints.archive import ForeignGlobal
from netlens.loading.checkpoints.dtypes import ITEMSIZES
from netlens.loading.checkpoints.names import HARMLESS, HOSTILE_MODULES, HOSTILE_NAMES, KNOWN_PACKAGES, PLAIN
from netlens.loading.checkpoints.rebuild import REBUILDS
from netlens.loading.checkpoints.stubs import Global


def foreign(globals_: Iterable[Global], misused: Container[str] = ()) -> tuple[ForeignGlobal, ...]:
    """Return the verdicts on all names that plain weights do not need, the worst first."""
    found = [ForeignGlobal(name.dotted, verdict(name, misused)) for name in globals_ if name.dotted in misused or not _plain(name)]
    order = ("hostile", "foreign", "known")
    return tuple(sorted(found, key=lambda one: order.index(one.verdict)))


def verdict(named: Global, misused: Container[str] = ()) -> str:
    """Return "hostile", "known" or "foreign"."""
    if named.dotted in misused:
        return "hostile"
    if named.dotted in HARMLESS or named.dotted == "builtins.getattr":
        return "known"
    if named.dotted in HOSTILE_NAMES or any(prefix in HOSTILE_MODULES for prefix in _prefixes(named)) or _reaches(named):
        return "hostile"
    return "known" if named.module.split(".", 1)[0] in KNOWN_PACKAGES else "foreign"


def _plain(named: Global) -> bool:
    if named.dotted in PLAIN or (named.dotted in REBUILDS and named.module != "pathlib"):
        return True
    top = named.module.split(".", 1)[0]
    if top != "torch":
        return False
    return named.name.endswith("Storage") or (named.module == "torch" and named.name in ITEMSIZES) or named.module == "torch.jit._pickle"


def _prefixes(named: Global) -> list[str]:
    """Return the module and its parents; since protocol 4 a name may have dots, too, and lead from one module into another."""
    parts = named.module.split(".")[:20]
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _reaches(named: Global) -> bool:
    """Whether a dotted name walks into what its module has imported: "torch" "os.system", or into an object's insides."""
    inner = named.name.split(".")[:20]
    if len(inner) < 2:
        return False
    return any(part in HOSTILE_MODULES or part.startswith("__") or f"builtins.{part}" in HOSTILE_NAMES for part in inner)
