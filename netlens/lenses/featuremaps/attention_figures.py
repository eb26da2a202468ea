"""What is drawn of attention: the rows of every head over the patches, all layers at once, rollout, and token x token maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netlens.drawing.grids import Grid, Scale, Tiles
from netlens.drawing.numbers import percent
from netlens.drawing.text import elided, font
from netlens.lenses.featuremaps.attention_shown import Shown
from netlens.lenses.featuremaps.report import AttentionLayer

__all__ = ["head_grids", "rollout_grid", "sheet_grids", "token_grids"]

LISTED = 24  # tokens that a footnote lists
LABELLED = 48  # tokens that stand along both sides of a map
WORD = 60  # pixels of a token beside a map
WEIGHT = "attention weight"


def head_grids(shown: Shown, sample: int, picture: np.ndarray | None = None, *, scale: str = "each") -> list[Grid]:
    """Show where each head of a layer looks, after the mean over heads: patches as a picture, other tokens as a strip.

    Args:
        shown: what was kept of the layer.
        sample: the number among the samples kept.
        picture: that it looks at, (H, W, 3) uint8.
        scale: "each" head its own, or "common". A head that looks at one patch would make all others dark.
    """
    if shown.rows is None:
        return []
    rows = _with_mean(shown.rows[sample])
    maps = _folded(rows, shown.layer)
    pictures = () if picture is None or shown.layer.grid is None else (picture,)
    tiles = np.concatenate([np.zeros((len(pictures), *maps.shape[1:]), maps.dtype), maps])
    labels = ("input",) * len(pictures) + ("mean", *map(str, range(len(rows) - 1)))
    heads = len(rows) - 1
    subtitle = f"where {shown.query} looks" if shown.query[:4] != "mean" else f"what is looked at, {shown.query}"
    words = f"{subtitle}: mean of heads, and {heads} head{'s' * (heads > 1)}"
    foot = _elsewhere(rows, shown.layer)
    return [Grid(_title(shown.layer), Tiles(tiles, labels, pictures=pictures), _scale(tiles, scale), words, foot)]


def sheet_grids(title: str, shown: Sequence[Shown], sample: int, *, scale: str = "each") -> list[Grid]:
    """Show all layers (rows) and heads (columns) at once, after the mean over heads; layers of another form on a grid of their own."""
    forms: dict[tuple[int, ...], list[Shown]] = {}
    for each in shown:
        if each.rows is not None:
            forms.setdefault((each.layer.heads, *(each.layer.grid or (1, each.layer.keys))), []).append(each)
    return [_sheet(title, layers, sample, scale) for layers in forms.values()]


def rollout_grid(title: str, rolled: np.ndarray, layer: AttentionLayer, row: int | None, pictures: Sequence[np.ndarray] = ()) -> Grid:
    """Show from which patches a token is made in the end, over all layers, a tile a sample.

    Args:
        title: of the page.
        rolled: attention rollout, (n, L, L).
        layer: one of those rolled, for the grid.
        row: the token; None: the mean over all.
        pictures: of the samples, (H, W, 3) uint8.
    """
    rows = rolled.mean(axis=1) if row is None else rolled[:, row]
    maps = _folded(rows, layer)
    pictures = tuple(pictures[: len(maps)]) if layer.grid else ()
    tiles = np.concatenate([np.zeros((len(pictures), *maps.shape[1:]), maps.dtype), maps])
    labels = tuple(f"input {number}" for number in range(len(pictures))) + tuple(map(str, range(len(maps))))
    whose = "all tokens, on average" if row is None else "class token" if row < layer.prefix else f"token {row}"
    words = (
        f"attention rollout: what {whose}, is made of after all layers" if row is None else f"attention rollout: what {whose} is made of"
    )
    foot = f"{_elsewhere(rows, layer)}; product over layers of (A + I) / 2, A the mean over heads (Abnar and Zuidema 2020)"
    return Grid(title, Tiles(tiles, labels, pictures=pictures), _scale(tiles, "each"), words, foot.removeprefix("; "))


def token_grids(shown: Shown, sample: int, tokens: Sequence[str] = (), *, heads: Sequence[int] | None = None) -> list[Grid]:
    """Show token x token maps: every head as a tile, then the mean over heads, and each of `heads`, with the tokens beside it.

    Args:
        shown: what was kept of the layer, whole.
        sample: the number among the samples kept.
        tokens: the words of the sample, by which both sides are labelled; else numbers.
        heads: that get a grid of their own; None: none.
    """
    if shown.whole is None:
        return []
    maps = _with_mean(shown.whole[sample])
    _, queries, keys = maps.shape
    title, most = _title(shown.layer), f"the first {queries} tokens" if queries < shown.layer.queries else ""
    words = "queries downwards, keys to the right: each row sums to 1"
    names = tuple(tokens) if len(tokens) >= max(queries, keys) else ()
    listed = " ".join(f"{index} {name}" for index, name in enumerate(names[:LISTED])) + (" …" if len(names) > LISTED else "")
    labels = ("mean", *map(str, range(len(maps) - 1)))
    all_heads = Grid(
        title, Tiles(maps, labels), _scale(maps, "common"), "; ".join(filter(None, (words, most))), listed and f"tokens: {listed}"
    )
    single = [0, *(head + 1 for head in heads or ())] if max(queries, keys) <= LABELLED else []
    return [all_heads, *(_labelled(f"{title} · {_head(labels[index])}", maps[index], names, words) for index in single)]


def _head(label: str) -> str:
    return "mean of heads" if label == "mean" else f"head {label}"


def _labelled(title: str, weights: np.ndarray, names: Sequence[str], words: str) -> Grid:
    """Draw a map whose every number is a tile, so that both sides can be labelled."""
    queries, keys = weights.shape
    texts = [elided(name, font(10), WORD) for name in names] or [str(index) for index in range(max(queries, keys))]
    tiles = Tiles(weights.reshape(-1, 1, 1), columns=keys, row_labels=tuple(texts[:queries]), column_labels=tuple(texts[:keys]))
    return Grid(title, tiles, _scale(weights, "common"), words)


def _sheet(title: str, layers: Sequence[Shown], sample: int, scale: str) -> Grid:
    rows = [_with_mean(each.rows[sample]) for each in layers if each.rows is not None]
    tiles = np.concatenate([_folded(part, each.layer) for part, each in zip(rows, layers, strict=True)])
    heads = layers[0].layer.heads
    names = tuple(each.layer.name for each in layers)
    words = f"{layers[0].query}: {len(layers)} layers (downwards), mean of heads and {heads} heads (to the right)"
    columns = ("mean", *map(str, range(heads)))
    return Grid(title, Tiles(tiles, columns=heads + 1, row_labels=names, column_labels=columns), _scale(tiles, scale), words)


def _title(layer: AttentionLayer) -> str:
    """Name a layer: "blocks.0.attn · 12 heads · 197 × 197"."""
    heads = f"{layer.heads} head{'s' * (layer.heads > 1)}"
    return " · ".join(filter(None, (layer.name, "attention", heads, f"{layer.queries} × {layer.keys}")))


def _with_mean(maps: np.ndarray) -> np.ndarray:
    """Put the mean over heads before the heads."""
    return np.concatenate([maps.mean(axis=0, keepdims=True), maps])


def _folded(rows: np.ndarray, layer: AttentionLayer) -> np.ndarray:
    """Fold rows of keys, (n, keys), to the patches, (n, h, w); without patches they are strips, (n, 1, keys)."""
    if layer.grid is None:
        return rows[:, None]
    return rows[:, layer.prefix :].reshape(-1, *layer.grid)


def _elsewhere(rows: np.ndarray, layer: AttentionLayer) -> str:
    """Say how much goes to tokens that the picture cannot show; the first row is the mean over heads, or one of a few samples."""
    if layer.grid is None or not layer.prefix:
        return ""
    shares = rows[:, : layer.prefix].sum(axis=1)
    what = "class token" if layer.prefix == 1 else f"{layer.prefix} tokens before the patches"
    least, most = percent(float(shares.min()), 1), percent(float(shares.max()), 1)
    return f"not shown: the {what}, to which {least if least == most else f'{least} to {most}'} of the attention goes"


def _scale(tiles: np.ndarray, scale: str) -> Scale:
    limit = float(np.nanmax(tiles, initial=0)) if scale == "common" else None
    return Scale(signed=False, limit=limit, unit=WEIGHT)
