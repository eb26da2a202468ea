"""Pictures of gradients: what stands where is found again in their pixels, and checked against numbers that were put in by hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from math import inf, log10, nan
from typing import Any

import numpy as np
import pytest
from PIL import Image

from netlens.drawing.axes import Axis
from netlens.drawing.canvas import Canvas
from netlens.drawing.curves import Curve, curve_plot
from netlens.drawing.heatmaps import step_map
from netlens.lenses.gradflow.album import draw
from netlens.lenses.gradflow.figures import (
    aligned,
    gradient_plot,
    histogram_page,
    rank_bars,
    ratio_plot,
    steps_map,
)
from netlens.lenses.gradflow.report import GradflowReport, LayerFlow, Overfit, ParameterFlow, Rank, RateRange, Run, Step
from netlens.lenses.gradflow.trial_figures import overfit_curve, rate_curve
from netlens.parts import Histogram

BLUE, RED, GREEN, GREY, BAR = (45, 93, 142), (190, 30, 30), (226, 240, 226), (232, 232, 232), (176, 203, 228)
DARKEST, BRIGHTEST, MAGENTA = (68, 1, 84), (253, 231, 37), (255, 0, 255)  # viridis from end to end; what is not finite


def parameter(name: str, status: str = "gradient", **facts: Any) -> ParameterFlow:
    """Return a parameter of which only what pictures need is true: by default its mean is 0.01 and its greatest element 0.1."""
    flows = {"mean": 0.01, "greatest": 0.1, "rms": 0.02, "ratio": 0.01, "update": 0.001} if status == "gradient" else {}
    shape = (8,) if "bias" in name else (8, 8)
    usual = {
        "layer": name.rpartition(".")[0],
        "type": "Linear",
        "shape": shape,
        "optimized": True,
        "weight_rms": 1.0,
        "nan": 0,
        "infinite": 0,
    }
    nothing = {**dict.fromkeys(ParameterFlow.__dataclass_fields__), "index": 0, "elements": 64}
    return ParameterFlow(**{**nothing, **usual, **flows, "name": name, "status": status, **facts})


def layer(name: str, status: str = "gradient", **facts: Any) -> LayerFlow:
    flows = {"mean": 0.01, "greatest": 0.1} if status == "gradient" else {}
    nothing = {**dict.fromkeys(LayerFlow.__dataclass_fields__), "index": 0, "type": "Linear", "shape": (8, 8), "nan": 0, "infinite": 0}
    return LayerFlow(**{**nothing, **flows, "name": name, "status": status, **facts})


def report(parameters: Iterable[ParameterFlow] = (), layers: Iterable[LayerFlow] = (), **facts: Any) -> GradflowReport:
    run = Run("", "cpu", "float32", None, "train", "", "", "SGD(lr=0.1)", 8, 1, 1, False, False, 1, None)
    usual = {"steps": (), "output": None, "first_nonfinite": None, **facts}
    return GradflowReport("Net", "", True, "", run, tuple(parameters), tuple(layers), **usual)


def chain(means: Iterable[float | None], **facts: Any) -> GradflowReport:
    """Return layers "l0", "l1", ... with a weight each, whose mean gradients are given."""
    return report([parameter(f"l{n}.weight", mean=mean, greatest=None, **facts) for n, mean in enumerate(means)])


def places(image: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    """Return where a colour is, (n, 2): down, across."""
    return np.argwhere((np.asarray(image.convert("RGB")) == colour).all(axis=-1))


def groups(found: np.ndarray, count: int) -> list[tuple[float, float]]:
    """Return the centres of dots at different heights, the upmost first: as many as are said, split at the widest gaps."""
    found = found[found[:, 0].argsort()]
    cuts = sorted(np.diff(found[:, 0]).argsort()[-(count - 1) :] + 1) if count > 1 else []
    return [tuple(part.mean(axis=0)) for part in np.split(found, cuts)]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, str]]:
    """Collect what is written on pages: x, y, text."""
    found: list[tuple[int, int, str]] = []
    write = Canvas.write

    def note(canvas: Canvas, x: int, y: int, text: str, *rest: Any) -> None:
        found.append((x, y, text))
        write(canvas, x, y, text, *rest)

    monkeypatch.setattr(Canvas, "write", note)
    return found


def words(written: list[tuple[int, int, str]]) -> list[str]:
    return [text for _, _, text in written]


# --- Which rows there are, in forward order


def test_the_only_weight_of_a_layer_shares_its_row():
    rows = aligned([parameter("a.weight"), parameter("b.weight")], [layer("a"), layer("a:relu"), layer("b"), layer("Net")])
    assert [(row.name, row.parameter and row.parameter.name, row.layer and row.layer.name) for row in rows] == [
        ("a", "a.weight", "a"),
        ("a:relu", None, "a:relu"),
        ("b", "b.weight", "b"),
        ("Net", None, "Net"),
    ]


def test_several_weights_of_a_layer_stand_before_what_it_puts_out():
    flows = [layer("embed"), layer("lstm.0"), layer("lstm.1.0"), layer("head"), layer("head#2")]
    names = ["embed.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "head.weight"]
    rows = aligned([parameter(name) for name in names], flows)
    assert [row.name for row in rows] == ["embed", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.0", "lstm.1.0", "head", "head#2"]
    assert rows[-1].parameter is None and rows[-2].parameter is not None, "a second call is another row"


def test_parameters_of_containers_and_those_used_without_a_call_have_their_place():
    flows = [layer("conv"), layer("blocks.0.ln"), layer("blocks.0.attn"), layer("blocks.0"), layer("head")]
    names = ["class_token", "conv.weight", "blocks.pos", "blocks.0.ln.weight", "blocks.0.attn.in_proj_weight", "blocks.0.attn.out.weight"]
    rows = aligned([*map(parameter, names), parameter("conv2.weight", "unused"), parameter("head.weight")], flows)
    assert [row.name for row in rows] == [
        *(
            "class_token",
            "conv",
            "blocks.pos",
            "blocks.0.ln",
            "blocks.0.attn.out.weight",
            "blocks.0.attn",
            "blocks.0",
            "head",
            "conv2.weight",
        ),
    ]


def test_biases_are_left_out_and_counted_unless_a_finding_is_about_one(written):
    every = [parameter(f"{name}.{kind}") for name in ("a", "b") for kind in ("weight", "bias")] + [parameter("shift.bias")]
    gradient_plot("net", report(every))
    assert {"a.weight", "b.weight", "shift.bias"} <= set(words(written)) and "a.bias" not in words(written)
    assert "without 2 biases" in words(written)
    written.clear()
    gradient_plot("net", report(every), {"b.bias": "dead"})
    assert "! b.bias" in words(written) and "dead" in words(written) and "a.bias" not in words(written)
    assert "without 1 bias · !: a finding is about it" in words(written)


def test_a_table_of_biases_is_a_weight():
    names = ["a.weight", "a.relative_position_bias_table"]
    rows = aligned([parameter(names[0]), parameter(names[1], shape=(8, 8))], [])
    assert [row.name for row in rows] == names
    shown = np.asarray(ratio_plot("net", report([row.parameter for row in rows if row.parameter])))
    assert len(shown) == len(np.asarray(ratio_plot("net", chain([1, 1])))), "two rows"


# --- What stands where


def test_a_dot_stands_where_its_number_is_and_large_is_right():
    found = groups(places(gradient_plot("net", chain([1.0, 0.1, 0.01]), {"l1": "dead"}), RED), 1)[0]
    top, bottom = groups(_apart(places(gradient_plot("net", chain([1.0, 0.1, 0.01]), {"l1": "dead"}), BLUE), found[0]), 2)
    np.testing.assert_allclose((np.array(top) + bottom) / 2, found, atol=1.5)
    assert top[1] > found[1] + 50 and bottom[1] < found[1] - 50


def _apart(found: np.ndarray, middle: float) -> np.ndarray:
    return found[abs(found[:, 0] - middle) > 20]


def test_outputs_have_a_column_of_their_own_with_the_same_rows(written):
    shown = report([parameter("a.weight", mean=1.0)], [layer("a", mean=0.1), layer("b", mean=1e-5), layer("c", mean=0.1)])
    found = places(gradient_plot("net", shown), BLUE)
    second = next(x for x, _, text in written if "of the layer's output" in text)
    left, right = (found[(found[:, 1] < second) == side] for side in (True, False))
    (only,) = groups(left, 1)
    assert np.ptp(left[:, 0]) < 8, "one dot"
    assert right[:, 0].min() - 4 < only[0] < right[:, 0].min() + 8 and np.ptp(right[:, 0]) > 40
    lowest = right[right[:, 1].argmin()]
    assert lowest[0] == pytest.approx((right[:, 0].min() + right[:, 0].max()) / 2, abs=3), "the smallest is in the middle row"


@pytest.mark.parametrize("status", ["frozen", "detached", "unused"])
def test_where_no_gradient_arrives_the_ground_is_grey_and_says_why(written, status):
    parameters = [parameter("l0.weight", status), parameter("l1.weight", status), parameter("l2.weight")]
    image = gradient_plot("net", report(parameters))
    lines = {text: y for _, y, text in written}
    assert status in lines and f"on grey ground: {status}" in lines
    grey, blue = places(image, GREY), places(image, BLUE)
    assert np.ptp(grey[:, 0]) == pytest.approx(2 * 24, abs=2), "two rows"
    assert (blue[:, 0].min() > grey[:, 0].max()) == (lines["l2.weight"] > lines["l0.weight"]), "no dot is on it"


def test_gradients_without_a_finite_element_are_said_to_be_so(written):
    gradient_plot("net", report([parameter("a.weight", mean=None, greatest=None, nan=64), parameter("b.weight")]))
    assert "not finite" in words(written)


def test_exactly_0_is_at_the_very_left_and_hollow(written):
    image = gradient_plot("net", chain([1e-3, 0.0, 1e-1]))
    assert any("hollow: exactly 0" in text for text in words(written))
    blue = places(image, BLUE)
    smallest = blue[blue[:, 0] <= blue[:, 0].min() + 1][:, 1].mean()
    assert blue[:, 1].min() < smallest - 3


def test_a_frozen_backbone_is_folded_and_a_marked_layer_never(written):
    parameters = [parameter(f"body.{n}.weight", "frozen") for n in range(30)] + [parameter("head.weight")]
    gradient_plot("net", report(parameters))
    names = [text for text in words(written) if "weight" in text or "more" in text]
    assert [text for text in names if "of weights" not in text] == ["head.weight", "body.0.weight", "… 28 more", "body.29.weight"]
    written.clear()
    gradient_plot("net", report(parameters), {"body.15.weight": "frozen by mistake"})
    assert {"! body.15.weight", "… 13 more", "… 12 more", "frozen by mistake"} <= set(words(written))


# --- Against the weights


def test_the_healthy_range_of_updates_is_shaded_and_the_guide_is_where_it_says():
    updates = (1e-5, 1e-3, 1e-2, 1.0)
    image = ratio_plot("net", report([parameter(f"l{n}.weight", ratio=0.1, update=update) for n, update in enumerate(updates)]))
    green, blue = places(image, GREEN), places(image, BLUE)
    right = blue[blue[:, 1] > image.width / 2]
    rows = [right[abs(right[:, 0] - y) < 2] for y in np.linspace(right[:, 0].min() + 3, right[:, 0].max() - 3, 4)]
    ends = green[:, 1].min(), green[:, 1].max()
    assert rows[0][:, 1].min() < ends[0] < rows[1][:, 1].min() and rows[2][:, 1].max() < ends[1] < rows[3][:, 1].max()
    low, high = rows[0][:, 1].min() + 2.5, rows[3][:, 1].max() - 2.5  # where 1e-5 and 1 are
    for end, power in zip(ends, (-4, -1), strict=True):
        assert end == pytest.approx(low + (high - low) * (power + 5) / 5, abs=2)
    guide = [x for x in range(image.width) if len(places(image.crop((x, 0, x + 1, image.height)), (90, 140, 90))) > 5]
    assert guide and np.mean(guide) == pytest.approx(low + (high - low) * 2 / 5, abs=2)


def test_scales_do_not_zigzag_through_the_line_of_weights(written):
    scales = [parameter(f"n{n}.weight", shape=(8,), ratio=1e3, update=50.0) for n in range(3)]
    weights = [parameter(f"l{n}.weight", ratio=0.01) for n in range(3)]
    mixed = [each for pair in zip(weights, scales, strict=True) for each in pair]
    found, alone = ratio_plot("net", report(mixed)), ratio_plot("net", report(weights))
    np.testing.assert_array_equal(places(found, BLUE), places(alone, BLUE))
    assert not {"n0.weight", "n2.weight"} & set(words(written))
    assert "without 3 weights of one axis" in " ".join(words(written))
    written.clear()
    ratio_plot("net", report(mixed), {"n1.weight": "step too large"})
    assert "! n1.weight" in words(written) and "without 2 weights of one axis" in " ".join(words(written))
    written.clear()
    ratio_plot("net", report(scales))
    assert {"n0.weight", "n1.weight", "n2.weight"} <= set(words(written))


def test_what_has_no_ratio_says_why(written):
    zero = parameter("gate.weight", ratio=None, update=None, weight_rms=0.0)
    ratio_plot("net", report([zero, parameter("a.weight", update=None, optimized=False), parameter("b.weight")]))
    assert "weights are 0" in words(written) and "in no optimizer" in words(written)
    assert any("a guide and not a bound" in text for text in words(written))


# --- Readable


@pytest.mark.parametrize("count", [1, 12, 70, 200, 600])
def test_names_of_layers_never_collide_and_the_last_and_the_marked_ones_are_there(written, count):
    names = [f"encoder.layers.encoder_layer_{n}.self_attention.output_projection" for n in range(count)]
    shown = report([parameter(f"{name}.weight") for name in names], [layer(name) for name in names])
    image = gradient_plot("net", shown, {f"{names[count // 2]}.weight": "vanished"})
    found = sorted((y, text) for x, y, text in written if "output_projection" in text)
    assert all(below - above >= 13 for (above, _), (below, _) in pairwise(found))
    assert len(found) >= min(count, 60) and image.height <= 2000 and image.width <= 1600
    marked = [text for _, text in found if text.startswith("! ")]
    assert len(marked) == 1 and f"e.l.e{count // 2}." in marked[0] and "vanished" in words(written)
    assert f"e.l.e{count - 1}." in found[-1][1]


def test_a_short_name_is_not_cut_because_another_one_is_long(written):
    names = ["head.weight", "encoder.layers.encoder_layer_11.self_attention.output_projection.weight", "encoder.norm.weight"]
    gradient_plot("net", report(map(parameter, names)))
    assert "head.weight" in words(written) and not any(text.startswith("encoder.layers") for text in words(written))


# --- Histograms


def test_weights_with_a_gradient_have_a_histogram(written):
    histogram = Histogram(-1.0, 2.0, (1, 5, 2))
    every = [
        parameter("a.weight", histogram=histogram, zeros=0.25),
        parameter("a.bias", histogram=histogram),
        parameter("b.weight", "frozen"),
        parameter("c.weight", rms=None, nan=3),
    ]
    assert len(histogram_page("net", every, {"a": "vanished"})) == 1
    assert {"! a.weight", "vanished · rms 0.02 · 25.0 % zeros", "c.weight", "3 not finite"} <= set(words(written))
    assert not {"a.bias", "b.weight"} & set(words(written))


def test_a_histogram_of_a_sample_says_so(written):
    whole, part = (Histogram(-1.0, 2.0, (1, 5, 2), sampled) for sampled in (False, True))
    histogram_page("net", [parameter("a.weight", histogram=whole)])
    assert "sample" not in " ".join(words(written))
    histogram_page("net", [parameter("a.weight", histogram=whole), parameter("b.weight", histogram=part)])
    said = words(written)
    assert [text for text in said if text.endswith("of a sample")] == ["rms 0.02 · of a sample"]
    assert "large ones over that of an even sample" in " ".join(said)


# --- From step to step


def cells(image: Image.Image, rows: int, columns: int) -> np.ndarray:
    """Return the colour in the middle of each cell, (rows, columns, 3); the map is what is colourful first, from the top."""
    pixels = np.asarray(image.convert("RGB")).astype(int)
    colourful = np.ptp(pixels, axis=-1) > 60
    top = int(colourful.any(axis=1).argmax())
    bottom = top + int((~colourful.any(axis=1)[top:]).argmax())
    across = np.flatnonzero(colourful[top:bottom].any(axis=0))
    down, right = (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns
    places = (top + down * (bottom - top), across[0] + right * (across[-1] + 1 - across[0]))
    return pixels[np.ix_(*(place.astype(int) for place in places))]


def test_colours_of_steps_are_on_a_scale_of_powers():
    values = np.array([[1e-6, 1e-4, 1e-2], [1e-2, 1e-3, 1e-6]])
    found = cells(step_map("net", ["a", "b"], values, unit="rms"), 2, 3)
    assert tuple(found[0, 0]) == tuple(found[1, 2]) == DARKEST and tuple(found[0, 2]) == tuple(found[1, 0]) == BRIGHTEST
    np.testing.assert_allclose(found[0, 1], (33, 145, 140), atol=4)  # viridis at 0.5
    np.testing.assert_allclose(found[1, 1], (94, 201, 98), atol=8)  # viridis at 0.75


def test_zero_what_is_not_finite_and_what_is_not_there_have_colours_of_their_own(written):
    values = np.array([[1e-6, 1e-2, 1e-6, 1e-2], [1e-2, 0.0, -1.0, inf], [1e-2, 1e-2, nan, 1e-2]])
    found = cells(step_map("net", ["a", "b", "c"], values, unit="rms"), 3, 4)
    zero = found[1, 1]
    assert zero.min() == zero.max() and 100 < zero[0] < 200
    assert tuple(found[1, 2]) == (255, 255, 255) and tuple(found[1, 3]) == tuple(found[2, 2]) == MAGENTA
    assert "grey: exactly 0 · magenta: not finite · white: no number" in words(written)


def test_many_steps_are_merged_to_their_geometric_mean(written):
    values = np.tile([1e-2, 1e-4], 1000)[None].repeat(3, axis=0)
    values[1], values[2] = 1e-2, 1e-4
    image = step_map("net", ["a", "b", "c"], values[:, :1760], unit="rms")
    assert image.width < 1100 and any("geometric mean of 2 steps" in text for text in words(written))
    found = cells(image, 3, 40)
    np.testing.assert_allclose(found[0], np.tile((33, 145, 140), (40, 1)), atol=4)
    assert (found[1] == BRIGHTEST).all() and (found[2] == DARKEST).all()


def test_rows_of_steps_are_weights_with_their_own_numbers(written):
    parameters = [parameter("a.weight"), parameter("a.bias"), parameter("b.weight")]
    steps = [Step(2.5, 1.0, (1e-1, 7.0, 1e-5)), Step(1.25, 1.0, (1e-5, 7.0, None))]
    found = cells(steps_map("net", parameters, steps, {"b": "dead"}), 2, 2)
    assert [tuple(colour) for colour in found.reshape(-1, 3)] == [BRIGHTEST, DARKEST, DARKEST, (255, 255, 255)]
    assert {"a.weight", "! b.weight", "dead"} <= set(words(written)) and any("loss 2.5 → 1.25" in text for text in words(written))


# --- Curves


def test_scales_of_numbers_have_round_ends_and_few_ticks():
    assert [text for _, text in Axis.linear([0, 2.4]).ticks] == ["0", "1", "2", "3"]
    assert [text for _, text in Axis.linear([-1.2, 0.97]).ticks] == ["-2", "-1", "0", "1"]
    assert [text for _, text in Axis.linear([1.609, 1.61]).ticks] == ["1.6090", "1.6095", "1.6100"]
    tight = Axis.linear([1, 70], tight=True)
    assert (tight.low, tight.high, [text for _, text in tight.ticks]) == (1, 70, ["20", "40", "60"])


@pytest.mark.parametrize("numbers", [[], [0.0], [2.3], [-5.0], [1e300, -1e308], [5e-324], [1e-9, 3e-9], [123456, 123789], [0.1, 0.3, 0.7]])
def test_any_numbers_have_a_scale(numbers):
    axis = Axis.linear(numbers)
    assert axis.low < axis.high and 2 <= len(axis.ticks) <= 7
    assert all(axis.low <= max(min(value, 1e300), -1e300) <= axis.high for value in numbers)


def test_points_of_a_curve_stand_where_their_numbers_are():
    """Sample: three points on a logarithmic scale from left to right, from 1 over 2 to 4."""
    found = places(curve_plot("net", Curve([1e-4, 1e-3, 1e-2], [1.0, 2.0, 4.0], "rate", "loss", log_x=True)), BLUE)
    left, right = found[found[:, 1].argmin()], found[found[:, 1].argmax()]
    middle = found[abs(found[:, 1] - (left[1] + right[1]) / 2) <= 2].mean(axis=0)
    assert left[0] > middle[0] > right[0], "large is up"
    assert (left[0] - middle[0]) / (left[0] - right[0]) == pytest.approx(1 / 3, abs=0.02)


def test_levels_are_at_their_height_and_say_what_they_are(written):
    losses = (2.0, 1.0, 0.5, 0.5)
    image = overfit_curve("net", Overfit("Adam(lr=0.003)", 16, 80, losses, 1.0, 2.0, False, 0.5, ("a.weight", "b.weight")))
    blue, dashes = places(image, BLUE), places(image, (90, 140, 90))
    heights = sorted({int(y) for y, _ in dashes if len(dashes[dashes[:, 0] == y]) > 100})
    assert abs(heights[0] - blue[blue[:, 1].argmin()][0]) <= 3, "chance is where the loss begins"
    third = blue[:, 1].min() + np.ptp(blue[:, 1]) / 3
    assert abs(heights[-1] - blue[abs(blue[:, 1] - third) <= 2][:, 0].mean()) <= 4, "the target is where the second loss is"
    shown = {text: y for _, y, text in written}
    assert shown["chance: 2"] < shown["learned: 1"] and "updates stopped: a.weight, b.weight" in shown
    assert any(text.startswith("failed: the model did not learn the batch · one batch of 16 samples") for text in shown)


def test_a_loss_that_is_not_finite_ends_the_curve_and_is_named(written):
    image = overfit_curve("net", Overfit("SGD", 1, 80, (2.0, 1.5, inf, nan, nan), 0.1, None, False, nan, ()))
    assert "the loss is not finite from step 3 on" in words(written)
    blue = places(image, BLUE)
    assert np.ptp(blue[:, 1]) < 640 / 3, "two points of five"
    assert overfit_curve("net", Overfit("SGD", 1, 80, (nan,), 0.1, None, False, nan, ())).width > 100


def test_the_usable_rates_are_shaded_between_their_ends(written):
    rates = tuple(10.0**power for power in range(-6, 1))
    image = rate_curve("net", RateRange(rates, (2.0, 2.0, 1.8, 1.4, 1.1, 1.0, 1.5), 1e-4, 1e-2, 1e-3))
    green, blue = places(image, GREEN), places(image, BLUE)
    low, high = blue[:, 1].min() + 2.5, blue[:, 1].max() - 2.5
    for end, power in ((green[:, 1].min(), -4), (green[:, 1].max(), -2)):
        assert end == pytest.approx(low + (high - low) * (power + 6) / 6, abs=3)
    dashes = places(image, (90, 140, 90))
    assert dashes[:, 1].mean() == pytest.approx(low + (high - low) * 0.5, abs=3)
    assert {"usable: 0.0001 to 0.01", "falls fastest: 0.001"} <= set(words(written))


def test_rates_of_which_none_is_too_large_are_shaded_to_the_last_one_tried(written):
    rates = tuple(10.0**power for power in range(-6, 1))
    image = rate_curve("net", RateRange(rates, (2.0, 2.0, 1.8, 1.4, 0.5, 0.1, 0.05), 1e-4, None, 1e-3))
    green, blue = places(image, GREEN), places(image, BLUE)
    low, high = blue[:, 1].min() + 2.5, blue[:, 1].max() - 2.5
    assert green[:, 1].min() == pytest.approx(low + (high - low) * 2 / 6, abs=3) and green[:, 1].max() >= high - 3
    said = " ".join(words(written))
    assert "usable: 0.0001 on" in said and "no usable range" not in said
    assert "from 0.1 on the batches were learned already" in said  # the loss is 0.1, a twentieth of 2
    written.clear()
    rate_curve("net", RateRange(rates, (2.0, 2.0, 1.8, 1.4, 0.5, 0.2, 0.11), 1e-4, None, 1e-3))
    assert "learned already" not in " ".join(words(written))


def test_a_loss_that_explodes_leaves_the_plot_so_that_its_fall_is_seen(written):
    rates = tuple(10.0**power for power in range(-6, 1))
    calm = places(rate_curve("net", RateRange(rates, (2.0, 2.0, 1.8, 1.4, 1.1, 1.0, 2.0), None, None, None)), BLUE)
    wild = places(rate_curve("net", RateRange(rates, (2.0, 2.0, 1.8, 1.4, 1.1, 1.0, 1e300), None, None, None)), BLUE)
    assert "the loss leaves the plot, up to 1e300" in words(written) and any("no usable range" in text for text in words(written))
    falls = [found[:, 0].max() - found[found[:, 1].argmin()][0] for found in (calm, wild)]
    assert falls[1] > 60 and falls[0] > 60


# --- Processes


def test_bars_are_as_long_as_their_numbers(written):
    ranks = [Rank(0, "cuda:0", 2.0, 1.0, 1.0, "a"), Rank(1, "cuda:1", 2.0, 3.0, -0.5, "b"), Rank(2, "cuda:2", 2.0, None, None, "a")]
    image = rank_bars("net", ranks, {"rank 1": "differs"})
    bars = places(image, BAR)
    left, width = next(x for x, _, text in written if text.startswith("norm")), 210
    inside = bars[(bars[:, 1] >= left) & (bars[:, 1] < left + width)]
    rows = [inside[abs(inside[:, 0] - y) <= 1] for y in np.unique(inside[:, 0])[[8, -8]]]
    first, second = (np.ptp(row[:, 1]) for row in rows)
    assert second / first == pytest.approx(3, abs=0.1)
    assert {"! rank 1 · cuda:1", "differs", "rank 2 · cuda:2", "-0.5"} <= set(words(written))


# --- The pictures of one request


class Shelf:
    """A folder that only remembers."""

    def __init__(self) -> None:
        self.reserved: list[str] = []
        self.saved: list[tuple[str, int, bool]] = []

    def reserve(self, names: Iterable[str]) -> None:
        self.reserved = list(names)

    def save(self, name: str, image: Image.Image, *, page: int = 1, prefer: bool = False, **facts: str) -> str:
        self.saved.append((name, page, prefer))
        return f"{name}-{page}.png"


def full() -> GradflowReport:
    return report(
        [parameter("a.weight", histogram=Histogram(0.0, 1.0, (1, 2))), parameter("b.weight")],
        [layer("a")],
        steps=(Step(2.0, 1.0, (0.1, 0.1)), Step(1.0, 1.0, (0.1, None))),
        overfit=Overfit("SGD", 8, 3, (2.0, 1.0, 0.1), 0.1, 2.3, True, 0.1, ()),
        rate_range=RateRange((1e-3, 1e-2), (2.0, 1.0), None, None, None),
        ranks=(Rank(0, "cpu", 1.0, 1.0, 1.0, ""), Rank(1, "cpu", 1.0, 1.0, 1.0, "")),
    )


def test_every_part_of_a_report_has_a_picture_and_every_name_is_reserved():
    shelf, steps = Shelf(), []
    pictures = list(draw(full(), {}, shelf, "net", lambda: steps.append(1)))
    names = [name for name, _, _ in shelf.saved]
    assert names == ["flow", "ratios", "steps", "histograms", "overfit", "lr-range", "ranks"] and len(steps) == len(pictures) == 7
    assert set(names) <= set(shelf.reserved) and shelf.saved[0][2], "the gradients are looked at first"
    assert [picture.file for picture in pictures] == [f"{name}-1.png" for name in names]
    assert all(picture.width > 100 and picture.height > 100 for picture in pictures)
    assert pictures[0].layers == ("a.weight", "b.weight")


def test_what_was_not_measured_is_not_drawn():
    shelf, whole = Shelf(), full()
    only = replace(whole, steps=whole.steps[:1], overfit=None, rate_range=None, ranks=whole.ranks[:1])
    list(draw(only, {}, shelf, "net", lambda: None))
    assert [name for name, _, _ in shelf.saved] == ["flow", "ratios", "histograms"]
    shelf = Shelf()
    list(draw(report([parameter("a.weight", "frozen")]), {}, shelf, "net", lambda: None))
    assert [name for name, _, _ in shelf.saved] == ["flow"]
    shelf = Shelf()
    assert list(draw(report(), {}, shelf, "net", lambda: None)) == [] and not shelf.saved


def test_numbers_at_the_ends_of_what_floats_hold_are_drawn():
    means = [1e-320, 1.7e308, 0.0, nan, inf, None]
    assert log10(1e-320) < -300
    assert gradient_plot("net", chain(means)).width > 100
    assert ratio_plot("net", report([parameter("a.weight", ratio=inf, update=nan)])).width > 100
    values = np.array([[1e-320, 1.7e308], [0.0, nan]])
    assert step_map("net", ["a", "b"], values, unit="rms").width > 100
    assert step_map("net", ["a"], np.full((1, 5), -1.0), unit="rms").width > 100
