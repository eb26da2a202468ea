"""Statistics of attention against plain loops in float64; its pictures against the weights that they show."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from netlens.drawing.grids import Grid, pages
from netlens.errors import UsageError
from netlens.lenses.featuremaps import album, attention
from netlens.lenses.featuremaps.attention import AttentionRecorder, distances, entropies, fold
from netlens.lenses.featuremaps.attention_figures import head_grids, rollout_grid, sheet_grids, token_grids
from netlens.lenses.featuremaps.attention_shown import Query, Shown, parse_query
from netlens.probing.attention_maps import AttentionMap, attended
from tests.conftest import REPOSITORY

PICTURE = np.zeros((20, 20, 3), np.uint8)


def attention_map(*shape: int, name: str = "attn", seed: int = 0, allowed: int | None = None, sharp: float = 1.0) -> AttentionMap:
    """Weights (N, heads, L, S) of random scores; of `allowed` keys the first ones."""
    scores = sharp * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if allowed is not None:
        scores[..., allowed:] = -math.inf
    counts = torch.full(shape[:3], shape[3] if allowed is None else allowed)
    return AttentionMap(name, scores.softmax(dim=-1), shape[2] == shape[3], counts)


def record(*passes: list[AttentionMap], samples: int = 2, picture: tuple[int, int] | None = (8, 8), **options: Any) -> AttentionRecorder:
    recorder = AttentionRecorder(**options)
    for maps in passes:
        recorder.begin(samples, picture)
        for found in maps:
            recorder.look(found)
    return recorder


# --- Grids


@pytest.mark.parametrize(
    ("tokens", "picture", "expected"),
    [
        (197, (224, 224), ((14, 14), 1)),  # ViT
        (196, (224, 224), ((14, 14), 0)),
        (198, (224, 224), ((14, 14), 2)),  # DeiT, distilled
        (261, (256, 256), ((16, 16), 5)),  # DINOv3: a class token and four registers
        (50, (224, 224), ((7, 7), 1)),
        (65, (64, 64), ((8, 8), 1)),
        (193, (192, 256), ((12, 16), 1)),
        (193, (256, 192), ((16, 12), 1)),
        (15 * 20 + 1, (243, 325), ((15, 20), 1)),  # of 16 x 16 pixels, cropped
        (77, (224, 224), (None, 0)),  # CLIP's text
        (12, (224, 224), (None, 0)),
        (197, None, (None, 0)),
    ],
)
def test_tokens_are_folded_by_the_proportions_of_the_picture(tokens, picture, expected):
    assert fold(tokens, picture) == expected


def test_windows_are_square_in_any_picture():
    assert fold(49, (192, 256), windows=True) == ((7, 7), 0)
    assert fold(50, (224, 224), windows=True) == (None, 0)


# --- Statistics


def entropy(row: Tensor) -> float:
    return -sum(float(weight) * math.log(float(weight)) for weight in row if weight > 0)


def test_entropy_by_plain_loops():
    found = attention_map(2, 3, 5, 7, sharp=3)
    shares = entropies(found.weights, found.allowed)
    for n, h, i in np.ndindex(2, 3, 5):
        assert float(shares[n, h, i]) == pytest.approx(entropy(found.weights[n, h, i]) / math.log(7), rel=1e-5)


def test_entropy_is_1_where_even_and_0_where_one_key_has_all():
    weights = torch.tensor([[[[0.25] * 4, [0.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0] * 4]]])
    shares = entropies(weights, torch.tensor([[[4, 4, 2, 1, 0]]]))
    assert shares[0, 0, :3].tolist() == pytest.approx([1, 0, 1]), "of two keys that may be seen, both: that is all"
    assert shares[0, 0, 3:].isnan().all(), "no choice"


def test_distance_by_plain_loops():
    """Patches of a 3 x 4 grid behind two other tokens."""
    weights = attention_map(2, 3, 14, 14).weights
    found = distances(weights, (3, 4), 2)
    assert found.shape == (2, 3, 12)
    for n, h, i in np.ndindex(2, 3, 12):
        row = weights[n, h, 2 + i, 2:].tolist()
        apart = [math.hypot(i // 4 - j // 4, i % 4 - j % 4) for j in range(12)]
        assert float(found[n, h, i]) == pytest.approx(sum(w * d for w, d in zip(row, apart, strict=True)) / sum(row), rel=1e-5)


def test_distance_along_a_line():
    weights = torch.eye(4).roll(1, dims=1)[None, None]  # each looks at the next one, the last at the first
    assert distances(weights, None, 0).tolist() == [[[1, 1, 1, 3]]]


def test_statistics_over_several_batches_and_pieces(monkeypatch):
    monkeypatch.setattr(attention, "PIECE", 200)
    batches = [attention_map(2, 3, 10, 10, seed=seed, allowed=6 + seed) for seed in range(3)]
    (layer,) = record(*([found] for found in batches), picture=(9, 9)).layers()
    assert (layer.index, layer.name, layer.heads, layer.queries, layer.keys, layer.grid, layer.prefix) == (0, "attn", 3, 10, 10, (3, 3), 1)
    rows = np.concatenate([found.weights.double().numpy() for found in batches])
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = -np.where(rows > 0, rows * np.log(rows), 0).sum(axis=-1) / np.log(np.repeat([6, 7, 8], 2))[:, None, None]
    np.testing.assert_allclose(layer.entropy, shares.mean(axis=(0, 2)), rtol=1e-6)
    places = np.stack(np.divmod(np.arange(9), 3), axis=-1)
    apart = np.hypot(*(places[:, None] - places).transpose(2, 0, 1))
    patches = rows[:, :, 1:, 1:]
    looked = (patches * apart).sum(axis=-1) / patches.sum(axis=-1)
    np.testing.assert_allclose(layer.distance, looked.mean(axis=(0, 2)), rtol=1e-6)


def test_rows_without_a_choice_do_not_count():
    found = attention_map(1, 1, 3, 3)
    weights, allowed = found.weights.clone(), torch.tensor([[[1, 0, 3]]])
    weights[0, 0, 0], weights[0, 0, 1] = torch.tensor([1.0, 0, 0]), torch.zeros(3)
    (layer,) = record([AttentionMap("attn", weights, True, allowed)], samples=1, picture=None).layers()
    assert layer.entropy == pytest.approx([entropy(weights[0, 0, 2]) / math.log(3)])
    (layer,) = record([AttentionMap("attn", weights[:, :, :2], False, allowed[:, :, :2])], samples=1, picture=None).layers()
    assert math.isnan(layer.entropy[0])


def test_attention_to_other_tokens_has_no_distance():
    (layer,) = record([attention_map(2, 3, 4, 9)]).layers()
    assert layer.distance is None
    assert layer.grid == (3, 3)


# --- What is kept


def shown(*maps: AttentionMap, **options: Any) -> tuple[Shown, ...]:
    return record(list(maps), keep=9, **options).shown()


def rows_of(found: AttentionMap, row: int | None) -> np.ndarray:
    return found.weights.numpy().mean(axis=2) if row is None else found.weights[:, :, row].numpy()


@pytest.mark.parametrize(
    ("tokens", "keys", "query", "row", "words"),
    [
        (65, 65, None, 0, "the class token"),
        (66, 66, None, 0, "token 0, the first of 2 before the patches"),
        (64, 64, None, None, "mean over all queries"),
        (1, 65, None, 0, "its only query"),
        (65, 65, "2,3", 1 + 2 * 8 + 3, "patch 2,3"),
        (65, 65, "7", 7, "token 7"),
    ],
)
def test_whose_attention_is_kept(tokens, keys, query, row, words):
    found = attention_map(2, 3, tokens, keys)
    (kept,) = shown(found, query=query and parse_query(query))
    np.testing.assert_allclose(kept.rows, rows_of(found, row), rtol=1e-6)
    assert kept.query == words
    assert kept.whole is None


def test_a_patch_in_a_coarser_grid_is_the_one_over_it():
    fine, coarse = attention_map(1, 1, 64, 64, name="fine"), attention_map(1, 1, 16, 16, name="coarse")
    kept = shown(fine, coarse, samples=1, query=Query(place=(5, 7)))
    assert [each.query for each in kept] == ["patch 5,7", "patch 2,3"]
    np.testing.assert_array_equal(kept[1].rows, rows_of(coarse, 2 * 4 + 3))


def test_windows_are_averaged():
    """2 samples of 4 windows of 3 x 3 tokens: the centre of each; or the token of that place in each window."""
    found = attention_map(8, 3, 9, 9)
    windows = found.weights.unflatten(0, (2, 4)).numpy()
    (kept,) = shown(found)
    np.testing.assert_allclose(kept.rows, windows[:, :, :, 4].mean(axis=1), rtol=1e-6)
    assert kept.query == "token 1,1 of each window, mean over 4 windows"
    (kept,) = shown(found, query=Query(place=(5, 0)))
    np.testing.assert_allclose(kept.rows, windows[:, :, :, 6].mean(axis=1), rtol=1e-6)


@pytest.mark.parametrize(
    ("query", "picture", "message"),
    [
        ("8,0", (8, 8), "outside the 8 × 8 patches"),
        ("0,8", (8, 8), "outside the 8 × 8 patches"),
        ("65", (8, 8), "no such token"),
        ("1,1", None, "about patches"),
    ],
)
def test_a_query_that_is_not_there(query, picture, message):
    with pytest.raises(UsageError, match=message):
        record([attention_map(1, 1, 65, 65)], samples=1, keep=1, picture=picture, query=parse_query(query))


def test_queries_are_read():
    assert parse_query("3, 4") == Query(place=(3, 4))
    assert parse_query("0") == Query(index=0)
    for text in ("", "a", "1,2,3", "-1", "1.5"):
        with pytest.raises(UsageError, match="neither a patch nor a token"):
            parse_query(text)


def test_only_the_first_samples_are_kept():
    batches = [attention_map(2, 3, 65, 65, seed=seed) for seed in range(3)]
    kept = record(*([found] for found in batches), keep=3)
    truth = np.concatenate([rows_of(batches[0], 0), rows_of(batches[1], 0)[:1]])
    np.testing.assert_array_equal(kept.shown()[0].rows, truth)
    assert kept.rollout().shape == (3, 65, 65)
    assert not record(*([found] for found in batches)).shown()
    assert record(*([found] for found in batches)).rollout() is None


def test_of_a_text_maps_are_kept_whole():
    found = attention_map(2, 3, 6, 6)
    (kept,) = shown(found, picture=None)
    np.testing.assert_array_equal(kept.whole, found.weights.numpy())
    long = attention_map(1, 1, 200, 130)
    (kept,) = shown(long, samples=1, picture=None)
    np.testing.assert_array_equal(kept.whole, long.weights[:, :, :128, :128].numpy())


def test_rollout_follows_the_layers():
    one, two = attention_map(2, 3, 5, 5, name="0"), attention_map(2, 3, 5, 5, name="1", seed=1)
    found = record([one, two], keep=2).rollout()
    mixed = [(each.weights.double().mean(dim=1) + torch.eye(5)) / 2 for each in (one, two)]
    np.testing.assert_allclose(found, mixed[1] @ mixed[0], rtol=1e-5)


@pytest.mark.parametrize("other", [(2, 3, 4, 4), (2, 3, 5, 4), (4, 3, 5, 5)], ids=["other tokens", "across", "windows"])
def test_no_rollout_where_tokens_are_not_the_same(other):
    assert record([attention_map(2, 3, 5, 5, name="0"), attention_map(*other, name="1")], keep=2).rollout() is None


def test_the_trained_vision_transformer():
    """Through the model: every row kept is the class token's, and the rollout is the product of what was seen."""
    sys.path.insert(0, str(REPOSITORY / "sample_models"))
    try:
        from shapes import ShapeViT
    finally:
        sys.path.pop(0)
    torch.manual_seed(0)
    model, images = ShapeViT().eval(), torch.randn(2, 3, 64, 64)
    maps: list[AttentionMap] = []
    recorder = AttentionRecorder(keep=2)
    recorder.begin(2, (64, 64))
    with torch.no_grad(), attended(model, lambda found: (maps.append(found), recorder.look(found))[1]):
        model(images)
    assert [layer.name for layer in recorder.layers()] == [f"blocks.{index}.attn" for index in range(len(model.blocks))]
    for kept, found in zip(recorder.shown(), maps, strict=True):
        assert (kept.layer.grid, kept.layer.prefix, kept.query) == ((8, 8), 1, "the class token")
        np.testing.assert_array_equal(kept.rows, found.weights[:, :, 0].numpy())
    rolled = torch.eye(65, dtype=torch.float64)
    for found in maps:
        rolled = (found.weights.double().mean(dim=1) + torch.eye(65)) / 2 @ rolled
    np.testing.assert_allclose(recorder.rollout(), rolled, rtol=1e-4)


# --- Pictures


def only(grids: list[Grid]) -> Grid:
    assert len(grids) == 1
    return grids[0]


def test_heads_over_the_patches():
    found = attention_map(2, 3, 13, 13)
    (kept,) = shown(found, picture=(6, 8))
    grid = only(head_grids(kept, 1, PICTURE))
    assert grid.tiles.values.shape == (4, 3, 4)
    for y, x in np.ndindex(3, 4):
        key = 1 + 4 * y + x
        weights = [float(found.weights[1, h, 0, key]) for h in range(3)]
        assert grid.tiles.values[0, y, x] == pytest.approx(sum(weights) / 3, rel=1e-6)
        assert grid.tiles.values[1:, y, x].tolist() == weights
    largest = [float(tile.max()) for tile in grid.tiles.values]
    assert grid.tiles.labels == tuple(f"{name} · max {value:.3g}" for name, value in zip(("mean", "0", "1", "2"), largest, strict=True))
    assert grid.title == "attn · attention · 3 heads · 13 × 13"
    assert "where the class token looks" in grid.subtitle
    shares = [float(found.weights[1, h, 0, 0]) for h in range(3)]
    assert f"{100 * min(shares):.1f} % to {100 * max(shares):.1f} %" in grid.footnote
    assert (grid.scale.signed, grid.scale.limit) == (False, None)
    assert only(head_grids(kept, 1, scale="common")).scale.limit == max(largest)
    assert only(head_grids(kept, 1, PICTURE, name="cat.png")).title.endswith(" · 13 × 13 · cat.png")
    assert pages(grid)[0].mode == "RGB", "with the picture"


def test_layers_and_heads_on_one_sheet():
    maps = [attention_map(2, 3, 65, 65, name=f"blocks.{index}.attn", seed=index) for index in range(2)]
    other = attention_map(2, 2, 65, 65, name="head.attn")
    grids = sheet_grids("Net", shown(*maps, other), 0)
    assert [grid.tiles.columns for grid in grids] == [4, 3]
    grid = grids[0]
    assert grid.tiles.row_labels == ("0", "1")
    assert "blocks.*.attn" in grid.subtitle
    assert grid.tiles.column_labels == ("mean", "0", "1", "2")
    for layer, head, y, x in np.ndindex(2, 3, 8, 8):
        assert grid.tiles.values[4 * layer + 1 + head, y, x] == float(maps[layer].weights[0, head, 0, 1 + 8 * y + x])
    assert grids[1].tiles.row_labels == ("head.attn",)
    beside = sheet_grids("Net", shown(*maps, other), 0, PICTURE)
    assert all(len(grid.tiles.beside) == 1 and grid.tiles.beside[0] is PICTURE for grid in beside)


def test_the_rollout_of_several_pictures():
    found = attention_map(2, 3, 65, 65)
    recorder = record([found], keep=2)
    grid = rollout_grid("Net", recorder.rollout(), recorder.layers()[0], 0, [PICTURE, PICTURE])
    mixed = (found.weights.double().mean(dim=1) + torch.eye(65)) / 2
    for n, y, x in np.ndindex(2, 8, 8):
        assert grid.tiles.values[n, y, x] == pytest.approx(float(mixed[n, 0, 1 + 8 * y + x]), rel=1e-5)
    assert grid.tiles.columns == len(grid.tiles.pictures) == 2
    assert "of which tokens the class token is made" in grid.subtitle
    average = rollout_grid("Net", recorder.rollout(), recorder.layers()[0], None)
    np.testing.assert_allclose(average.tiles.values[0].ravel(), mixed[0].mean(dim=0)[1:], rtol=1e-5)


WORDS = ("[CLS]", "a", "b", "[b]red[/b]", "d", "e")


def test_token_maps_have_queries_downwards_and_words_at_both_sides():
    found = attention_map(2, 3, 4, 6)
    (kept,) = shown(found, picture=None)
    every, mean, head = token_grids(kept, 1, WORDS, heads=[2])
    assert every.tiles.labels == ("mean", "0", "1", "2")
    for h, i, j in np.ndindex(3, 4, 6):
        assert every.tiles.values[1 + h, i, j] == float(found.weights[1, h, i, j])
    assert "0 [CLS], 1 a, 2 b, 3 [b]red[/b], 4 d, 5 e" in every.footnote
    assert (head.tiles.columns, head.tiles.row_labels, head.tiles.column_labels) == (6, WORDS[:4], WORDS)
    np.testing.assert_array_equal(head.tiles.values.reshape(4, 6), found.weights[1, 2].numpy())
    np.testing.assert_allclose(mean.tiles.values.reshape(4, 6), found.weights[1].mean(dim=0).numpy(), rtol=1e-6)
    assert head.title.endswith("head 2")
    assert mean.title.endswith("mean of heads")
    without = token_grids(kept, 1)
    assert without[1].tiles.column_labels == ("0", "1", "2", "3", "4", "5")
    assert not without[0].footnote


def test_long_texts_have_no_labels_and_say_what_is_shown():
    (kept,) = shown(attention_map(1, 1, 200, 200), samples=1, picture=None)
    grid = only(token_grids(kept, 0, ["x"] * 200))
    assert "the first 128 × 128 tokens" in grid.subtitle
    assert not token_grids(shown(attention_map(1, 1, 64, 64), samples=1)[0], 0), "of pictures, rows are shown"


@pytest.mark.parametrize(
    "draw",
    [
        lambda kept: head_grids(kept, 0),
        lambda kept: sheet_grids("Net", [kept], 0),
        lambda kept: token_grids(kept, 0, WORDS),
    ],
    ids=["heads", "sheet", "tokens"],
)
@pytest.mark.parametrize("value", [0.0, math.nan])
def test_what_is_not_a_number_is_drawn_too(draw: Callable[[Shown], list[Grid]], value: float):
    found = AttentionMap("attn", torch.full((1, 1, 4, 4), value), True, torch.zeros(1, 1, 4, dtype=torch.int64))
    for grid in draw(*shown(found, samples=1, picture=None)):
        assert pages(grid)


def test_every_picture_of_attention_is_reserved_before_one_is_written():
    """Also of what runs in the model's own forward, which has no name."""
    saved: list[str] = []

    class Desk:
        def reserve(self, names: Iterable[str]) -> None:
            raise AssertionError("that is done before anything is drawn")

        def save(self, name: str, image: Image.Image, *, page: int = 1, prefer: bool = False, **facts: str) -> str:
            saved.extend([name] if page == 1 else [])
            return name

    kept = shown(attention_map(2, 3, 65, 65, name="blocks.0.attn"), attention_map(2, 3, 65, 65, name=""))
    rolled = np.full((2, 65, 65), 1 / 65, np.float32)
    for matrix in (rolled, None):
        saved.clear()
        list(album.draw_attention(kept, matrix, album.Shown((PICTURE, PICTURE), ("a", "b")), title="Net", scale="each", folder=Desk()))
        assert saved == album.attention_names(kept, matrix)
        assert saved == ["attention-blocks.0.attn", "attention-model", "attention", *(["rollout"] if matrix is not None else [])]
    assert album.attention_names((), None) == []
