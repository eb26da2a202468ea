"""What attention does, in numbers a head, and which of its rows are shown; of each batch only that is kept."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt, prod

import numpy as np
import torch
from torch import Tensor

from netlens.lenses.featuremaps.attention_shown import Query, Shown, outside
from netlens.lenses.featuremaps.report import AttentionLayer
from netlens.lenses.featuremaps.sums import wide
from netlens.probing.attention_maps import AttentionMap, roll

Pair = tuple[int, int]

PIECE = 1 << 22  # weights that are looked at together
MOST_PREFIX = 8  # tokens before the patches: a class token and registers
WHOLE = 128  # tokens of a text whose maps are kept whole; of more, the first ones


def fold(tokens: int, picture: Pair | None, *, windows: bool = False) -> tuple[Pair | None, int]:
    """Tell the grid that tokens come from, and how many others stand before them.

    Patches are square, so their grid has the proportions of the picture (height, width); windows are square themselves. Where no grid fits
    exactly, one will do that is off by less than a row or a column: pictures are cropped or padded to whole patches.
    """
    if picture is None:
        return None, 0
    tall, wide_ = (1, 1) if windows else picture
    for slack in (1, max(tall, wide_)):
        for prefix in range(1 if windows else min(MOST_PREFIX, max(1, tokens // 8)) + 1):
            count = tokens - prefix
            rows = max(1, (isqrt(4 * count * tall // wide_) + 1) // 2)  # the root, rounded
            if count % rows == 0 and abs(rows * wide_ - count // rows * tall) < slack:
                return (rows, count // rows), prefix
    return None, 0


def entropies(weights: Tensor, allowed: Tensor) -> Tensor:
    """Return the entropy of each row / ln(keys it may attend to): 1 is even, 0 looks at one key; nan where there is no choice.

    Args:
        weights: (N, heads, L, S).
        allowed: (N, heads, L).
    """
    found = _by_piece(weights, lambda part: torch.special.entr(part).sum(dim=-1))
    shares = found / allowed.to(found.dtype).log()
    return shares.masked_fill(allowed < 2, torch.nan)


def distances(weights: Tensor, grid: Pair | None, prefix: int) -> Tensor:
    """Return how far each patch looks on average, in patches; after Dosovitskiy et al. 2021, appendix D.7.

    Tokens before the patches, and what patches attend to in them, do not count; nan for a patch that looks at nothing else.

    Args:
        weights: (N, heads, L, L).
        grid: of the patches; None: tokens are in a line.
        prefix: tokens before them.
    """
    axes = [torch.arange(size, dtype=weights.dtype, device=weights.device) for size in grid or (weights.shape[-1] - prefix,)]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
    apart = torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist")
    patches = weights[..., prefix:, prefix:]
    return _by_piece(patches, lambda part: (part * apart).sum(dim=-1) / part.sum(dim=-1))


def _by_piece(weights: Tensor, reduce: Callable[[Tensor], Tensor]) -> Tensor:
    """Reduce (N, heads, L, S) to (N, heads, L) without a second tensor of that size."""
    rows = weights.flatten(0, 1)
    step = max(1, PIECE // max(1, prod(weights.shape[2:])))
    found: Tensor = torch.cat([reduce(part) for part in rows.split(step)])
    return found.reshape(weights.shape[:-1])


class _Means:
    """Means a head, over rows that have a number."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None  # (2, heads): sums and counts

    def add(self, values: Tensor) -> None:
        """Take (N, heads, L)."""
        sums = torch.stack([values.nansum(dim=(0, 2)), (~values.isnan()).sum(dim=(0, 2)).to(values.dtype)]).to(wide(values))
        self._sums = sums if self._sums is None else self._sums + sums

    def result(self) -> tuple[float, ...] | None:
        """Return them; nan for a head that has none. None: nothing was added."""
        return None if self._sums is None else tuple((self._sums[0] / self._sums[1]).tolist())


class _Layer:
    """One layer, over all batches."""

    def __init__(self, found: AttentionMap, picture: Pair | None, windows: int) -> None:
        _, self.heads, self.queries, self.keys = found.weights.shape
        self.grid, self.prefix = fold(self.keys, picture, windows=windows > 1)
        self.query_grid, self.query_prefix = fold(self.queries, picture, windows=windows > 1)
        self.windows, self.is_text, self.self_attention = windows, picture is None, found.self_attention
        self.entropy, self.distance = _Means(), _Means()
        self.query = ""
        self.rows: list[np.ndarray] = []
        self.whole: list[np.ndarray] = []

    def add(self, found: AttentionMap) -> None:
        self.entropy.add(entropies(found.weights, found.allowed))
        if found.self_attention and (self.is_text or self.grid) and found.weights.shape[-1] == self.keys:
            self.distance.add(distances(found.weights, self.grid, self.prefix))

    def keep(self, weights: Tensor, row: int | None, query: str) -> None:
        """Keep what is shown of some samples, (n windows, heads, L, S)."""
        self.query = query
        rows = weights.mean(dim=2) if row is None else weights[:, :, row]
        self.rows.append(_host(rows.unflatten(0, (-1, self.windows)).mean(dim=1)))
        if self.is_text:
            self.whole.append(_host(weights[:, :, :WHOLE, :WHOLE]))

    def report(self, index: int, name: str) -> AttentionLayer:
        return AttentionLayer(
            index=index,
            name=name,
            heads=self.heads,
            queries=self.queries,
            keys=self.keys,
            grid=self.grid,
            prefix=self.prefix,
            entropy=self.entropy.result() or (),
            distance=self.distance.result(),
        )


class AttentionRecorder:
    """Looks at every attention map of a run, and keeps means a head, and of the first samples the rows that are shown."""

    def __init__(self, query: Query | None = None, keep: int = 0) -> None:
        """Say what is shown.

        Args:
            query: whose attention; None: the class token's, in windows that of the centre, else the mean over all queries.
            keep: samples that are shown.
        """
        self._query, self._keep = query, keep
        self._layers: dict[str, _Layer] = {}
        self._samples = self._seen = 0
        self._picture: Pair | None = None
        self._rolled: Tensor | None = None
        self._rollouts: list[Tensor] = []
        self._can_roll = True

    def begin(self, samples: int, picture: Pair | None) -> None:
        """Say what the next pass is fed with: so many samples, pictures of this height and width or no pictures (None)."""
        self._end_pass()
        self._samples, self._picture = samples, picture

    def look(self, found: AttentionMap) -> None:
        """Take one map; to be called by `attended`.

        Raises:
            UsageError: there is no such query.
        """
        count = len(found.weights)
        windows = count // self._samples if self._samples and count % self._samples == 0 else 1
        layer = self._layers.get(found.name)
        if layer is None:
            layer = self._layers[found.name] = _Layer(found, self._picture, max(1, windows))
        layer.add(found)
        shown = min(self._keep - self._seen, self._samples)
        if shown > 0 and found.weights.shape[1:] == (layer.heads, layer.queries, layer.keys):
            kept = found.weights[: shown * layer.windows]
            row, words = self._row(layer)
            if words:
                layer.keep(kept, row, words)
            self._roll(kept, layer)

    def layers(self) -> tuple[AttentionLayer, ...]:
        """Return what was learned, in the order in which layers ran."""
        return tuple(layer.report(index, name) for index, (name, layer) in enumerate(self._layers.items()))

    def shown(self) -> tuple[Shown, ...]:
        """Return what was kept, in the order in which layers ran."""
        return tuple(
            Shown(report, layer.query, np.concatenate(layer.rows), np.concatenate(layer.whole) if layer.whole else None)
            for report, layer in zip(self.layers(), self._layers.values(), strict=True)
            if layer.rows
        )

    def rollout(self) -> np.ndarray | None:
        """Return the attention rollout over all layers, (n, L, L); None where they do not attend among the same tokens (Swin, pyramids)."""
        self._end_pass()
        return _host(torch.cat(self._rollouts)) if self._rollouts and self._can_roll else None

    def _end_pass(self) -> None:
        if self._rolled is not None:
            self._rollouts.append(self._rolled)
        self._rolled = None
        self._seen += self._samples
        self._samples = 0

    def _roll(self, weights: Tensor, layer: _Layer) -> None:
        size = None if self._rolled is None else self._rolled.shape[-1]
        self._can_roll &= layer.self_attention and layer.windows == 1 and size in (None, layer.keys)
        if self._can_roll:
            self._rolled = roll(self._rolled, weights)

    def _row(self, layer: _Layer) -> tuple[int | None, str]:
        """Choose a row (None: the mean over all), and name it; "" where this layer has none of that name."""
        grid, prefix, windows = layer.query_grid, layer.query_prefix, layer.windows
        per_window = f" of each window, mean over {windows} windows" if windows > 1 else ""
        if self._query is not None:
            row, words = self._chosen(self._query, layer)
            return row, words and words + per_window
        if layer.queries == 1:
            return 0, "its only query"
        if grid is not None and prefix:
            return 0, "the class token" if prefix == 1 else f"token 0, the first of {prefix} before the patches"
        if windows > 1 and grid is not None:
            return grid[0] // 2 * grid[1] + grid[1] // 2, f"token {grid[0] // 2},{grid[1] // 2}{per_window}"
        return None, f"mean over all queries{per_window}"

    def _chosen(self, query: Query, layer: _Layer) -> tuple[int, str]:
        first = next(iter(self._layers.values()))
        if query.index is not None:
            if query.index >= first.queries:
                raise outside(query, None, first.queries)
            return query.index, f"token {query.index}" if query.index < layer.queries else ""
        assert query.place is not None
        grid, finest = layer.query_grid, first.query_grid
        if finest is None or (first.windows == 1 and any(at >= size for at, size in zip(query.place, finest, strict=True))):
            raise outside(query, finest, first.queries)
        if grid is None:
            return 0, ""
        if layer.windows > 1:
            row, column = (at % size for at, size in zip(query.place, grid, strict=True))
        else:  # in a coarser grid, the patch over it
            row, column = (at * size // whole for at, size, whole in zip(query.place, grid, finest, strict=True))
        return layer.query_prefix + row * grid[1] + column, f"patch {row},{column}"


def _host(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.float().cpu().numpy().copy()
    return array
