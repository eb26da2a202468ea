"""Pictures of feature maps: every number of a tile is checked against the map that it shows, by plain loops over indices."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from netlens.drawing.canvas import Canvas
from netlens.drawing.grids import Grid, pages
from netlens.drawing.plots import PITCH, Axis, Column
from netlens.errors import UsageError
from netlens.lenses.featuremaps import figures, overviews
from netlens.lenses.featuremaps.choices import parse_channels
from netlens.lenses.featuremaps.figures import Options, depth_profile, histogram_page, map_grids, mean_map, sheet, stages
from netlens.lenses.featuremaps.means import mean_grid
from netlens.lenses.featuremaps.report import LayerActivity
from netlens.parts import Histogram

RED, BLUE = (190, 30, 30), (45, 93, 142)  # of a plot: marked layers, and all others


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def layer(shape: tuple[int, ...] = (8, 4, 4), name: str = "layer1.0.relu", type: str = "ReLU", **facts: object) -> LayerActivity:
    """Return a report of which only what pictures need is true."""
    nothing = dict.fromkeys(LayerActivity.__dataclass_fields__)
    usual = {"index": 0, "layout": "channels first", "grid": shape[1:], "prefix": 0, "channels": shape[0]}
    return LayerActivity(**{**nothing, **usual, "name": name, "type": type, "shape": shape, **facts})  # type: ignore[arg-type]


def draw(maps: np.ndarray, options: Options | None = None, inputs: list[np.ndarray] | None = None, **facts: object) -> Grid:
    shown = {"shape": maps.shape[1:], **facts}
    names = shown.pop("names", ())
    grids = map_grids(layer(**shown), maps, inputs, options or Options(), names=names)  # type: ignore[arg-type]
    assert len(grids) == 1
    return grids[0]


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


# --- Which number stands where


def test_one_sample_is_one_tile_a_channel():
    maps = random(1, 5, 4, 6)
    grid = draw(maps)
    assert grid.tiles.values.shape == (5, 4, 6) and grid.tiles.columns is None
    for c, y, x in np.ndindex(5, 4, 6):
        assert grid.tiles.values[c, y, x] == maps[0, c, y, x]
    assert grid.tiles.labels == ("0", "1", "2", "3", "4")
    assert (grid.title, grid.subtitle) == ("layer1.0.relu · ReLU · 5 × 4 × 6", "5 channels")


def test_several_samples_are_columns_and_channels_are_rows():
    maps = random(3, 5, 4, 6)
    inputs = [photo(8, 12, seed) for seed in range(3)]
    tiles = draw(maps, inputs=inputs, names=("a.png", "b.png", "c.png")).tiles
    for c, n, y, x in np.ndindex(5, 3, 4, 6):
        assert tiles.values[c * 3 + n, y, x] == maps[n, c, y, x]
    assert (tiles.columns, tiles.row_labels, tiles.column_labels) == (3, ("0", "1", "2", "3", "4"), ("a.png", "b.png", "c.png"))
    assert all(one is two for one, two in zip(tiles.pictures, inputs, strict=True))


def test_samples_without_a_name_have_their_number_and_names_too_many_are_left_out():
    assert draw(random(3, 2, 4, 4), names=("a",)).tiles.column_labels == ("a", "1", "2")
    assert draw(random(2, 2, 4, 4), names=("a", "b", "c")).tiles.column_labels == ("a", "b")


def test_in_time_each_channel_is_a_strip():
    maps = random(2, 5, 9)
    tiles = draw(maps).tiles
    assert tiles.values.shape == (10, 1, 9)
    for c, n, t in np.ndindex(5, 2, 9):
        assert tiles.values[c * 2 + n, 0, t] == maps[n, c, t]
    assert draw(maps[:1]).tiles.columns == 1 and draw(maps[:1]).tiles.row_labels == tuple("01234")


def test_slices_of_a_film_stand_side_by_side():
    maps = random(2, 3, 16, 4, 5)
    grid = draw(maps)
    kept = [0, 2, 4, 6, 9, 11, 13, 15]  # k * 15 / 7, rounded
    assert grid.tiles.columns == 16
    for c, n, s in np.ndindex(3, 2, 8):
        assert (grid.tiles.values[c * 16 + n * 8 + s] == maps[n, c, kept[s]]).all()
    assert grid.tiles.column_labels[9] == "1 · slice 2"
    assert "8 of 16 slices (columns)" in grid.subtitle


def test_features_stand_in_numbered_lines():
    maps = random(1, 1000, 1, 1)
    grid = draw(maps, type="AdaptiveAvgPool2d")
    assert grid.tiles.values.shape == (8, 1, 125)
    for feature in range(1000):
        assert grid.tiles.values[feature // 125, 0, feature % 125] == maps[0, feature, 0, 0]
    assert grid.tiles.row_labels[:2] == ("0–124", "125–249")
    assert grid.subtitle == "1,000 features · in lines of 125, which are numbered at their left"


def test_a_line_of_features_of_one_sample_stands_above_the_same_of_the_next():
    maps = random(3, 256)
    tiles = draw(maps, names=("a", "b", "c")).tiles
    for n, feature in np.ndindex(3, 256):
        assert tiles.values[feature // 128 * 3 + n, 0, feature % 128] == maps[n, feature]
    assert tiles.row_labels == ("0–127 · a", "0–127 · b", "0–127 · c", "128–255 · a", "128–255 · b", "128–255 · c")
    assert draw(maps[:, :10], names=("a", "b", "c")).tiles.row_labels == ("a", "b", "c")


def test_a_prime_number_of_features_is_filled_up_with_zeros():
    maps = random(1, 257)
    tiles = draw(maps).tiles
    flat = tiles.values.reshape(-1)
    assert (flat[:257] == maps[0]).all() and (flat[257:] == 0).all() and len(flat) < 257 + 128
    assert tiles.row_labels[-1].endswith("–256")


def test_prefix_tokens_are_a_grid_of_their_own():
    maps, tokens = random(2, 6, 3, 3), random(2, 2, 6, seed=1)
    facts = layer((11, 6), "ln", "LayerNorm", layout="tokens", grid=(3, 3), prefix=2, channels=6)
    folded, apart = map_grids(facts, maps, None, Options(), prefix=tokens, names=("a", "b"))
    assert "tokens folded to 3 × 3, 2 prefix tokens apart" in folded.subtitle
    for n, token, feature in np.ndindex(2, 2, 6):
        assert apart.tiles.values[n * 2 + token, 0, feature] == tokens[n, token, feature]
    assert apart.tiles.row_labels == tuple(f"0–5 · token {token} · {name}" for name in "ab" for token in range(2))


def test_maps_too_large_for_a_page_are_means():
    maps = random(1, 64, 410, 300)
    grid = draw(maps)
    assert grid.tiles.values.shape == (64, 205, 150) and "every pixel is the mean of 2 × 2" in grid.footnote
    for c, y, x in ((0, 0, 0), (3, 7, 11), (63, 204, 149)):
        block = [float(maps[0, c, 2 * y + i, 2 * x + j]) for i in range(2) for j in range(2)]
        assert grid.tiles.values[c, y, x] == pytest.approx(sum(block) / 4, rel=1e-6)
    assert draw(random(1, 5, 5000)).tiles.values.shape == (5, 1, 1000)


def test_nothing_is_no_grid():
    assert map_grids(layer(), random(0, 5, 4, 4), None, Options()) == []
    assert map_grids(layer(), random(1, 5, 4, 4), None, Options(channels=(range(7, 9),))) == []


# --- Which channels


def test_the_first_64_channels_are_shown_unless_told_otherwise():
    grid = draw(random(1, 100, 3, 3))
    assert (grid.tiles.labels, grid.subtitle) == (tuple(map(str, range(64))), "the first 64 of 100 channels")


@pytest.mark.parametrize("key", ["variance", "mean"])
def test_sorted_the_largest_come_first(key):
    maps = random(2, 9, 4, 4) * np.linspace(1, 3, 9, dtype=np.float32)[:, None, None] + random(9, 1, 1, seed=2)

    def strength(channel: int) -> float:
        values = [float(value) for value in maps[:, channel].flat]
        mean = sum(values) / len(values)
        return mean if key == "mean" else sum((value - mean) ** 2 for value in values) / len(values)

    expected = sorted(range(9), key=lambda channel: -strength(channel))[:4]
    grid = draw(maps, Options(channels=4, sort=key))
    assert grid.tiles.row_labels == tuple(map(str, expected))
    assert all((grid.tiles.values[2 * row + n] == maps[n, c]).all() for row, c in enumerate(expected) for n in range(2))
    assert grid.subtitle.startswith(f"4 of 9 channels by {key}")


def test_a_channel_that_is_not_finite_is_sorted_to_the_front():
    maps = random(1, 6, 3, 3)
    maps[0, 4, 1, 1] = np.nan
    grid = draw(maps, Options(sort="variance", channels=2))
    assert grid.tiles.labels[0] == "4" and "NaN or Inf in 4" in grid.footnote


def test_chosen_channels_keep_their_order_and_those_that_are_not_there_are_left_out():
    maps = random(1, 10, 3, 3)
    grid = draw(maps, Options(channels=parse_channels("7,2,8:40,7")))
    assert grid.tiles.labels == ("7", "2", "8", "9")
    assert all((tile == maps[0, int(label)]).all() for tile, label in zip(grid.tiles.values, grid.tiles.labels, strict=True))
    assert grid.subtitle == "4 of 10 channels"
    features = draw(maps[..., 0, 0], Options(channels=parse_channels("7,2")))
    assert features.tiles.row_labels == ("7, 2",) and features.subtitle == "2 of 10 features"


@pytest.mark.parametrize(
    ("text", "channels"),
    [
        ("16", 16),
        ("3,8", (range(3, 4), range(8, 9))),
        ("0:16", (range(16),)),
        ("3,", (range(3, 4),)),
        ("40:", (range(40, sys.maxsize),)),
        (" 1, :3 ", (range(1, 2), range(3))),
        ("all", (range(sys.maxsize),)),
    ],
)
def test_what_channels_may_say(text, channels):
    assert parse_channels(text) == channels


@pytest.mark.parametrize("text", ["", "0", "x", "3-5", "5:5", "-1", "1,,2", "1.5", ","])
def test_what_channels_may_not_say(text):
    with pytest.raises(UsageError, match="names no channels") as caught:
        parse_channels(text)
    assert caught.value.hint


# --- Scales


def test_a_layer_that_never_goes_below_0_has_a_scale_from_0():
    maps = abs(random(1, 4, 5, 5))
    scale = draw(maps).scale
    assert not scale.signed and scale.limit == maps.max()
    assert draw(maps, least=0.0).scale.signed is False
    assert draw(maps, least=-0.3).scale.signed is True, "elsewhere it goes below 0: pictures of one layer are read alike"
    assert draw(-maps).scale.signed is True and draw(-maps).scale.limit == maps.max()


def test_each_channel_may_have_its_own_scale():
    assert draw(random(1, 4, 5, 5), Options(scale="each")).scale.limit is None


def test_one_number_far_out_does_not_bleach_the_rest():
    maps = random(1, 4, 30, 30)
    maps[0, 2, 3, 4] = 1000
    grid = draw(maps)
    ordered = sorted(abs(float(value)) for value in maps.flat)
    assert grid.scale.limit == ordered[int(np.ceil(0.999 * (len(ordered) - 1)))] < 5
    assert "up to 1e+03" in grid.footnote


def test_a_layer_of_zeros_is_drawn_and_named():
    maps = np.zeros((1, 20, 4, 4), np.float32)
    maps[0, 3] = 1
    grid = draw(maps)
    assert "0 everywhere: 0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 7 more (19 of 20 channels)" in grid.footnote
    assert pages(draw(maps * 0))[0].width > 100


# --- Pictures on pages


def test_the_input_stands_beside_the_tiles_as_it_is():
    picture = photo(16, 20)
    page = np.asarray(pages(draw(abs(random(1, 12, 8, 10)), inputs=[picture]))[0])
    enlarged = picture.repeat(8, axis=0).repeat(8, axis=1)  # 160 pixels wide
    found = [
        (y, x)
        for y, x in np.argwhere((page[:, :40] == picture[0, 0]).all(axis=-1))
        if page[y : y + 128, x : x + 160].shape == enlarged.shape and (page[y : y + 128, x : x + 160] == enlarged).all()
    ]
    assert len(found) == 1


def test_every_block_of_columns_has_the_pictures_above_it():
    pictures = [np.full((9, 9, 3), colour, np.uint8) for colour in ((255, 0, 0), (1, 200, 3))]
    image = pages(draw(abs(random(2, 64, 30, 30)), inputs=pictures))[0]
    page = np.asarray(image)
    counts = [(page == picture[0, 0]).all(axis=-1).sum() for picture in pictures]
    assert counts[0] == counts[1] and counts[0] % (64 * 64) == 0 and counts[0] >= 2 * 64 * 64


def test_columns_narrower_than_their_pictures_get_room():
    image = pages(draw(abs(random(2, 3, 1, 2)), inputs=[photo(50, 50), photo(30, 90)]))[0]
    assert image.mode == "RGB"


@pytest.mark.parametrize(
    "shape", [(1, 2048, 1, 1), (4, 2048), (1, 70, 3998), (2, 3, 5, 7, 9), (1, 512, 7, 7), (1, 1, 1, 900), (1, 3, 900, 1), (1, 1, 1, 1)]
)
def test_every_shape_is_drawn_within_a_page(shape):
    for image in pages(draw(random(*shape), Options(channels=parse_channels("all")))):
        assert image.width <= 1600 and image.height <= 2000


# --- Mean maps


@dataclass
class Place:
    box: tuple[float, float, float, float]


@pytest.mark.parametrize("signed", [False, True])
def test_the_mean_over_channels_is_laid_on_the_photo(monkeypatch, signed):
    maps = random(6, 3, 5) if signed else abs(random(6, 3, 5))
    caught = {}
    monkeypatch.setattr(figures, "overlay_page", lambda picture, values, box, **words: caught.update(words, values=values, box=box))
    mean_map(layer((6, 3, 5)), maps, photo(20, 30), Place((1.5, 2, 21, 22)))  # type: ignore[arg-type]
    for y, x in np.ndindex(3, 5):
        assert caught["values"][y, x] == pytest.approx(sum(float(maps[c, y, x]) for c in range(6)) / 6, rel=1e-12)
    assert caught["box"] == (1.5, 2, 21, 22) and caught["colours"] == ("diverging" if signed else "viridis")
    monkeypatch.undo()
    assert mean_map(layer((6, 3, 5)), maps, Image.fromarray(photo(20, 30)), Place((1.5, 2, 21, 22))).width > 700  # type: ignore[arg-type]


def test_a_mean_that_is_0_by_construction_is_not_blown_up(monkeypatch):
    """LayerNorm takes the mean over channels away: what is left is rounding."""
    maps = random(768, 4, 4)
    maps -= maps.mean(axis=0)
    assert 0 < abs(maps.astype(np.float64).mean(axis=0)).max() < 1e-6
    caught = {}
    monkeypatch.setattr(figures, "overlay_page", lambda picture, values, box, **words: caught.update(words))
    mean_map(layer((768, 4, 4)), maps, photo(20, 30), Place((0, 0, 30, 20)))  # type: ignore[arg-type]
    assert caught["limit"] == pytest.approx(np.sqrt((maps.astype(np.float64) ** 2).mean())) and "0 everywhere" in caught["footnote"]
    maps[:, 1, 2] += 0.01
    mean_map(layer((768, 4, 4)), maps, photo(20, 30), Place((0, 0, 30, 20)))  # type: ignore[arg-type]
    assert caught["limit"] is None and caught["footnote"] == ""


# --- The whole network


def test_the_sheet_shows_the_strongest_channels_of_the_first_sample(monkeypatch):
    deep, strip, vector = random(2, 9, 4, 4), random(2, 60, 30), random(2, 256)
    drawn: list[Grid] = []
    monkeypatch.setattr(overviews, "contact_sheet", lambda heading, sections, subtitle: drawn.extend(sections))
    picture = photo(8, 6)
    entries = [(layer((9, 4, 4), "conv"), deep), (layer((60, 30), "time"), strip), (layer((256,), ""), vector), (layer(), random(0, 3))]
    sheet("net", entries, [picture, picture])
    assert [grid.title for grid in drawn] == ["input · 3 × 8 × 6", "conv · 9 × 4 × 4", "time · 60 × 30", "ReLU · 256"]

    def power(values: np.ndarray) -> float:
        return sum(float(value) ** 2 for value in values.flat)

    for place, c in enumerate(sorted(range(9), key=lambda c: -power(deep[0, c]))):
        assert (drawn[1].tiles.values[place] == deep[0, c]).all()
    rows = sorted(range(60), key=lambda c: -power(strip[0, c]))[:30]
    assert (drawn[2].tiles.values == strip[0, rows][None]).all()
    assert (drawn[3].tiles.values.reshape(-1) == vector[0]).all()
    monkeypatch.undo()
    page = np.asarray(sheet("net", entries, [np.full((8, 8, 3), (200, 9, 9), np.uint8)]))
    assert (abs(page.astype(int) - (200, 9, 9)) <= 1).all(axis=-1).sum() > 1000, "a photo is as bright as it is"


def test_the_stages_of_a_deep_network_end_where_the_grid_changes():
    grids = [(32, 32)] * 40 + [(16, 16)] * 40 + [(1, 1), (1, 1)] + [(16, 16)] * 20 + [(1, 1), ()]
    layers = [layer((4, *grid), str(n), grid=grid, index=n, activation="relu" if n % 3 == 2 else None) for n, grid in enumerate(grids)]
    found = [int(each.name) for each in stages(layers, most=20)]
    assert len(found) == 20 and found == sorted(found)
    assert {0, 39, 101, 102, 103} <= set(found), "the first, the last of each grid, and what comes after the last map"
    assert not {80, 81} & set(found), "a gate"
    assert all(n % 3 == 2 for n in set(found) - {0, 39, 101, 102, 103})
    assert stages(layers[:20], most=20) == layers[:20]
    assert len(stages([layer((5,), str(n), grid=()) for n in range(90)], most=20)) == 20


def test_the_weights_of_attention_are_no_places():
    """A softmax inside the network is left out, as a function and as a module; one at its end is what the network says."""
    layers = [
        layer((4, 9, 9), name, type)
        for name, type in (("a", "Conv2d"), ("b:softmax", "softmax"), ("c", "Softmax"), ("d", "Linear"), (":softmax", "softmax"))
    ]
    assert [each.name for each in figures.of_places(layers)] == ["a", "d", ":softmax"]
    assert figures.of_places([]) == []


def test_mean_maps_show_how_far_each_place_is_above_the_least():
    """Of |activation|, sample by sample; the ratio stands beside the name, and a map that is the same everywhere is 0."""
    maps, flat = random(2, 3, 4, 5), np.full((2, 3, 4, 5), -2.0, np.float32)
    grid = mean_grid(
        "net", [(layer((3, 4, 5), "conv"), maps), (layer((3, 4, 5), "flat"), flat), (layer((7,), "fc"), random(2, 7))], 1, None
    )
    assert grid is not None
    means = [[sum(abs(float(maps[1, c, y, x])) for c in range(3)) / 3 for x in range(5)] for y in range(4)]
    least, most = min(map(min, means)), max(map(max, means))
    np.testing.assert_allclose(grid.tiles.values[0], np.array(means) - least, rtol=1e-12, atol=1e-12)
    assert (grid.tiles.values[1] == 0).all() and len(grid.tiles.values) == 2
    assert grid.tiles.labels == (f"conv ×{most / least:.3g}", "flat ×1")
    assert mean_grid("net", [(layer((7,), "fc"), random(2, 7))], 0, None) is None


def test_the_page_of_histograms_says_what_a_finding_says(monkeypatch):
    found = Histogram(-1.0, 2.0, (1, 5, 2))
    one = layer(name="a", histogram=found, mean=0.1234, std=0.5, zeros=0.0)
    two = layer(name="b", mean=0.1, std=0.26, zeros=0.5)
    panels = []
    monkeypatch.setattr(overviews, "histograms", lambda title, shown, subtitle: panels.extend(shown))
    histogram_page("net", [one, two], {"b": "dead"})
    assert [(panel.label, panel.note, panel.alarm) for panel in panels] == [
        ("a", "mean 0.12 · std 0.5", False),
        ("b", "dead · std 0.26 · 50.0 % zeros", True),
    ]
    assert (panels[0].low, panels[0].high, panels[0].counts, sum(panels[1].counts)) == (-1.0, 2.0, (1, 5, 2), 0)


# --- The profile in depth


def test_scales_have_round_ends():
    assert Axis.of(Column("a", [0.02, None, 3.0], log=True)).ticks == ((0.01, "0.01"), (0.1, "0.1"), (1.0, "1"), (10.0, "10"))
    assert len(Axis.of(Column("a", [1e-30, 1e30], log=True)).ticks) <= 6
    assert Axis.of(Column("a", [1e-320, 1.7e308], log=True)).high == 308
    log, share = Axis.of(Column("a", [0.1, 10.0], log=True)), Axis.of(Column("a", [0.3]))
    assert log.place(1.0) == pytest.approx((log.place(0.1) + log.place(10)) / 2)
    assert log.place(0.0) < log.place(0.1), "0 has a place of its own"
    assert share.place(0.5) == pytest.approx((share.place(0) + share.place(1)) / 2)
    assert Axis.of(Column("a", [None, float("nan")], log=True)).low < Axis.of(Column("a", [], log=True)).high


def test_a_dot_stands_where_its_number_is():
    """Sample layers: stds of 1, 0.1 and 0.01 from the top, of which the middle one is marked."""
    layers = [layer(name=f"l{n}", std=std, channels=4) for n, std in enumerate((1.0, 0.1, 0.01))]
    page = np.asarray(depth_profile("net", layers, {"l1": "dead"}))
    red = np.argwhere((page == RED).all(axis=-1))
    blue = np.argwhere((page == BLUE).all(axis=-1))
    assert red[:, 0].min() + PITCH[1] / 2 < blue[:, 0].max() and red[:, 0].max() > blue[:, 0].min()
    middle = red.mean(axis=0)
    top, bottom = blue[blue[:, 0] < middle[0] - 20], blue[blue[:, 0] > middle[0] + 20]
    np.testing.assert_allclose((top.mean(axis=0) + bottom.mean(axis=0)) / 2, middle, atol=1.5)
    assert top[:, 1].mean() > middle[1] > bottom[:, 1].mean(), "large is right"
    np.testing.assert_allclose(bottom.mean(axis=0)[0] - top.mean(axis=0)[0], 2 * PITCH[1], atol=4)


@pytest.mark.parametrize("count", [1, 10, 60, 200, 900])
def test_names_of_layers_never_collide_and_marked_ones_are_always_there(monkeypatch, count):
    written: list[tuple[int, int, str]] = []
    write = Canvas.write

    def note(canvas, x, y, line, face, *strength):
        written.append((x, y, line))
        write(canvas, x, y, line, face, *strength)

    monkeypatch.setattr(Canvas, "write", note)
    layers = [layer(name=f"layer{n}.conv", std=1.0 + n, zeros=0.1, dead=1, effective_rank=2.0) for n in range(count)]
    image = depth_profile("net", layers, {f"layer{count // 2}.conv": "vanishing"})
    names = [(y, line) for _, y, line in written if "layer" in line]
    assert f"! layer{count // 2}.conv" in [line for _, line in names] and "vanishing" in [line for _, _, line in written]
    tops = sorted(y for y, _ in names)
    assert all(below - above >= 13 for above, below in pairwise(tops))
    assert len(names) >= min(count, 60) and image.height <= 2000 and image.width <= 1600


def test_a_profile_of_nothing_is_a_page():
    assert depth_profile("net", []).width > 100
    assert depth_profile("net", [layer(std=None, channels=0), layer(std=float("nan")), layer(std=0.0)]).width > 100
