"""What is drawn of attention: the rows of every head over the patches, all layers at once, rollout, and token x token maps."""

from __future__ import annotations

from collections.abc import Sequence
from posixpath import commonprefix

import numpy as np

from netlens.drawing.captions import joined, significant
from netlens.drawing.grids import Grid, Scale, Tiles
from netlens.drawing.numbers import percent
from netlens.drawing.text import elided, font
from netlens.lenses.featuremaps.attention_shown import Shown
from netlens.lenses.featuremaps.report import AttentionLayer

__all__ = ["head_grids", "rollout_grid", "sheet_grids", "token_grids"]

LISTED = 24  # tokens that a footnote lists
LABELLED = 48  # tokens that stand along both sides of a map
WORD = 60  # pixels of a token beside a map


def head_grids(shown: Shown, sample: int, picture: np.ndarray | None = None, *, scale: str = "each", name: str = "") -> list[Grid]:
    """Show where each head of a layer looks, after the mean over heads: patches as a picture, other tokens as a strip.

    Args:
        shown: what was kept of the layer.
        sample: the number among the samples kept.
        picture: that it looks at, (H, W, 3) uint8.
        scale: "each" head its own, or "common". A head that looks at one patch would make all others dark.
        name: of the sample.
    """
    rows = _with_mean(shown.rows[sample])
    maps = _folded(rows, shown.layer)
    pictures = _pictures(picture, shown)
    labels = tuple(f"{head} · max {significant(float(tile.max()))}" for head, tile in zip(_names(len(rows) - 1), maps, strict=True))
    words = f"{_whose(shown)}: mean of heads, and {_heads(shown.layer)}"
    foot = _elsewhere(rows, shown.layer)
    return [Grid(_title(shown.layer, name), Tiles(maps, labels, pictures=pictures), _scale(maps, scale), words, foot)]


def sheet_grids(title: str, shown: Sequence[Shown], sample: int, picture: np.ndarray | None = None, *, scale: str = "each") -> list[Grid]:
    """Show all layers (rows) and heads (columns) at once, after the mean over heads: rows over the patches, or token x token maps.

    Layers of another form stand on a grid of their own.
    """
    forms: dict[tuple[tuple[int, ...], str], list[tuple[Shown, np.ndarray]]] = {}
    for each in shown:
        maps = _tiles(each, sample)
        forms.setdefault((maps.shape, each.query), []).append((each, maps))
    return [_sheet(title, layers, _pictures(picture, layers[0][0]), scale) for layers in forms.values()]


def rollout_grid(
    title: str,
    rolled: np.ndarray,
    layer: AttentionLayer,
    row: int | None,
    pictures: Sequence[np.ndarray] = (),
    names: Sequence[str] = (),
) -> Grid:
    """Show from which patches a token is made in the end, over all layers, a tile a sample.

    Args:
        title: of the page.
        rolled: attention rollout, (n, L, L).
        layer: one of those rolled, for the grid.
        row: the token; None: the mean over all.
        pictures: of the samples, (H, W, 3) uint8.
        names: of the samples.
    """
    rows = rolled.mean(axis=1) if row is None else rolled[:, row]
    maps = _folded(rows, layer)
    pictures = tuple(pictures[: len(maps)]) if layer.grid else ()
    columns = len(maps) if len(pictures) > 1 else None
    labels = tuple(names[: len(maps)])
    tiles = Tiles(maps, () if columns else labels, columns=columns, column_labels=labels if columns else (), pictures=pictures)
    whose = "all tokens, on average, are" if row is None else "the class token is" if row < layer.prefix else f"token {row} is"
    foot = [_elsewhere(rows, layer), "product over layers of (A + I) / 2, A the mean over heads (Abnar and Zuidema 2020)"]
    words = f"attention rollout: of which tokens {whose} made after all layers, if values are only mixed"
    return Grid(title, tiles, _scale(maps, "each"), words, "; ".join(filter(None, foot)))


def token_grids(shown: Shown, sample: int, tokens: Sequence[str] = (), *, heads: Sequence[int] = (), name: str = "") -> list[Grid]:
    """Show token x token maps: every head as a tile, then the mean over heads, and each of `heads`, with the tokens beside it.

    Args:
        shown: what was kept of the layer, whole.
        sample: the number among the samples kept.
        tokens: the words of the sample, by which both sides are labelled; else numbers.
        heads: that get a grid of their own, too.
        name: of the sample.
    """
    if shown.whole is None:
        return []
    maps = _with_mean(shown.whole[sample])
    _, queries, keys = maps.shape
    title = _title(shown.layer, name)
    words = "queries downwards, keys to the right: each row sums to 1"
    if queries < shown.layer.queries or keys < shown.layer.keys:
        words = f"queries downwards, keys to the right: the first {queries} × {keys} tokens"
    names = tuple(tokens) if len(tokens) >= max(queries, keys) else ()
    listed = ", ".join(f"{index} {token}" for index, token in enumerate(names[:LISTED])) + (" …" if len(names) > LISTED else "")
    labels = _names(len(maps) - 1)
    every = Grid(title, Tiles(maps, labels), _scale(maps, "common"), words, listed and f"tokens: {listed}")
    single = [0, *(head + 1 for head in heads)] if max(queries, keys) <= LABELLED else []
    titles = [f"{title} · head {labels[index]}" if index else f"{title} · mean of heads" for index in single]
    return [every, *(_labelled(heading, maps[index], names, words) for heading, index in zip(titles, single, strict=True))]


def _labelled(title: str, weights: np.ndarray, names: Sequence[str], words: str) -> Grid:
    """Draw a map whose every number is a tile, so that both sides can be labelled."""
    queries, keys = weights.shape
    texts = [elided(name, font(10), WORD) for name in names] or [str(index) for index in range(max(queries, keys))]
    tiles = Tiles(weights.reshape(-1, 1, 1), columns=keys, row_labels=tuple(texts[:queries]), column_labels=tuple(texts[:keys]))
    return Grid(title, tiles, _scale(weights, "common"), words)


def _pictures(picture: np.ndarray | None, shown: Shown) -> tuple[np.ndarray, ...]:
    return () if picture is None or shown.layer.grid is None else (picture,)


def _sheet(title: str, layers: Sequence[tuple[Shown, np.ndarray]], pictures: tuple[np.ndarray, ...], scale: str) -> Grid:
    first = layers[0][0]
    tiles = np.concatenate([maps for _, maps in layers])
    common, names = _apart([each.layer.name for each, _ in layers])
    columns = _names(first.layer.heads)
    whose = _whose(first) if first.whole is None else "token × token (queries downwards)"
    words = f"{whose}: {common} (downwards), mean of heads and {_heads(first.layer)} (to the right)"
    drawn = Tiles(tiles, columns=len(columns), row_labels=names, column_labels=columns, pictures=pictures, aside=True)
    return Grid(title, drawn, _scale(tiles, scale), words)


def _tiles(shown: Shown, sample: int) -> np.ndarray:
    if shown.whole is not None:
        return _with_mean(shown.whole[sample])
    return _folded(_with_mean(shown.rows[sample]), shown.layer)


def _apart(names: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Take off what all names begin and end with: blocks.0.attn, blocks.1.attn -> "blocks.*.attn" and 0, 1."""
    parts = [name.split(".") for name in names]
    if len(parts) == 1:
        return names[0], (".".join(parts[0][-2:]),)
    begin = len(commonprefix(parts))
    end = min(len(commonprefix([part[::-1] for part in parts])), min(map(len, parts)) - begin)
    inner = tuple(".".join(part[begin : len(part) - end]) for part in parts)
    return ".".join([*parts[0][:begin], "*", *parts[0][len(parts[0]) - end :]]), inner


def _whose(shown: Shown) -> str:
    return f"where {shown.query} looks" if not shown.query.startswith("mean") else f"what is looked at, {shown.query}"


def _heads(layer: AttentionLayer) -> str:
    return f"{layer.heads} head{'s' * (layer.heads > 1)}"


def _names(heads: int) -> tuple[str, ...]:
    return ("mean", *map(str, range(heads)))


def _title(layer: AttentionLayer, sample: str) -> str:
    """Name a layer and a sample: "blocks.0.attn · attention · 12 heads · 197 × 197 · cat.png"."""
    return joined(layer.name, "attention", _heads(layer), f"{layer.queries} × {layer.keys}", sample)


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
    return Scale(signed=False, limit=limit, unit="weight")
