"""Every method against its paper: the equation as loops over channels and places in float64, closed forms, and captum."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from netlens.lenses.gradcam import choices, methods, perturbing
from sample_models.shapes import ShapeViT

Array = np.ndarray[Any, Any]
Score = Callable[[Array], float]
TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-10}  # of the map's largest number
GRIDS = {"picture": (3, 5), "sequence": (7,), "video": (2, 3, 4), "one place": (1, 1)}


# -- the papers, slowly: A and g are (C, *grid), y is a score -------------------------------------------------------------------------


def slow_gradcam(a: Array, g: Array) -> Array:
    """Selvaraju et al. 2017: eq. 1 alpha_k = 1/Z sum_ij dy/dA_ij; eq. 2 without ReLU."""
    weights = [sum(g[k][at] for at in np.ndindex(a.shape[1:])) / g[k].size for k in range(len(a))]
    return combined(a, weights)


def slow_gradcampp(a: Array, g: Array) -> Array:
    """Chattopadhyay et al. 2018: eq. 19 alpha = g^2 / (2 g^2 + sum_ab A_ab g^3), which is 0 where g is; eq. 7 w_k = sum alpha relu(g)."""
    weights = []
    for channel, slopes in zip(a, g, strict=True):
        weight, total = 0.0, sum(channel[at] for at in np.ndindex(channel.shape))
        for at in np.ndindex(channel.shape):
            slope = slopes[at]
            alpha = slope**2 / (2 * slope**2 + total * slope**3) if slope != 0 else 0.0
            weight += alpha * max(slope, 0.0)
        weights.append(weight)
    return combined(a, weights)


def slow_xgradcam(a: Array, g: Array) -> Array:
    """Fu et al. 2020: alpha_k = sum_xy (F_k(x, y) / sum_xy F_k(x, y)) dS/dF_k(x, y); 0 for a channel that is 0."""
    weights = []
    for channel, slopes in zip(a, g, strict=True):
        total = sum(channel[at] for at in np.ndindex(channel.shape))
        weights.append(sum(channel[at] / total * slopes[at] for at in np.ndindex(channel.shape)) if channel.any() else 0.0)
    return combined(a, weights)


def slow_hirescam(a: Array, g: Array) -> Array:
    """Draelos and Carin 2020: sum_k dy/dA_k (element by element) A_k."""
    found = np.zeros(a.shape[1:])
    for k in range(len(a)):
        for at in np.ndindex(found.shape):
            found[at] += g[k][at] * a[k][at]
    return found


def slow_layercam(a: Array, g: Array) -> Array:
    """Jiang et al. 2021: w_ij = relu(g_ij), sum_k w_ij A_ij."""
    found = np.zeros(a.shape[1:])
    for k in range(len(a)):
        for at in np.ndindex(found.shape):
            found[at] += max(g[k][at], 0.0) * a[k][at]
    return found


def slow_eigencam(a: Array) -> Array:
    """Muhammad and Yeasin 2020: A = U S V^T of places x channels; A V_1. The sign: the number that is largest in magnitude is positive."""
    places = np.stack([[a[k][at] for k in range(len(a))] for at in np.ndindex(a.shape[1:])])
    found = places @ np.linalg.svd(places)[2][0]
    return np.asarray((found if found.max() >= -found.min() else -found).reshape(a.shape[1:]))


def slow_scorecam(a: Array, y: Score, size: Sequence[int]) -> Array:
    """Wang et al. 2020, algorithm 1, with `y` the score of a sample times a mask; constant channels have no mask and are passed over."""
    asked = [k for k in range(len(a)) if a[k].max() > a[k].min()]
    increases = []
    for k in asked:
        large = enlarged(a[k], size)
        increases.append(y((large - large.min()) / (large.max() - large.min())) - y(np.zeros(size)))
    total = sum(math.exp(increase) for increase in increases)
    weights = dict(zip(asked, (math.exp(increase) / total for increase in increases), strict=True))
    return combined(a, [weights.get(k, 0.0) for k in range(len(a))])


def slow_ablationcam(a: Array, y: Score) -> Array:
    """Desai and Ramaswamy 2020: w_k = (y - y_k) / y, with `y` the score of an activation."""
    weights = []
    for k in range(len(a)):
        without = a.copy()
        without[k] = 0
        weights.append((y(a) - y(without)) / y(a))
    return combined(a, weights)


def combined(a: Array, weights: Sequence[float]) -> Array:
    found = np.zeros(a.shape[1:])
    for channel, weight in zip(a, weights, strict=True):
        found += weight * channel
    return found


def enlarged(values: Array, size: Sequence[int]) -> Array:
    """Linear interpolation, one axis after the other: the middle of output place i lies at (i + 1/2) n / m - 1/2, not beyond the ends."""
    for axis, sides in enumerate(size):
        rows = np.moveaxis(values, axis, 0)
        found = []
        for i in range(sides):
            at = min(max((i + 0.5) * len(rows) / sides - 0.5, 0.0), len(rows) - 1.0)
            low = int(at)
            high = min(low + 1, len(rows) - 1)
            found.append((1 - (at - low)) * rows[low] + (at - low) * rows[high])
        values = np.moveaxis(np.stack(found), 0, axis)
    return values


SLOW = {
    "gradcam": slow_gradcam,
    "gradcam++": slow_gradcampp,
    "xgradcam": slow_xgradcam,
    "hirescam": slow_hirescam,
    "layercam": slow_layercam,
}


def close(found: Tensor, truth: Array | Iterable[Array], dtype: torch.dtype = torch.float64) -> None:
    """Require each sample's map to be as near to the paper as its type allows."""
    truth = np.stack(list(truth)) if not isinstance(truth, np.ndarray) else truth[None]
    found = found if found.dim() == truth.ndim else found[None]
    assert found.dtype == dtype
    assert found.shape == truth.shape
    for one, true in zip(found.double().numpy(), truth, strict=True):
        assert np.abs(one - true).max() <= TOLERANCES[dtype] * np.abs(true).max()


def given(grid: tuple[int, ...], channels: int = 9, samples: int = 3) -> tuple[Tensor, Tensor]:
    """Activations of both signs and gradients, with what is awkward in them; float64, and exact in float32."""
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(samples, channels, *grid, generator=generator) + 0.2
    g = 0.05 * torch.randn(samples, channels, *grid, generator=generator)
    a[:, 0] = 0  # a dead channel
    a[:, 1] = 0.75  # a constant one
    a[0, 2] = -40  # so negative that 2 + sum(A) g is
    g[0, 2] = 0.5
    g[0, 3] = 0
    g[-1] = 0  # nothing depends on this sample
    total = a.flatten(2).sum(2)[..., None]
    assert (2 + total * g.flatten(2).clamp(min=0)).abs().min() > 0.1  # no pole of Grad-CAM++
    return a.double(), g.double()


# -- random tensors -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("name", SLOW)
def test_methods_of_the_gradient_are_their_papers(name: str, grid: tuple[int, ...], dtype: torch.dtype) -> None:
    a, g = given(grid)
    truth = [SLOW[name](one.numpy(), slope.numpy()) for one, slope in zip(a, g, strict=True)]

    found = methods.GRADIENT[name](a.to(dtype), g.to(dtype))

    close(found, truth, dtype)
    assert not found[-1].any()  # the gradient of the last sample is 0


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("grid", [*GRIDS.values(), (5, 6)])  # fewer places than channels, and more
def test_eigencam_is_the_first_singular_vector_with_its_sign_fixed(grid: tuple[int, ...], dtype: torch.dtype) -> None:
    a, _ = given(grid)
    a[1] *= -1  # the same direction with the other sign

    close(methods.eigencam(a.to(dtype)), [slow_eigencam(one.numpy()) for one in a], dtype)


def test_eigencam_of_one_pattern_is_that_pattern() -> None:
    """Of A_k = c_k P the singular vector is c / |c|: the map is |c| P, here 5 P with its -7 turned to 7; of zeros it is 0, of nan nan."""
    pattern = torch.tensor([[1.0, 0.0, 2.0], [3.0, -7.0, 1.0]])
    a = torch.stack([3 * pattern, -4 * pattern, 0 * pattern])
    broken = a.clone()
    broken[0, 0, 0] = torch.nan

    found = methods.eigencam(torch.stack([a, 0 * a, broken, a / 0]))

    torch.testing.assert_close(found[0], -5 * pattern)
    assert not found[1].any()
    assert found[2:].isnan().all()


def test_cam_weights_channels_by_the_row_of_the_class() -> None:
    a, _ = given((3, 5))
    weights = torch.randn(3, 9, generator=torch.Generator().manual_seed(0)).double()

    close(methods.cam(a, weights), [combined(one.numpy(), row.tolist()) for one, row in zip(a, weights, strict=True)])


def test_finer_scores_take_off_the_closest_classes() -> None:
    """Of scores (5, 1, 4, 4.5, 9, 8): to 5 the closest are 4.5, 4 and 8; to 9 they are 8, 5 and 4.5."""
    scores = torch.tensor([[5, 1, 4, 4.5, 9, 8]] * 2, dtype=torch.float64, requires_grad=True)

    found = methods.finer_scores(scores, torch.tensor([0, 4]))

    expected = torch.tensor([5 - 0.6 * (4.5 + 4 + 8) / 3, 9 - 0.6 * (8 + 5 + 4.5) / 3], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    (slopes,) = torch.autograd.grad(found.sum(), scores)
    torch.testing.assert_close(slopes[0], torch.tensor([1, 0, -0.2, -0.2, 0, -0.2], dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_finer_scores_of_few_classes() -> None:
    """Two classes: the other one alone; one: nothing is similar."""
    torch.testing.assert_close(methods.finer_scores(torch.tensor([[2.0, 1.0]]), torch.tensor([0])), torch.tensor([2 - 0.6]))
    torch.testing.assert_close(methods.finer_scores(torch.tensor([[2.0]]), torch.tensor([0])), torch.tensor([2.0]))


# -- closed forms and awkward numbers -----------------------------------------------------------------------------------------------


def test_four_methods_are_one_for_a_global_average_pool_head() -> None:
    """For pool and linear dy/dA_k = w_k / Z everywhere: Grad-CAM, HiResCAM, XGrad-CAM and CAM / Z are equal."""
    a, _ = given((4, 6))
    a.requires_grad_()
    head = nn.Linear(9, 5).double()
    targets = torch.tensor([0, 3, 3])
    head(a.mean((2, 3))).gather(1, targets[:, None]).sum().backward()
    assert a.grad is not None
    a, gradient = a.detach(), a.grad

    truth = [combined(one.numpy(), head.weight[target].tolist()) / 24 for one, target in zip(a, targets, strict=True)]

    close(methods.cam(a, head.weight[targets].detach()) / 24, truth)
    for method in (methods.gradcam, methods.hirescam, methods.xgradcam):
        close(method(a, gradient), truth)


@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e6])
def test_gradcampp_holds_at_any_scale_of_the_gradient(scale: float) -> None:
    """In float32, whose smallest number is 1e-45: an epsilon of 1e-7 would leave nothing of a gradient of 1e-20."""
    a, g = (tensor.abs() for tensor in given((3, 5)))
    g = (g * scale).float()

    found = methods.gradcampp(a.float(), g)

    close(
        found / scale, [slow_gradcampp(one.numpy(), slope.double().numpy()) / scale for one, slope in zip(a, g, strict=True)], torch.float32
    )


@pytest.mark.parametrize(("total", "weight"), [(-2.0, 1e3), (-1.9995, 1e3), (-2.0005, -1e3), (-1.99, 100.0), (-2.01, -100.0)])
def test_gradcampp_near_its_pole(total: float, weight: float) -> None:
    """One place with g = 1: w = 1 / (2 + A), but not beyond +-1000, and w A is the map."""
    a = torch.tensor([[[total]]], dtype=torch.float64)

    torch.testing.assert_close(methods.gradcampp(a, torch.ones_like(a)), weight * a[:, 0], rtol=1e-9, atol=0)


def test_xgradcam_leaves_out_channels_that_cancel() -> None:
    """1 - 1 + 1e-7 is 0, up to the rounding of float32: no weight can be had from such a channel."""
    a = torch.tensor([[[1.0, -1.0, 1e-7], [1.0, 2.0, 1.0], [0.0, 0.0, 0.0]]])
    g = torch.tensor([[[1.0, 5.0, 2.0], [1.0, 0.0, 3.0], [1.0, 1.0, 1.0]]])

    torch.testing.assert_close(methods.xgradcam(a, g), torch.tensor([[1.0, 2.0, 1.0]]))  # (1 * 1 + 3 * 1) / 4 = 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    """1000 x 100 is beyond float16, and 1 + 1/512 is 1 in bfloat16."""
    a, g = torch.full((1, 2, 1000), 100, dtype=dtype), torch.full((1, 2, 1000), 1 / 512, dtype=dtype)
    g[0, 0, 0] = 1
    w = (1 + 999 / 512) / 1000
    expected = {"gradcam": 100 * (w + 1 / 512), "xgradcam": 100 * (w + 1 / 512), "hirescam": 100 / 256, "layercam": 100 / 256}

    for name, value in expected.items():
        found = methods.GRADIENT[name](a, g)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found[0, -1].item(), value, rtol=1e-5, atol=0)
    plus = 1 / (2 + 1e5) + 999 / 512 / (2 + 1e5 / 512), 1000 / 512 / (2 + 1e5 / 512)
    torch.testing.assert_close(methods.gradcampp(a, g)[0, -1].item(), 100 * sum(plus), rtol=1e-5, atol=0)
    torch.testing.assert_close(methods.eigencam(a)[0, -1].item(), 100 * math.sqrt(2), rtol=1e-5, atol=0)
    torch.testing.assert_close(methods.cam(a, g[:, :, 1])[0, -1].item(), 100 / 256, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", SLOW)
def test_what_is_not_finite_stays_so(name: str) -> None:
    a, g = given((3, 5))
    a[0, 4, 1, 2], g[1, 4, 1, 2] = torch.nan, torch.nan

    found = methods.GRADIENT[name](a, g)

    assert found[0, 1, 2].isnan()
    assert found[1, 1, 2].isnan()
    assert found[2].isfinite().all()


# -- Score-CAM and Ablation-CAM -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize(
    ("grid", "size"), [((3, 5), (12, 17)), ((7,), (20,)), ((2, 3, 4), (4, 9, 8)), ((6, 5), (4, 4))], ids=["up", "1-D", "video", "down"]
)
def test_scorecam_is_its_algorithm(grid: tuple[int, ...], size: tuple[int, ...], chunk: int) -> None:
    """The score is a linear function of the masked sample, so that masks must be right at every pixel; three channels are constant."""
    a = given(grid)[0][0]
    pattern = torch.randn(size, generator=torch.Generator().manual_seed(1)).double()
    asked: list[int] = []

    def masked(masks: Tensor) -> Tensor:
        asked.append(len(masks))
        return (masks * pattern).flatten(1).sum(1) - 3

    found = perturbing.scorecam(a, masked, size, chunk=chunk)

    a[2] = 0  # constant as well: passed over, so nothing of its -40 may be in the map
    close(found, slow_scorecam(a.numpy(), lambda mask: float((mask * pattern.numpy()).sum()) - 3, size))
    assert sum(asked) == 6
    assert max(asked) == min(chunk, 6)


def test_scorecam_of_some_channels_takes_those_that_vary_most() -> None:
    """Channels vary by their factor, however large they are: 3 and 2 remain, and their increases share the softmax."""
    pattern = torch.tensor([1.0, -1.0, 2.0, 5.0], dtype=torch.float64)
    a = torch.stack([0 * pattern, 3 * pattern, pattern + 100, 2 * pattern])
    calls: list[Tensor] = []

    def masked(masks: Tensor) -> Tensor:
        calls.append(masks)
        return torch.tensor([0.0, math.log(3)], dtype=torch.float64)

    found = perturbing.scorecam(a, masked, (4,), chunk=8, top_channels=2)

    torch.testing.assert_close(found, (3 * 0.25 + 2 * 0.75) * pattern)
    torch.testing.assert_close(calls, [((pattern + 1) / 6).expand(2, 4)])


def test_scorecam_of_masks_that_become_constant() -> None:
    """Brought to one pixel a mask has no range: it is 0, the scores are equal, and so are the weights."""
    a = torch.tensor([[1.0, 2.0], [4.0, 0.0]])

    torch.testing.assert_close(perturbing.scorecam(a, lambda masks: masks.sum(1), (1,), chunk=9), torch.tensor([2.5, 1.0]))


def test_perturbing_methods_keep_what_is_not_finite() -> None:
    a = torch.tensor([[1.0, 2.0], [torch.nan, 0.0]])

    assert perturbing.scorecam(a, lambda masks: masks.sum(1), (4,), chunk=9).isnan().all()
    assert perturbing.ablationcam(a, lambda channels: torch.ones(len(channels)), 2.0, chunk=9)[0].isnan()


def test_scorecam_and_ablationcam_of_nothing_ask_for_nothing() -> None:
    def never(_: Any) -> Tensor:
        raise AssertionError

    assert not perturbing.scorecam(torch.ones(3, 2, 2), never, (4, 4), chunk=2).any()
    assert not perturbing.ablationcam(torch.zeros(3, 2, 2), never, 1.0, chunk=2).any()


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("sign", [1, -1])
def test_ablationcam_is_its_equation(chunk: int, sign: int) -> None:
    """For y < 0 the map is the equation's times -1: what y falls without speaks for the class."""
    a = given((3, 5))[0][1]
    pattern = torch.randn(a.shape, generator=torch.Generator().manual_seed(1)).double()

    def score(tensor: Any) -> Any:
        return (tensor * (pattern.numpy() if isinstance(tensor, np.ndarray) else pattern)).sum((-3, -2, -1)) + 50 * sign

    asked: list[int] = []

    def ablated(channels: list[int]) -> Tensor:
        asked.extend(channels)
        copies = a.repeat(len(channels), 1, 1, 1)
        copies[range(len(channels)), channels] = 0
        return torch.as_tensor(score(copies))

    assert math.copysign(1, float(score(a))) == sign
    found = perturbing.ablationcam(a, ablated, float(score(a)), chunk=chunk)

    close(found, sign * slow_ablationcam(a.numpy(), lambda one: float(score(one))))
    assert asked == list(range(1, 9))  # channel 0 is 0 already


def test_ablationcam_where_there_is_no_score_to_divide_by() -> None:
    """Of y = 0 the weights are differences over 1e-6: the picture is the same, the numbers are finite."""
    a = torch.tensor([[1.0, 2.0], [4.0, 0.0]])

    found = perturbing.ablationcam(a, lambda channels: torch.tensor([-2.0, 1.0])[channels], 0.0, chunk=9)

    torch.testing.assert_close(found, torch.tensor([2 - 4, 4.0]) * 1e6)


# -- several layers -----------------------------------------------------------------------------------------------------------------

DEEP = torch.tensor([[[4.0, -8.0], [1.0, 0.0]], [[-1.0, -1.0], [-1.0, -1.0]]])  # the second sample has no positive number
MIDDLE = torch.arange(32.0).view(2, 4, 4) - 3
FINE = torch.linspace(-1, 3, 128).view(2, 8, 8)


def of_maximum(values: Tensor) -> Array:
    positive = np.maximum(values.numpy(), 0)
    return np.asarray(positive / (positive.max() or 1))


def test_fused_layercam_scales_shallow_layers_and_takes_the_largest_number() -> None:
    """8 x 8 is four times as fine as 2 x 2, as stage 3 of VGG is to stage 5; 4 x 4 is not."""
    truth = []
    for deep, middle, fine in zip(DEEP, MIDDLE, FINE, strict=True):
        parts = [enlarged(of_maximum(deep), (8, 8)), enlarged(of_maximum(middle), (8, 8)), np.tanh(2 * of_maximum(fine))]
        truth.append(np.maximum(np.maximum(parts[0], parts[1]), parts[2]))

    for maps in ([DEEP, MIDDLE, FINE], [FINE, DEEP, MIDDLE]):
        close(methods.fuse(maps, "layercam"), truth, torch.float32)


def test_other_fused_maps_are_means() -> None:
    truth = [(enlarged(of_maximum(deep), (4, 4)) + of_maximum(middle)) / 2 for deep, middle in zip(DEEP, MIDDLE, strict=True)]

    close(methods.fuse([MIDDLE, DEEP], "gradcam"), truth, torch.float32)


def test_fused_sequences_videos_and_grids_of_which_neither_is_the_larger() -> None:
    for first, second, largest in (((3,), (6,), (6,)), ((2, 3, 4), (2, 6, 8), (2, 6, 8)), ((2, 6), (4, 3), (4, 6))):
        a, b = (torch.rand(1, *grid, generator=torch.Generator().manual_seed(4)).double() for grid in (first, second))
        truth = (enlarged(of_maximum(a[0]), largest) + enlarged(of_maximum(b[0]), largest)) / 2
        close(methods.fuse([a, b], "hirescam"), truth)


def test_one_layer_is_left_as_it_is() -> None:
    assert methods.fuse([DEEP], "layercam") is DEEP


# -- real models: float32 against the papers in float64 ------------------------------------------------------------------------------


class Functional(nn.Module):
    """A convolution before an in-place ReLU, which overwrites what the layer put out."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2)
        self.layer = nn.Conv2d(8, 12, 3)
        self.last = nn.Conv2d(12, 10, 3)
        self.head = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Score 5 classes."""
        x = self.layer(self.first(x).relu_()).relu_()
        return torch.as_tensor(self.head(self.last(x).relu_().mean((2, 3))))


def resnet18() -> tuple[nn.Module, str, tuple[int, ...]]:
    from torchvision.models import resnet18 as build

    return build(num_classes=11), "layer4", (2, 3, 96, 64)


def in_place() -> tuple[nn.Module, str, tuple[int, ...]]:
    return Functional(), "layer", (2, 3, 24, 40)


def hardswish() -> tuple[nn.Module, str, tuple[int, ...]]:
    head = (nn.Conv2d(12, 12, 3), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5))
    return nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.Hardswish(), nn.Conv2d(8, 12, 3), nn.Hardswish(), *head), "3", (2, 1, 20, 36)


def vit() -> tuple[nn.Module, str, tuple[int, ...]]:
    return ShapeViT(), "blocks.1.norm1", (2, 3, 64, 64)


MODELS = [resnet18, in_place, hardswish, vit]


def built(make: Callable[[], tuple[nn.Module, str, tuple[int, ...]]]) -> tuple[nn.Module, str, Tensor]:
    """Return a model whose normalisation has statistics as if learned, the name of its layer, and inputs."""
    torch.manual_seed(5)
    model, name, shape = make()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, std=0.3)
    return model.eval(), name, torch.randn(shape)


def as_grid(output: Tensor) -> Tensor:
    """Tokens of the ViT, behind their class token, as (N, C, 8, 8)."""
    return output[:, 1:].transpose(1, 2).unflatten(2, (8, 8)) if output.dim() == 3 else output


def taken(model: nn.Module, name: str, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores, activation and gradient; the layer's output is kept apart from what goes on, which may be overwritten."""
    outputs: list[Tensor] = []

    def keep(_layer: nn.Module, _args: Any, output: Tensor) -> Tensor:
        outputs.append(output)
        return output.clone()

    handle = model.get_submodule(name).register_forward_hook(keep)
    scores = model(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(scores.gather(1, targets[:, None]).sum(), outputs[0])
    return scores.detach(), as_grid(outputs[0].detach()), as_grid(gradient)


@pytest.mark.parametrize("make", MODELS)
def test_maps_of_real_models_are_those_of_the_papers(make: Callable[[], tuple[nn.Module, str, tuple[int, ...]]]) -> None:
    model, name, x = built(make)
    targets = model(x).argmin(1)  # not the class that is predicted
    _, a, g = taken(model, name, x, targets)
    _, exact, slopes = taken(copy.deepcopy(model).double(), name, x.double(), targets)

    for method, slow in SLOW.items():
        truth = [slow(one.numpy(), slope.numpy()) for one, slope in zip(exact, slopes, strict=True)]
        assert all(np.abs(true).max() > 0 for true in truth)
        close(methods.GRADIENT[method](a, g), truth, torch.float32)
    close(methods.eigencam(a), [slow_eigencam(one.numpy()) for one in exact], torch.float32)


def test_perturbing_methods_of_a_real_model() -> None:
    model, _, x = built(hardswish)
    model, x = model.double(), x[:1].double()
    body, tail = model[:4], model[4:]  # type: ignore[index]
    with torch.no_grad():
        a = body(x)[0]
        target = int(model(x).argmax())
        score = float(model(x)[0, target])

        def without(channels: list[int]) -> Tensor:
            edited = a.repeat(len(channels), 1, 1, 1)
            edited[range(len(channels)), channels] = 0
            return torch.as_tensor(tail(edited)[:, target])

        ablation = perturbing.ablationcam(a.float(), without, score, chunk=5)
        masking = perturbing.scorecam(a.float(), lambda masks: model(x * masks[:, None])[:, target].float(), x.shape[2:], chunk=5)
        assert score > 0
        close(ablation, slow_ablationcam(a.numpy(), lambda one: float(tail(torch.from_numpy(one)[None])[0, target])), torch.float32)
        truth = slow_scorecam(a.numpy(), lambda mask: float(model(x * torch.from_numpy(mask))[0, target]), x.shape[2:])
    close(masking, truth, torch.float32)


@pytest.mark.parametrize("make", [in_place, hardswish])
def test_gradcam_is_captums(make: Callable[[], tuple[nn.Module, str, tuple[int, ...]]]) -> None:
    attr = pytest.importorskip("captum.attr")
    model, name, x = built(make)
    targets = torch.tensor([1, 3])
    _, a, g = taken(model, name, x, targets)

    captum = attr.LayerGradCam(model, model.get_submodule(name)).attribute(x, targets)[:, 0].detach()

    close(methods.gradcam(a, g), list(captum.double().numpy()), torch.float32)


def test_every_method_of_the_gradient_is_there() -> None:
    assert set(methods.GRADIENT) == {name for name, method in choices.METHODS.items() if method.needs == "gradient"}
