"""What the tests of the kernels lens share: synthetic reports, and the statistics of weights written as plain, slow numpy.

`slowly` repeats the definitions of `LayerWeights` in float64 with loops over filters; it shares no code with the lens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np
from torch import nn

from netlens.lenses.kernels.report import Change, KernelsReport, LayerWeights, NormStatistics

HEALTHY = LayerWeights(
    index=0,
    name="conv",
    type="Conv2d",
    kind="conv2d",
    shape=(64, 16, 3, 3),  # 9,216 elements, fan-in 144
    dtype="float32",
    filters=64,
    fan_in=144,
    groups=1,
    transposed=False,
    trainable=True,
    normalised=False,
    head=False,
    mean=0.0001,
    std=0.0833,
    rms=0.0833,
    norm=8.0,  # 0.0833 * sqrt(9216)
    least=-0.33,
    greatest=0.33,
    zeros=0,
    nan=0,
    infinite=0,
    initial_std=0.0833,
    initial_source="constructor",
    gain=1.0,  # 0.0833 * sqrt(144)
    dead=0,
    duplicates=0,
    duplicate_cosine=0.995,
    largest_cosine=0.31,
    stable_rank=24.6,
    outlier=4.0,
    near_zero=0.0008,
    valley=0.0,
    smoothness=0.2,
    smoothness_z=15.0,
    histogram=None,
    change=None,
)


def layer(name: str = "conv", **changes: Any) -> LayerWeights:
    """Return a healthy convolution with some fields changed."""
    return replace(HEALTHY, name=name, **changes)


def norm(name: str = "bn", **changes: Any) -> NormStatistics:
    """Return a healthy, trained normalisation with some fields changed."""
    values: dict[str, Any] = {"nonfinite": 0, "least_variance": 0.2, "untouched": False, "affine_moved": True}
    return NormStatistics(name, "BatchNorm2d", 64, **(values | changes))


def report(*layers: LayerWeights, **changes: Any) -> KernelsReport:
    """Return a report of these layers, numbered in order, as of a trained checkpoint that fits its model."""
    numbered = tuple(replace(row, index=index) for index, row in enumerate(layers))
    values: dict[str, Any] = {"model": "Net", "source": "best.ckpt", "initialised": False, "against": None, "norms": ()}
    return KernelsReport(layers=numbered, **(values | changes))


def slow_report(subject: nn.Module, *, normalised: bool | None = None, against: nn.Module | None = None, **changes: Any) -> KernelsReport:
    """Measure the convolutions, linear layers and embeddings of a small model slowly; nothing is known about what follows them."""
    found = [(name, part) for name, part in subject.named_modules() if kind_of(part)]
    others = dict(against.named_modules()) if against is not None else {}
    layers = [slowly(part, name=name, normalised=normalised, head=part is found[-1][1], other=others.get(name)) for name, part in found]
    norms = tuple(_norm(name, part) for name, part in subject.named_modules() if isinstance(part, nn.modules.batchnorm._BatchNorm))
    return report(*layers, **{"norms": norms, "against": "other" if others else None, **changes})


def kind_of(part: nn.Module) -> str:
    """Return "conv2d", "linear", "embedding" or ""."""
    for rank in (1, 2, 3):
        if isinstance(part, (getattr(nn, f"Conv{rank}d"), getattr(nn, f"ConvTranspose{rank}d"))):
            return f"conv{rank}d"
    return "linear" if isinstance(part, nn.Linear) else "embedding" if isinstance(part, nn.Embedding) else ""


def slowly(part: nn.Module, *, name: str, normalised: bool | None, head: bool, other: nn.Module | None = None) -> LayerWeights:
    """Measure one layer by the definitions."""
    stored = _numpy(part)
    groups, transposed = getattr(part, "groups", 1), "Transpose" in type(part).__name__
    filters = _by_filter(stored, groups, transposed)
    rows = filters.reshape(len(filters), -1)
    return replace(
        HEALTHY,
        **_moments(stored),
        **_of_filters(rows, groups, kind_of(part)),
        **_smoothness(filters),
        name=name,
        type=type(part).__name__,
        kind=kind_of(part),
        shape=stored.shape,
        filters=len(rows),
        fan_in=rows.shape[1],
        groups=groups,
        transposed=transposed,
        trainable=all(parameter.requires_grad for parameter in part.parameters()),
        normalised=normalised,
        head=head,
        gain=_moments(stored)["rms"] * sqrt(rows.shape[1]),
        initial_std=None,
        initial_source="",
        change=None if other is None else _change(stored, _numpy(other)),
    )


def _numpy(part: nn.Module) -> np.ndarray:
    return part.weight.detach().double().numpy()


def _by_filter(stored: np.ndarray, groups: int, transposed: bool) -> np.ndarray:
    if not transposed:
        return stored
    parts = np.split(stored, groups)  # stored as (in, out / groups, *kernel)
    return np.concatenate([part.swapaxes(0, 1) for part in parts])


def _moments(stored: np.ndarray) -> dict[str, Any]:
    w = stored[np.isfinite(stored)]
    rms, sizes = sqrt((w**2).mean()), np.sort(np.abs(w))
    median = np.median(sizes[sizes > 0]) if (sizes > 0).any() else 0.0
    return {
        "mean": w.mean(),
        "std": w.std(),
        "rms": rms,
        "norm": sqrt((w**2).sum()),
        "least": w.min(),
        "greatest": w.max(),
        "zeros": int((w == 0).sum()),
        "nan": int(np.isnan(stored).sum()),
        "infinite": int(np.isinf(stored).sum()),
        "outlier": sizes[-1] / (1.4826 * median) if stored.size >= 256 and median else None,
        "near_zero": float(((sizes > 0) & (sizes < 1e-3 * rms)).mean()),
        "valley": None,
    }


def _of_filters(rows: np.ndarray, groups: int, kind: str) -> dict[str, Any]:
    rows = np.where(np.isfinite(rows), rows, 0)
    norms = np.sqrt((rows**2).sum(1))
    count, fan_in = rows.shape
    dead = int((norms <= 1e-3 * sqrt((norms**2).mean())).sum()) if count >= 4 and fan_in >= 4 and kind != "embedding" else 0
    size = count // groups
    pairs, copies, largest = groups * size * (size - 1) // 2, set(), None
    tau = max(0.995, sqrt(1 - (1e-3 / pairs) ** (2 / (fan_in - 1)))) if pairs and fan_in > 1 else 1.0
    for a in range(count):
        for b in range(a + 1, (a // size + 1) * size):
            if norms[a] and norms[b]:
                cosine = rows[a] @ rows[b] / (norms[a] * norms[b])
                largest = max(largest or 0.0, abs(cosine))
                copies |= {a, b} if cosine > tau else set()
    ranks = [_stable_rank(part) for part in np.split(rows, groups)] if size > 1 and fan_in > 1 else []
    known = tau <= 0.99995
    return {
        "dead": dead,
        "duplicates": len(copies) if known else 0,
        "duplicate_cosine": tau if known else None,
        "largest_cosine": largest,
        "stable_rank": min((rank for rank in ranks if rank), default=None),
    }


def _stable_rank(rows: np.ndarray) -> float | None:
    largest = np.linalg.svd(rows, compute_uv=False)[0]
    return float((rows**2).sum() / largest**2) if largest else None


def _smoothness(filters: np.ndarray) -> dict[str, Any]:
    """Mean product of neighbours over the mean square; under independence it has a deviation of 1 / sqrt(pairs)."""
    total, pairs = 0.0, 0
    for axis in range(2, filters.ndim):
        ahead, behind = np.split(filters, [1], axis)[1], np.split(filters, [-1], axis)[0]
        total, pairs = total + float((ahead * behind).sum()), pairs + ahead.size
    square = float((filters**2).mean())
    if not pairs or not square or not np.isfinite(square):
        return {"smoothness": None, "smoothness_z": None}
    return {"smoothness": total / pairs / square, "smoothness_z": total / square / sqrt(pairs)}


def _change(this: np.ndarray, other: np.ndarray) -> Change:
    difference, size = np.linalg.norm(this - other), np.linalg.norm(other)
    return Change(float(difference / size), None, float(np.abs(this - other).max()))


def _norm(name: str, part: nn.modules.batchnorm._BatchNorm) -> NormStatistics:
    assert part.running_mean is not None and part.running_var is not None
    mean, variance = part.running_mean.double().numpy(), part.running_var.double().numpy()
    moved = any((part.state_dict()[key] != start).any() for key, start in (("weight", 1), ("bias", 0))) if part.affine else None
    return NormStatistics(
        name,
        type(part).__name__,
        part.num_features,
        nonfinite=int((~np.isfinite(mean)).sum() + (~np.isfinite(variance)).sum()),
        least_variance=float(variance.min()),
        untouched=bool((mean == 0).all() and (variance == 1).all()),
        affine_moved=moved,
    )


def codes(findings: Iterable[Any]) -> list[str]:
    """Return the codes of findings, in their order."""
    return [finding.code for finding in findings]
