"""What the kernels lens measures, against numpy in float64, plain loops and what torch itself computes with the weights."""

from __future__ import annotations

from itertools import product
from math import inf, nan, sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import netlens.lenses.kernels.similar as similar
from netlens.errors import LayerNotFound
from netlens.lenses.kernels.elements import PIECE, strided, valley
from netlens.lenses.kernels.layers import Weights, WeightTensor, weights_of_group, weights_of_model
from netlens.lenses.kernels.measure import default_std, initial_scales, kernels, measure
from netlens.lenses.kernels.report import LayerWeights
from netlens.lenses.kernels.similar import duplicate_threshold
from netlens.lenses.kernels.statistics import measured
from netlens.loading.checkpoints.read import read_archive
from netlens.loading.checkpoints.storages import Storages
from netlens.probing.meta import skeleton

KINDS = {2: "linear", 3: "conv1d", 4: "conv2d", 5: "conv3d"}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def tensor(values: Tensor, kind: str = "", groups: int = 1, transposed: bool = False) -> WeightTensor:
    kind = kind or KINDS[values.dim()]
    dtype = str(values.dtype).removeprefix("torch.")
    return WeightTensor("w", "w.weight", "T", kind, tuple(values.shape), dtype, groups, transposed, True, None, False, lambda: values)


def look(values: Tensor, kind: str = "", groups: int = 1, other: Tensor | None = None) -> LayerWeights:
    return measured(tensor(values, kind, groups), 0, other=other)


# --- Sums


@pytest.mark.parametrize(
    "values",
    [
        torch.randn(7, 5),
        torch.randn(300, 4001) * 0.02,
        torch.randn(64, 64, dtype=torch.float64) * 1e-3 + 5.0,
        torch.full((9, 8), 0.1) + torch.randn(9, 8) * 1e-5,
        torch.randn(40, 40).bfloat16(),
        torch.randn(40, 40).half(),
        torch.randn(40, 40).to(torch.float8_e4m3fn),
        torch.randn(16, 16) * 1e30,  # squares overflow in float32
        torch.randn(16, 16) * 1e-30,  # and vanish
        torch.randn(16, 16, dtype=torch.float64) * 1e250,
        torch.tensor([[nan, 1.0, -2.0, inf], [-inf, 0.0, 0.0, 3.0]]),
    ],
    ids=["small", "pieces", "offset", "nearly constant", "bfloat16", "float16", "float8", "huge", "tiny", "huge float64", "not finite"],
)
def test_sums_are_numpys_over_the_finite_elements(values):
    layer = look(values)
    every = values.double().numpy().ravel()
    finite = every[np.isfinite(every)]
    size = np.abs(finite).max()
    scaled = finite / size
    assert layer.mean == pytest.approx(scaled.mean() * size, rel=1e-6, abs=1e-9 * size)
    assert layer.std == pytest.approx(scaled.std() * size, rel=1e-6)
    assert layer.rms == pytest.approx(np.sqrt((scaled**2).mean()) * size, rel=1e-6)
    assert layer.norm == pytest.approx(np.sqrt((scaled**2).sum()) * size, rel=1e-6)
    assert (layer.least, layer.greatest) == (finite.min(), finite.max())
    assert (layer.zeros, layer.nan, layer.infinite) == ((every == 0).sum(), np.isnan(every).sum(), np.isinf(every).sum())
    assert layer.gain == pytest.approx(layer.rms * sqrt(values.shape[1]))
    assert layer.near_zero == pytest.approx(np.mean((finite != 0) & (np.abs(finite) < 1e-3 * layer.rms)), abs=1e-4)


def test_a_constant_weight_has_no_deviation_at_all():
    layer = look(torch.full((64, 100), 0.1))
    assert (layer.std, layer.valley, layer.mean) == (0.0, 0.0, pytest.approx(0.1))


@pytest.mark.parametrize(
    ("values", "zeros", "bad"),
    [
        (torch.zeros(8, 4, 3, 3), 288, 0),
        (torch.full((8, 4, 3, 3), nan), 0, 288),
        (torch.zeros(0, 4, 3, 3), 0, 0),
        (torch.zeros(4, 0), 0, 0),
    ],
    ids=["zeros", "nan", "no filters", "no inputs"],
)
def test_what_has_no_values_has_no_statistics(values, zeros, bad):
    layer = look(values)
    assert (layer.zeros, layer.nan, layer.dead, layer.duplicates) == (zeros, bad, 0, 0)
    assert (layer.largest_cosine, layer.stable_rank, layer.outlier, layer.near_zero, layer.smoothness) == (None,) * 5
    assert (layer.mean is None) == (zeros == 0)


@pytest.mark.parametrize("shape", [(50, 61), (2, PIECE)], ids=["small", "pieces"])
def test_a_histogram_counts_as_numpy_does(shape):
    values = torch.randn(shape)
    values[1, 4] = nan
    finite = values.numpy()[np.isfinite(values.numpy())]
    found = look(values).histogram
    expected, edges = np.histogram(finite.astype(np.float64), bins=64)
    assert (found.low, found.high, sum(found.counts)) == (edges[0], edges[-1], len(finite))
    on_edges = 1 + len(finite) * 1e-5  # in float32
    assert np.abs(np.cumsum(found.counts) - np.cumsum(expected)).max() <= on_edges


def test_the_outlier_is_measured_against_the_median_of_what_is_not_zero():
    values = torch.randn(64, 64)
    values[::2] = 0
    values[1, 1] = 300.0
    sizes = np.abs(values.numpy()[values.numpy() != 0])
    assert look(values).outlier == pytest.approx(300 / (1.4826 * np.median(sizes)), rel=2e-3)
    assert look(values[:3, :60]).outlier is None  # too few


# --- Layouts


@pytest.mark.parametrize("groups", [1, 2])
def test_filters_of_a_transposed_convolution_are_what_one_input_channel_writes(groups):
    """An input of one pixel in channel i puts the kernel from i to o into output channel o."""
    layer = nn.ConvTranspose2d(4, 6, 3, groups=groups, bias=False)
    (found,) = weights_of_model(nn.Sequential(layer)).tensors
    filters = found.filters()
    assert filters.shape == (6, 4 // groups, 3, 3) and found.layout == (6, 4 // groups * 9)
    for channel in range(4):
        pixel = torch.zeros(1, 4, 1, 1)
        pixel[0, channel] = 1
        written = layer(pixel)[0]
        group, place = divmod(channel, 4 // groups)
        mine = slice(group * 6 // groups, (group + 1) * 6 // groups)
        torch.testing.assert_close(filters[mine, place], written[mine])


def test_filters_of_transformers_linear_layer_are_its_outputs():
    class Conv1D(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nf, self.weight = 3, nn.Parameter(torch.randn(5, 3))

    model = Conv1D()
    (found,) = weights_of_model(nn.ModuleDict({"c": model})).tensors
    assert (found.kind, found.transposed, found.layout) == ("linear", True, (3, 5))
    assert torch.equal(found.filters(), model.weight.T)


# --- Filters against each other


def cosines(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T / (norms * norms.T)


@pytest.mark.parametrize("exact", [True, False], ids=["every pair", "screened"])
@pytest.mark.parametrize("block", [128, 7])
def test_duplicates_are_found_as_by_comparing_every_pair(exact, block, monkeypatch):
    monkeypatch.setattr(similar, "EXACT", inf if exact else 0)
    monkeypatch.setattr(similar, "BLOCK", block)
    values = torch.randn(60, 40)
    values[7] = 2.5 * values[3]  # a copy, of another scale
    values[9] = values[3] + 1e-3 * torch.randn(40)
    values[20] = -values[21]  # no copy: the opposite
    values[30] = 0
    state = torch.get_rng_state()
    layer = look(values, "linear")
    assert torch.equal(torch.get_rng_state(), state)
    keep = [row for row in range(60) if row != 30]
    found = cosines(values.double().numpy()[keep])
    np.fill_diagonal(found, 0)
    assert layer.duplicates == (found.max(axis=1) > layer.duplicate_cosine).sum() == 3
    assert layer.duplicate_cosine == 0.995
    assert layer.largest_cosine == (pytest.approx(1.0, abs=1e-6) if exact else None)


def test_the_largest_cosine_has_no_sign_and_stays_within_a_group(monkeypatch):
    values = torch.randn(8, 3, 3, 3)
    values[6] = -values[5]
    values[4] = values[0]  # of another group
    rows = values.double().reshape(2, 4, 27).numpy()
    layer = look(values, groups=2)
    expected = max(np.abs(cosines(group) - np.eye(4)).max() for group in rows)
    assert (layer.largest_cosine, layer.duplicates) == (pytest.approx(expected, rel=1e-5), 0)
    assert look(values).duplicates == 2
    monkeypatch.setattr(similar, "EXACT", 0)
    values[1] = 3 * values[0]
    assert [look(values, groups=groups).duplicates for groups in (1, 2)] == [3, 2]


def test_filters_that_are_not_finite_are_like_none_and_not_dead():
    values = torch.randn(8, 30)
    values[1] = values[0]
    values[2] = values[0]
    values[2, 5] = nan
    values[3] = nan
    layer = look(values)
    assert (layer.duplicates, layer.dead, layer.nan) == (2, 0, 31)


def test_the_threshold_of_duplicates_is_the_formula_and_above_what_chance_gives():
    # By hand: 64 filters of 5 elements are 2016 pairs; (1e-3 / 2016)^(2/4) = 7.043e-4; sqrt(1 - 7.043e-4) = 0.999648
    assert duplicate_threshold(64, 1, 5) == pytest.approx(0.999648, abs=1e-6)
    assert duplicate_threshold(64, 1, 9) == 0.995
    assert duplicate_threshold(96, 1, 4) is None  # 0.99998
    assert duplicate_threshold(1, 32, 9) is None and duplicate_threshold(8, 1, 1) is None
    assert duplicate_threshold(32, 2, 6) == duplicate_threshold(2, 992, 6)  # 992 pairs in both
    assert sum(look(torch.randn(64, 5)).duplicates for _ in range(100)) <= 2  # 0.1 expected


def test_dead_filters_are_small_against_the_others_of_their_layer():
    values = torch.randn(16, 4, 3, 3) * 1e-4
    values[3] *= 9e-4
    values[5] = 0
    values[7] *= 0.01
    assert look(values).dead == 2
    assert look(values[:3, :1, :1, :1]).dead == look(values.flatten(1), "embedding").dead == 0


@pytest.mark.parametrize("small", [10_000, 0], ids=["all eigenvalues", "Lanczos"])
@pytest.mark.parametrize("shape", [(3, 50), (50, 3), (200, 300), (300, 700), (700, 280), (2100, 40), (12, PIECE // 2)])
def test_the_stable_rank_is_that_of_the_singular_values(shape, small, monkeypatch):
    monkeypatch.setattr(similar, "SMALL", small)
    values = torch.randn(shape) * 1e-3
    singular = np.linalg.svd(values.double().numpy(), compute_uv=False)
    assert look(values).stable_rank == pytest.approx((singular**2).sum() / singular[0] ** 2, rel=1e-4)


def test_the_stable_rank_of_equal_filters_is_one_and_of_orthogonal_ones_their_number():
    assert look(torch.ones(512, 300) * 0.3).stable_rank == pytest.approx(1)
    assert look(torch.eye(300)).stable_rank == pytest.approx(300)
    assert look(torch.linalg.qr(torch.randn(400, 290))[0]).stable_rank == pytest.approx(290, rel=1e-4)


def test_the_stable_rank_of_groups_is_the_lowest():
    values = torch.randn(12, 5, 3, 3)
    values[4:8] = torch.randn(1, 5, 3, 3) + 0.3 * torch.randn(4, 5, 3, 3)
    singular = [np.linalg.svd(group, compute_uv=False) for group in values.double().reshape(3, 4, 45).numpy()]
    assert look(values, groups=3).stable_rank == pytest.approx(min((s**2).sum() / s[0] ** 2 for s in singular), rel=1e-5)
    values[:4] = 0  # a group without a direction has no rank
    assert look(values, groups=3).stable_rank == pytest.approx(min((s**2).sum() / s[0] ** 2 for s in singular[1:]), rel=1e-5)
    assert look(torch.randn(12, 1, 3, 3), groups=12).stable_rank is None  # depthwise
    assert look(torch.randn(1, 20)).stable_rank is look(torch.randn(20, 1)).stable_rank is None


# --- Shapes of distributions

HEALTHY = {
    "normal": lambda n: torch.randn(n),
    "uniform": lambda n: torch.rand(n) - 0.5,
    "laplace": lambda n: torch.distributions.Laplace(0.0, 1.0).sample((n,)),
    "student": lambda n: torch.distributions.StudentT(3.0).sample((n,)),
    "cauchy": lambda n: torch.randn(n) / torch.randn(n),
    "truncated": lambda n: nn.init.trunc_normal_(torch.empty(n), std=1.0, a=-1.0, b=1.0),
    "bfloat16": lambda n: (torch.randn(n) * 0.02).bfloat16().float(),
    "two scales": lambda n: torch.randn(n) * torch.where(torch.rand(n) < 0.5, 0.1, 1.0),
}


@pytest.mark.parametrize("distribution", HEALTHY.values(), ids=HEALTHY)
def test_one_mode_has_no_valley(distribution):
    runs = [(64, 150), (300, 100), (5000, 40), (1_000_000, 1)]
    found = [valley(strided(values)) for size, times in runs for values in (distribution(size) for _ in range(times))]
    assert [depth for depth in found if depth] == []


@pytest.mark.parametrize(("size", "tolerance"), [(1000, 0.2), (20_000, 0.1), (1_000_000, 0.08)])
def test_two_modes_have_the_valley_of_their_density(size, tolerance):
    """Two normal distributions 4 apart: phi(2) against (phi(0) + phi(4)) / 2; the smoothing fills a little of it."""
    values = torch.randn(size) + 4 * (torch.rand(size) < 0.5)
    density = [np.exp(-(x**2) / 2) for x in (0, 2, 4)]
    expected = 1 - density[1] / ((density[0] + density[2]) / 2)
    found = look(values.reshape(-1, 100)).valley
    assert 0.5 <= found <= expected + 0.05
    assert found == pytest.approx(expected, abs=tolerance)


def test_there_is_no_valley_to_speak_of_in_few_or_pruned_weights():
    assert valley(torch.randn(63)) is None
    assert valley(torch.where(torch.rand(4000) < 0.2, 0.0, torch.randn(4000))) is None


# --- Neighbours


@pytest.mark.parametrize("kernel", [(5,), (1, 7), (3, 3), (2, 3, 4)])
def test_smoothness_is_the_sum_over_neighbours(kernel):
    values = torch.randn(6, 4, *kernel) + 0.5
    numbers, shared, size, spread = values.double().numpy(), 0.0, 0.0, 0.0
    for filter_, channel, place in product(range(6), range(4), np.ndindex(*kernel)):
        for axis in range(len(kernel)):
            other = tuple(p + (axis == k) for k, p in enumerate(place))
            if other[axis] < kernel[axis]:
                a, b = numbers[filter_, channel][place], numbers[filter_, channel][other]
                shared, size, spread = shared + a * b, size + (a * a + b * b) / 2, spread + (a * b) ** 2
    layer = look(values)
    assert (layer.smoothness, layer.smoothness_z) == (
        pytest.approx(shared / size, rel=1e-5),
        pytest.approx(shared / sqrt(spread), rel=1e-5),
    )


def test_constant_kernels_are_smooth_and_chessboards_the_opposite():
    chessboard = torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]])
    assert look(torch.randn(20, 3, 1, 1).expand(20, 3, 5, 5).contiguous()).smoothness == pytest.approx(1)
    assert look(chessboard.expand(4, 2, 3, 3).contiguous()).smoothness == pytest.approx(-1)
    assert look(torch.randn(4, 3, 1, 1)).smoothness is look(torch.randn(4, 3)).smoothness is None


@pytest.mark.parametrize("shape", [(8, 1, 3, 3), (64, 16, 3, 3), (16, 3, 7, 7), (32, 8, 5)], ids=str)
@pytest.mark.parametrize("draw", [torch.randn, lambda shape: torch.rand(shape) - 0.5], ids=["normal", "uniform"])
def test_the_smoothness_of_noise_is_standard_normal(shape, draw):
    found = np.array([look(draw(shape)).smoothness_z for _ in range(120)])
    assert abs(found.mean()) < 4 / sqrt(120)
    assert 0.75 < found.std() < 1.25  # 4 standard deviations of a standard deviation are 0.26
    assert np.abs(found).max() < 4


# --- Change


def test_a_change_is_what_numpy_says():
    this, other = torch.randn(30, 5, 3, 3), torch.randn(30, 5, 3, 3)
    a, b = (values.double().numpy().ravel() for values in (this, other))
    change = look(this, other=other).change
    assert change.relative == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(b), rel=1e-9)
    assert change.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-9)
    assert change.largest == pytest.approx(np.abs(a - b).max(), rel=1e-12)


def test_a_change_from_or_to_nothing():
    some, zero = torch.ones(4, 4), torch.zeros(4, 4)
    same, born, died, none = (look(a, other=b).change for a, b in ((some, some), (some, zero), (zero, some), (zero, zero)))
    assert (same.relative, same.cosine, same.largest) == (0, pytest.approx(1), 0)
    assert (born.relative, born.cosine) == (inf, None)
    assert (died.relative, died.cosine) == (1, None)
    assert (none.relative, none.cosine, none.largest) == (0, None, 0)


# --- What a model has


class Parts(nn.Module):
    """One of everything."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.up = nn.ConvTranspose1d(8, 4, 2)
        self.deep = nn.Conv3d(4, 2, 3)
        self.table = nn.Embedding(11, 6)
        self.attention = nn.MultiheadAttention(6, 2)
        self.mixed = nn.MultiheadAttention(6, 2, kdim=4, vdim=5)
        self.recurrent = nn.LSTM(4, 5)
        self.position = nn.Parameter(torch.zeros(1, 9, 6))
        self.head = nn.Linear(6, 11)


def test_every_weight_of_a_model_is_listed_once_in_its_order():
    found = weights_of_model(Parts())
    assert [(t.name, t.type, t.kind, t.shape, t.groups, t.transposed) for t in found.tensors] == [
        ("conv", "Conv2d", "conv2d", (8, 3, 3, 3), 1, False),
        ("depthwise", "Conv2d", "conv2d", (8, 1, 3, 3), 8, False),
        ("up", "ConvTranspose1d", "conv1d", (8, 4, 2), 1, True),
        ("deep", "Conv3d", "conv3d", (2, 4, 3, 3, 3), 1, False),
        ("table", "Embedding", "embedding", (11, 6), 1, False),
        ("attention.in_proj_weight", "MultiheadAttention", "linear", (18, 6), 1, False),
        ("attention.out_proj", "Linear", "linear", (6, 6), 1, False),
        ("mixed.q_proj_weight", "MultiheadAttention", "linear", (6, 6), 1, False),
        ("mixed.k_proj_weight", "MultiheadAttention", "linear", (6, 4), 1, False),
        ("mixed.v_proj_weight", "MultiheadAttention", "linear", (6, 5), 1, False),
        ("mixed.out_proj", "Linear", "linear", (6, 6), 1, False),
        ("recurrent.weight_ih_l0", "LSTM", "linear", (20, 4), 1, False),
        ("recurrent.weight_hh_l0", "LSTM", "linear", (20, 5), 1, False),
        ("head", "Linear", "linear", (11, 6), 1, False),
    ]
    assert [t.name for t in found.tensors if t.head] == ["head"]
    assert found.notes == ()


def test_a_tied_head_is_listed_as_its_first_owner():
    model = Parts()
    model.head.weight = model.table.weight
    model.again = model.conv
    found = weights_of_model(model).tensors
    assert [t.name for t in found][-1] == "recurrent.weight_hh_l0"
    assert [(t.name, t.kind) for t in found if t.head] == [("table", "embedding")]


def test_frozen_weights_are_not_trainable_and_a_bare_layer_has_a_name():
    layer = nn.Linear(3, 3).requires_grad_(False)
    (found,) = weights_of_model(layer).tensors
    assert (found.name, found.key, found.trainable, found.head) == ("weight", "weight", False, True)


def parametrised() -> nn.Sequential:
    return nn.Sequential(
        parametrizations.weight_norm(nn.Conv2d(3, 4, 3)),
        parametrizations.spectral_norm(nn.Conv2d(4, 4, 3)),
        nn.utils.spectral_norm(nn.Conv2d(4, 5, 3)),
        prune.random_unstructured(nn.Conv2d(5, 6, 3), "weight", 0.5),
    )


def test_a_computed_weight_is_the_one_that_forward_uses():
    model = parametrised()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.7)  # attributes that hooks keep are of yesterday now
    found = weights_of_model(model).tensors
    assert [(t.name, t.key, t.type, t.trainable) for t in found] == [(str(i), f"{i}.weight", "Conv2d", True) for i in range(4)]
    model.eval()
    x = torch.randn(1, 3, 12, 12)
    for weight, layer in zip(found, model, strict=True):
        torch.testing.assert_close(F.conv2d(x, weight.filters(), layer.bias), layer(x))
        x = layer(x)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_older_weight_norm_is_computed_anew():
    layer = nn.utils.weight_norm(nn.Linear(4, 3))
    layer.load_state_dict({name: value * 2 for name, value in layer.state_dict().items()})  # its attribute `weight` is that of before
    (found,) = weights_of_model(nn.Sequential(layer)).tensors
    x = torch.randn(2, 4)
    torch.testing.assert_close(F.linear(x, found.filters(), layer.bias), layer(x))


def test_looking_leaves_the_model_as_it_came():
    model = nn.ModuleDict({"computed": parametrised(), "parts": Parts()}).train()
    model["parts"].norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    numbers = torch.get_rng_state()
    kernels(model, against=model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(torch.get_rng_state(), numbers)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_what_cannot_be_looked_at_is_named():
    model = nn.ModuleDict(
        {
            "lazy": nn.LazyConv2d(4, 3),
            "meta": nn.Linear(3, 3, device="meta"),
            "complex": nn.Linear(3, 3, dtype=torch.complex64),
            "good": nn.Linear(3, 3),
        }
    )
    found = weights_of_model(model)
    assert [t.name for t in found.tensors] == ["good"]
    assert found.notes == (
        "left out, lazy, without a shape yet: lazy",
        "left out, without values, on the meta device: meta",
        "left out, complex: complex",
    )


@pytest.mark.filterwarnings("ignore")
def test_quantised_layers_and_models_without_weights_are_no_error():
    model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), {nn.Linear}, dtype=torch.qint8)
    assert weights_of_model(model) == Weights((), (), ("left out, quantised: 0",))
    assert kernels(nn.ReLU()).layers == ()


@pytest.mark.filterwarnings("ignore")
def test_a_scripted_model_shows_what_its_source_shows():
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), nn.ConvTranspose2d(6, 4, 2), nn.Linear(4, 4)).eval()
    expected, found = weights_of_model(model), weights_of_model(torch.jit.script(model))
    facts = [[(t.name, t.type, t.kind, t.groups, t.transposed, t.normalised) for t in weights.tensors] for weights in (expected, found)]
    assert facts[0] == facts[1] and expected.norms == found.norms


def test_running_statistics_are_described():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm1d(4, affine=False), nn.InstanceNorm2d(5), nn.BatchNorm2d(6), nn.BatchNorm2d(2))
    model[1].running_var.copy_(torch.tensor([1.0, -0.5, nan, 2.0]))
    with torch.no_grad():
        model[3].weight.zero_()  # as residual blocks begin
        model[4].weight[1] = 1.1
    found = [
        (n.name, n.type, n.features, n.nonfinite, n.least_variance, n.untouched, n.affine_moved) for n in weights_of_model(model).norms
    ]
    assert found == [
        ("0", "BatchNorm2d", 3, 0, 1.0, True, False),
        ("1", "BatchNorm1d", 4, 1, -0.5, False, None),
        ("3", "BatchNorm2d", 6, 0, 1.0, True, False),
        ("4", "BatchNorm2d", 2, 0, 1.0, True, True),
    ]


class Grouped(nn.Module):
    """Registers layers by kind, and not as they run."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.norm1, self.norm2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)


class Residual(nn.Module):
    """A branch that ends in a linear layer, in a block that begins with a normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.branch = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3)), [True, False]),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(8, 4)), [True, False]),
        (nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), nn.BatchNorm2d(8)), [True]),
        (nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3)), nn.Sequential(nn.Conv2d(8, 8, 3))), [False, False]),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(11)), [None]),  # of something else
        (Grouped(), [None, True]),
        (nn.Sequential(Residual(), Residual(), nn.Linear(8, 2)), [False, None, False, None, False]),
        (nn.Sequential(nn.Embedding(5, 8), nn.LayerNorm(8)), [True]),
        (nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 8)), [None, False]),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.LocalResponseNorm(2), nn.Conv2d(8, 8, 3)), [False, False]),
    ],
    ids=["batch", "group", "nested", "none", "other", "grouped", "residual", "embedding", "bare embedding", "response"],
)
def test_whether_a_normalisation_follows_is_said_where_it_is_known(model, expected):
    assert [t.normalised for t in weights_of_model(model).tensors] == expected


# --- What a checkpoint has


def stored(tmp_path, state, look_at, model=None) -> object:
    torch.save(state, tmp_path / "x.pt")
    archive = read_archive(tmp_path / "x.pt")
    with Storages(archive) as storages:
        return look_at(weights_of_group(archive.groups[0], storages, model))


class Small(nn.Module):
    """A network whose checkpoint tells all but one thing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 4, 2)
        self.audio = parametrizations.weight_norm(nn.Conv1d(4, 4, 5))
        self.computed = nn.utils.spectral_norm(nn.Linear(4, 4))
        self.pruned = prune.random_unstructured(nn.Linear(4, 4), "weight", 0.5)
        self.tokens = nn.Embedding(9, 6)
        self.norm = nn.LayerNorm([4, 3, 3])
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 6))
        self.mask = nn.Buffer(torch.zeros(4, 4)) if hasattr(nn, "Buffer") else None
        self.counts = nn.Parameter(torch.zeros(4, 4, dtype=torch.int64), requires_grad=False)
        self.head = nn.Linear(6, 9, bias=False)
        self.head.weight = self.tokens.weight


@pytest.mark.parametrize("wrap", [lambda name: name, lambda name: f"module.{name}", lambda name: f"model._orig_mod.{name}"])
@pytest.mark.parametrize("known", [False, True], ids=["shapes alone", "with a model"])
def test_a_checkpoint_alone_tells_what_its_model_tells(tmp_path, wrap, known):
    model = Small().eval()
    expected = weights_of_model(model)

    def facts(weights: Weights) -> list[tuple[object, ...]]:
        return [(t.name, t.kind, t.shape, t.groups, t.transposed, t.normalised, t.head) for t in weights.tensors]

    def check(found: Weights) -> None:
        assert facts(found) == facts(expected)
        assert [t.type for t in found.tensors] == [t.type if known else "" for t in expected.tensors]
        for here, there in zip(found.tensors, expected.tensors, strict=True):
            torch.testing.assert_close(here.filters(), there.filters())
        assert [(n.name, n.untouched, n.affine_moved) for n in found.norms] == [("stem.1", True, False), ("bn", True, False)]
        assert all(name in " ".join(found.notes) for name in ("pos_embed", "counts"))

    stored(tmp_path, {wrap(name): value for name, value in model.state_dict().items()}, check, skeleton(model) if known else None)


def test_groups_are_known_with_a_model_only(tmp_path):
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=2))
    assert stored(tmp_path, model.state_dict(), lambda found: found.tensors[0].groups) == 1
    assert stored(tmp_path, model.state_dict(), lambda found: found.tensors[0].groups, skeleton(model)) == 2


def test_linear_layers_stored_the_other_way_round_are_known_by_their_bias(tmp_path):
    state = {
        "a.c_fc.weight": torch.randn(4, 16),
        "a.c_fc.bias": torch.zeros(16),
        "b.c_fc.weight": torch.randn(4, 4),
        "b.c_fc.bias": torch.zeros(4),
    }
    assert stored(tmp_path, state, lambda found: [t.layout for t in found.tensors]) == [(16, 4), (4, 4)]
    assert stored(tmp_path, state, lambda found: [t.transposed for t in found.tensors]) == [True, True]  # the square one, by its name


# --- The whole


def test_the_default_scale_is_what_fresh_layers_have():
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(16, 64, 3, groups=2),
            "up": nn.ConvTranspose2d(64, 24, 3),
            "linear": nn.Linear(200, 100),
            "table": nn.Embedding(100, 100),
            "attention": nn.MultiheadAttention(80, 2),
            "lstm": nn.LSTM(30, 60),
        }
    )
    found = {t.name: default_std(t) for t in weights_of_model(model).tensors}
    assert found.pop("lstm.weight_ih_l0") is None
    fresh = initial_scales(model)
    assert {name: pytest.approx(fresh[name], rel=0.05) for name in found} == found
    weight = model["conv"].weight.detach().double().numpy()
    assert fresh["conv"] == pytest.approx(weight.std(), rel=1e-6)


def test_layers_are_chosen_and_keep_their_numbers():
    report = kernels(Parts(), layer=["Conv*", "-1"])
    assert [(layer.index, layer.name) for layer in report.layers] == [(0, "conv"), (1, "depthwise"), (2, "up"), (3, "deep"), (13, "head")]
    assert (report.model, report.initialised, report.against) == ("Parts", None, None)
    with pytest.raises(LayerNotFound):
        kernels(Parts(), layer="layer5")


def test_one_thread_measures_and_the_others_are_given_back():
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        measure(weights_of_model(nn.Linear(3, 4)), step=lambda: seen.append(torch.get_num_threads()))
        with pytest.raises(ZeroDivisionError):
            measure(weights_of_model(nn.Linear(3, 4)), step=lambda: 1 // 0)
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_initial_scales_come_from_the_constructor_where_it_is_known():
    weights = weights_of_model(nn.Sequential(nn.Linear(9, 4), nn.Linear(4, 3)))
    first, second = measure(weights, initial={"0": 0.5})
    assert (first.initial_std, first.initial_source) == (0.5, "constructor")
    assert (second.initial_std, second.initial_source) == (pytest.approx(1 / sqrt(12)), "torch's default")


@pytest.mark.parametrize("as_state", [False, True])
def test_two_states_of_a_model_are_compared_by_name(as_state):
    model, other = Parts(), Parts()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other.head.weight.mul_(2)
    other.deep = nn.Conv3d(4, 3, 3)  # of another shape
    del other.recurrent
    against = {f"module.{name}": value for name, value in other.state_dict().items()} if as_state else other
    report = kernels(model, against=against)
    moved = {layer.name: layer.change for layer in report.layers}
    assert moved["head"].relative == pytest.approx(0.5) and moved["conv"].relative == 0
    assert moved["deep"] is moved["recurrent.weight_hh_l0"] is None
    assert report.notes == (
        "not compared, for the other has none of that name: recurrent.weight_ih_l0, recurrent.weight_hh_l0",
        "not compared, for the other is of another shape: deep",
    )
