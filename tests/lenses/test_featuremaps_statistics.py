"""Every statistic of an activation against numpy float64 on the stored tensors, and the first layer that is not finite."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from netlens.lenses.featuremaps import samples, sums
from netlens.lenses.featuremaps.nonfinite import FirstNonFinite
from netlens.lenses.featuremaps.report import LayerActivity
from netlens.lenses.featuremaps.samples import Thinned
from netlens.lenses.featuremaps.statistics import Accumulator
from netlens.probing.activations import Output, watched
from netlens.probing.tokens import Layout, Layouts

FIRST = Layout("channels first", (6, 5, 4), 6, (5, 4))
LAST = Layout("channels last", (5, 4, 6), 6, (5, 4))
FEATURES = Layout("features", (6,), 6, ())


def activity(batches: list[Tensor], layout: Layout, activation: str | None = None) -> LayerActivity:
    accumulator = Accumulator()
    for batch in batches:
        accumulator.add(Output("layer", "Layer", None, batch, True, activation), layout)
    (row,) = accumulator.result()
    return row


def places(batches: list[Tensor], layout: Layout) -> np.ndarray[Any, Any]:
    """(N, P, C) in float64."""
    values = torch.cat(batches).double().numpy()
    if layout.kind == "channels first":
        values = np.moveaxis(values, 1, -1)
    return values.reshape(len(values), -1, layout.channels)


def truth(x: np.ndarray[Any, Any], activation: str | None) -> dict[str, Any]:
    """The definitions of report.py, on (N, P, C)."""
    samples_, count, channels = x.shape
    shares = []
    for sample in x:
        energy = np.sort((sample**2).sum(1))[::-1]
        if count >= 10 and energy.sum() > 0:
            shares.append(energy[: math.ceil(count / 10)].sum() / energy.sum())
    rows = x.reshape(-1, channels)
    square = (x**2).mean()
    found = {
        "mean": x.mean(),
        "std": x.std(),
        "rms": math.sqrt(square),
        "least": x.min(),
        "greatest": x.max(),
        "percentiles": np.percentile(x, (1, 5, 25, 50, 75, 95, 99)),
        "zeros": (x == 0).mean(),
        "dead": int((rows.max(0) <= 0).sum()) if activation == "relu" else None,
        "constant": int((rows.max(0) == rows.min(0)).sum()),
        "saturated": None,
        "between": x.var(0).mean() / square if samples_ > 1 and square else None,
        "within": x.var(1).mean() / square if count > 1 and square else None,
        "concentration": np.mean(shares) if shares else None,
    }
    if activation == "tanh":
        found["saturated"] = (1 - x**2 < 0.05).mean()
    if activation == "sigmoid":
        found["saturated"] = (4 * x * (1 - x) < 0.05).mean()
    if len(rows) >= 8:
        covariance = np.cov(rows.T, bias=True)
        found["effective_rank"] = np.trace(covariance) ** 2 / np.trace(covariance @ covariance)
        varying = np.diag(covariance) > 0
        correlation = np.abs(np.corrcoef(rows.T[varying]))
        found["correlation"] = correlation[~np.eye(len(correlation), dtype=bool)].mean()
    return found


def check(batches: list[Tensor], layout: Layout, activation: str | None = None, tolerance: float = 1e-5) -> LayerActivity:
    row, x = activity(batches, layout, activation), places(batches, layout)
    rms = math.sqrt((x**2).mean())
    for name, value in truth(x, activation).items():
        got = getattr(row, name)
        if value is None:
            assert got is None, name
        else:
            assert got == pytest.approx(value, rel=tolerance, abs=tolerance * rms if name in ("mean", "percentiles") else 0), name
    assert row.samples == len(x) and row.elements == x.size
    assert row.histogram is not None and sum(row.histogram.counts) == x.size
    counts, _ = np.histogram(x, 64, (x.min(), x.max()))
    assert np.abs(counts - row.histogram.counts).sum() <= 2  # an element on an edge
    return row


def made(layout: Layout, sizes: tuple[int, ...] = (3, 1, 4), dtype: torch.dtype = torch.float32) -> list[Tensor]:
    torch.manual_seed(0)
    scale = torch.linspace(0.5, 2, 6)
    scale = scale[:, None, None] if layout.kind == "channels first" else scale
    return [(torch.randn(size, *layout.shape) * scale + 0.3).to(dtype) for size in sizes]


@pytest.fixture(params=["whole", "in pieces", "careful"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tensors go through the code of large ones, and of accelerators, which may not look at numbers, too."""
    if request.param == "in pieces":
        monkeypatch.setattr(sums, "PIECE", 1)
        monkeypatch.setattr(sums, "BLOCK", 7)
    if request.param == "careful":
        monkeypatch.setattr(sums, "_is_safe", lambda high, low: False)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("layout", [FIRST, LAST, FEATURES], ids=lambda layout: layout.kind)
def test_all_statistics_of_several_batches(layout: Layout) -> None:
    check(made(layout), layout)


@pytest.mark.usefixtures("way")
def test_dead_constant_and_zero() -> None:
    batches = [batch.clamp(min=0) for batch in made(FIRST)]
    for batch in batches:
        batch[:, 1] = 0
        batch[:, 4] = 2.5
    batches[0][:, 2], batches[1][:, 2], batches[2][:, 2] = 0, 0, 0
    batches[2][0, 2, 0, 0] = 1e-3  # alive, once
    row = check(batches, FIRST, "relu")
    assert (row.dead, row.constant) == (1, 2)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_saturation(activation: str) -> None:
    check([getattr(torch, activation)(3 * batch) for batch in made(LAST)], LAST, activation)


@pytest.mark.parametrize("scale", [1e20, 1e-30, 1e-20])
def test_huge_and_tiny_values(scale: float) -> None:
    check([batch * scale for batch in made(FIRST)], FIRST)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types(dtype: torch.dtype) -> None:
    check(made(FIRST, dtype=dtype), FIRST)


def test_memory_formats_and_layouts_that_are_no_plain_rows() -> None:
    batches = made(FIRST)
    plain = activity(batches, FIRST)
    last = activity([batch.to(memory_format=torch.channels_last) for batch in batches], FIRST)
    assert last.within == pytest.approx(plain.within) and last.between == pytest.approx(plain.between)
    tokens = made(Layout("tokens", (7, 6), 6, (7,)))
    first = Layout("tokens", (7, 6), 6, (7,), batch_axis=1)
    row = activity([batch.transpose(0, 1).contiguous() for batch in tokens], first)
    expected = truth(places(tokens, Layout("tokens", (7, 6), 6, (7,))), None)
    assert (row.samples, row.within) == (8, pytest.approx(expected["within"], rel=1e-5))
    assert row.between == pytest.approx(expected["between"], rel=1e-5)


def test_nan_and_infinite_elements_are_counted_and_left_out() -> None:
    batches = made(FIRST)
    batches[1][0, 0, 0, 0] = math.nan
    batches[2][1, 3, 2, 1] = math.inf
    batches[2][1, 3, 2, 2] = -math.inf
    row = activity(batches, FIRST, "relu")
    x = places(batches, FIRST)
    finite = x[np.isfinite(x)]
    assert (row.nan, row.infinite) == (1, 2)
    for name, value in (("mean", finite.mean()), ("std", finite.std()), ("least", finite.min()), ("greatest", finite.max())):
        assert getattr(row, name) == pytest.approx(value, rel=1e-5), name
    assert row.zeros == 0 and row.dead == 0
    assert row.percentiles == pytest.approx(np.percentile(finite, (1, 5, 25, 50, 75, 95, 99)).tolist(), rel=1e-5)
    assert (row.effective_rank, row.correlation, row.between, row.within, row.concentration) == (None,) * 5


def test_all_nan_all_zero_constant_empty_and_single() -> None:
    nan = activity([torch.full((2, 6, 5, 4), math.nan)], FIRST, "relu")
    assert (nan.nan, nan.mean, nan.zeros, nan.dead, nan.histogram) == (240, None, None, None, None)
    zero = activity([torch.zeros(2, 6, 5, 4)], FIRST, "relu")
    assert (zero.mean, zero.std, zero.zeros, zero.dead, zero.constant, zero.between) == (0, 0, 1, 6, 6, 0)
    assert (zero.within, zero.effective_rank, zero.correlation, zero.concentration) == (None, None, None, None)
    same = activity([torch.full((2, 6, 5, 4), 0.1)], FIRST)
    assert (same.std, same.between, same.constant) == (0, 0, 6) and same.mean == pytest.approx(0.1)
    assert same.concentration == pytest.approx(0.1) and same.within == pytest.approx(0, abs=1e-6)
    empty = activity([torch.zeros(2, 6, 0, 4)], Layout("channels first", (6, 0, 4), 6, (0, 4)))
    assert (empty.samples, empty.elements, empty.mean, empty.histogram, empty.dead) == (2, 0, None, None, None)
    check(made(FIRST, (1,)), FIRST)


def test_differences_far_below_the_mean_square_keep_their_digits() -> None:
    torch.manual_seed(0)
    batches = [torch.full((4, 6, 5, 4), 1.0) + 1e-5 * torch.randn(4, 6, 5, 4) for _ in range(3)]
    row, x = activity(batches, FIRST), places(batches, FIRST)
    assert row.between == pytest.approx(x.var(0).mean() / (x**2).mean(), rel=1e-3)
    assert 1e-11 < (row.between or 0) < 1e-9
    assert row.std == pytest.approx(x.std(), rel=1e-3)


def test_maps_of_several_sizes() -> None:
    torch.manual_seed(0)
    accumulator, batches = Accumulator(), [torch.randn(2, 6, 5, 4), torch.randn(2, 6, 3, 3)]
    for batch in batches:
        layout = Layout("channels first", tuple(batch.shape[1:]), 6, tuple(batch.shape[2:]))
        accumulator.add(Output("layer", "Layer", None, batch, False), layout)
    (row,) = accumulator.result()
    values = torch.cat([batch.double().flatten() for batch in batches]).numpy()
    assert row.mean == pytest.approx(values.mean(), rel=1e-5) and row.std == pytest.approx(values.std(), rel=1e-5)
    assert row.shape == (6, 5, 4) and row.between is None and row.constant == 0


def test_large_layers_are_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "ELEMENTS", 4000)
    torch.manual_seed(0)
    layout = Layout("channels first", (300, 12, 12), 300, (12, 12))
    mean = torch.linspace(-1, 1, 300)[:, None, None]
    batches = [torch.randn(4, 300, 12, 12) + mean for _ in range(3)]
    row, x = activity(batches, layout), places(batches, layout)
    assert row.std == pytest.approx(x.std(), rel=1e-5)  # of all elements
    assert row.histogram is not None and row.histogram.sampled and sum(row.histogram.counts) <= 1 << 16
    assert row.percentiles is not None and row.percentiles[3] == pytest.approx(np.median(x), abs=0.1)


@pytest.mark.parametrize("kind", ["channels first", "channels last"])
def test_variance_between_samples_of_uneven_channels(kind: str) -> None:
    """A few channels, anywhere, hold nearly all of the energy, and others nearly all of the variance."""
    torch.manual_seed(0)
    mean, spread = torch.rand(300) ** 8 * 20, torch.rand(300) ** 2 * 3
    batches = [torch.randn(8, 28, 28, 300) * spread + mean for _ in range(2)]
    layout = Layout("channels last", (28, 28, 300), 300, (28, 28))
    if kind == "channels first":
        batches = [batch.movedim(-1, 1).contiguous() for batch in batches]
        layout = Layout("channels first", (300, 28, 28), 300, (28, 28))
    row, x = activity(batches, layout), places(batches, layout)
    assert row.histogram is not None and row.histogram.sampled
    assert row.between == pytest.approx(x.var(0).mean() / (x**2).mean(), rel=0.02)


def test_one_element_outside_the_sample_brings_a_channel_to_life() -> None:
    torch.manual_seed(0)
    layout = Layout("channels first", (40, 60, 60), 40, (60, 60))
    batches = [torch.randn(2, 40, 60, 60).relu() for _ in range(2)]
    for batch in batches:
        batch[:, :7] = 0
        batch[:, 7:9] = 1.5
    for place, channel in enumerate((1, 3, 8)):
        batches[place % 2][1, channel, 59 - place, 1] = 1e-3
    batches[1][:, 5] = 2  # constant in each batch, not over both
    row, x = activity(batches, layout, "relu"), places(batches, layout).reshape(-1, 40)
    assert row.dead == (x.max(0) <= 0).sum() == 4
    assert row.constant == (x.max(0) == x.min(0)).sum() == 5
    assert row.zeros == (x == 0).mean()
    assert activity([-batch for batch in batches], layout).constant == 5


def test_zeros_of_any_layer_are_counted_once_a_sample_shows_one() -> None:
    torch.manual_seed(0)
    layout = Layout("channels first", (40, 60, 60), 40, (60, 60))
    batch = nn.functional.dropout(torch.randn(2, 40, 60, 60), 0.01)
    assert activity([batch], layout).zeros == (batch.numpy() == 0).mean()
    stray = torch.ones(2, 40, 60, 60)
    stray[0, 0, 0, 0] = 0
    assert activity([stray], layout).zeros == 0 and activity([stray], layout, "relu").zeros == pytest.approx(1 / stray.numel())


@pytest.mark.parametrize("sizes", [(997,), (100, 400, 497), (1, 1, 995), (1,) * 997])
def test_thinning_keeps_the_same_rows_whatever_the_batches(sizes: tuple[int, ...]) -> None:
    """16 times the golden ratio is 25.9: the next smaller step, 12.9, would keep 78 of 997 rows, and 50 are allowed."""
    rows, thinned = torch.arange(997), Thinned(50)
    for part in rows.split(list(sizes)):
        thinned.add(part)
    golden = (1 + math.sqrt(5)) / 2
    assert thinned.rows().tolist() == [math.floor(16 * golden * place) for place in range(39)]


@pytest.mark.parametrize("count", [1, 50, 51, 80, 99, 101, 1000, 3125, 12345])
def test_thinning_keeps_at_least_half_of_what_is_allowed(count: int) -> None:
    thinned = Thinned(50)
    for part in torch.arange(count).split(37):
        thinned.add(part)
    kept = thinned.rows().tolist()
    assert kept == list(range(count)) if count <= 50 else 25 <= len(kept) <= 50
    assert len(set(kept)) == len(kept) and max(kept) < count


@pytest.mark.parametrize("width", [2, 3, 4, 5, 7, 8, 10, 13, 14, 16, 21, 25, 28, 32])
@pytest.mark.parametrize("count", [2000, 20_000, 200_000, 2_000_000])
def test_thinning_prefers_no_column_of_a_map(width: int, count: int) -> None:
    """Of 256 to 512 places, independent ones would be within four standard deviations of an even share, which is sqrt(share)."""
    thinned = Thinned(512)
    thinned.add(torch.arange(count))
    share = len(thinned.rows()) / width
    found = np.bincount(thinned.rows().numpy() % width, minlength=width)
    assert len(found) == width and np.abs(found - share).max() <= 4 * math.sqrt(share)


def test_rows_come_in_the_order_of_the_pass_and_know_what_is_final() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3), nn.Softmax(1)).eval()
    layouts, accumulator = Layouts(model), Accumulator()
    for size in (4, 1):
        images = torch.randn(size, 3, 4, 4)
        layouts.begin(images)
        with torch.no_grad(), watched(model, lambda output: accumulator.add(output, layouts.of(output))):
            model(images)
    rows = accumulator.result()
    assert [(row.index, row.name) for row in rows] == [(index, str(index)) for index in range(6)]
    assert [row.final for row in rows] == [False] * 4 + [True] * 2
    assert [row.activation for row in rows] == [None, None, "relu", None, None, "softmax"]
    assert [row.after_norm for row in rows] == [False, False, True, False, False, False]
    assert all(row.samples == 5 for row in rows)


# --- the first layer that is not finite


def first_nonfinite(model: nn.Module, *batches: Tensor) -> Any:
    layouts, first = Layouts(model), FirstNonFinite()
    for batch in batches:
        layouts.begin(batch)
        first.begin(batch, len(batch))
        with torch.no_grad(), watched(model, lambda output: first.add(output, layouts.of(output))):
            model(batch)
    return first.found


def test_a_weight_that_is_nan_is_blamed_on_its_layer() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight[2, 0] = math.nan
    found = first_nonfinite(model, torch.randn(5, 3))
    assert (found.name, found.type, found.nan, found.infinite, found.sample, found.weights) == ("1", "Linear", 5, 0, 0, True)


def test_a_sample_of_a_later_batch_overflows() -> None:
    class Exp(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.exp()

    model = nn.Sequential(nn.Identity(), Exp(), nn.ReLU())
    later = torch.zeros(3, 2)
    later[1] = 1000
    found = first_nonfinite(model, torch.zeros(4, 2), later)
    assert (found.name, found.nan, found.infinite, found.sample, found.weights) == ("1", 0, 2, 5, False)


def test_code_between_layers_is_blamed_on_the_module_it_stands_in() -> None:
    class Log(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.log())

    found = first_nonfinite(nn.Sequential(nn.ReLU(), Log()), torch.tensor([[1.0, 2.0], [-1.0, 1.0]]))
    assert (found.name, found.type, found.sample) == ("1", "Log", 1)


def test_inputs_that_are_not_finite_are_nobodys_fault_and_neither_is_health() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert first_nonfinite(model, torch.full((2, 2), math.nan)) is None
    assert first_nonfinite(model, torch.full((2, 2), 1e30)) is None
