"""Hand-derived cases: what goes in, what comes out, and forwards that look at values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal

from tests.lenses.summary_case import Case, Function, Net, floats, parameter


@dataclass
class Prediction:
    logits: Tensor
    hidden: tuple[Tensor, ...]
    loss: Tensor | None = None


def with_fc(run: Any) -> Any:
    """A builder of: one Linear(4, 3) called `fc` (15 parameters, 12 MACs a row) and `run`."""
    return lambda: Net(run, fc=nn.Linear(4, 3))


def forget(net: Any, x: Tensor) -> None:
    net.fc(x)


def masked(net: Any, ids: Tensor, mask: Tensor) -> Tensor:
    x = net.embedding(ids)
    if not mask.all():
        x = x * mask[..., None]
    return net.fc(x)


def until_padding(net: Any, ids: Tensor) -> Tensor:
    length = int((ids != 0).sum(1).max().item())
    return net.fc(net.embedding(ids[:, :length]))


def with_positions(net: Any, ids: Tensor) -> Tensor:
    device = net.tokens.weight.device
    positions = torch.arange(ids.shape[1], device=device)
    if int(positions.max()) >= 10:
        raise IndexError("text too long")
    return net.fc(net.tokens(ids.to(device)) + net.positions(positions))


def by_keyword(net: Any, x: Tensor, *, scale: Tensor, residual: bool = False) -> Tensor:
    y = net.fc(x * scale)
    return y + x[..., :3] if residual else y


def with_constants_on_the_cpu(net: Any, x: Tensor) -> Tensor:
    order = torch.arange(3, device="cpu").flip(0)
    return net.fc(x * torch.ones(4, device="cpu"))[:, order]


def hidden_constant() -> nn.Module:
    model = Net(lambda net, x: net.fc(x * net.scale)[:, net.order], fc=nn.Linear(4, 3))
    model.scale = torch.ones(4)  # neither parameter nor buffer
    model.order = torch.tensor([2, 0, 1])
    return model


def by_value_of_a_weight(net: Any, x: Tensor) -> Tensor:
    return net.fc(x) if net.fc.weight.abs().sum() >= 0 else x


def through_numpy(net: Any, x: Tensor) -> Tensor:
    return net.fc(torch.from_numpy(x.detach().cpu().numpy() * 2))


def keep_high_scores(net: Any, x: Tensor) -> Tensor:
    scores = x.sum(1)
    return net.fc(x[scores > 1])


@torch.inference_mode()
def under_inference_mode(net: Any, x: Tensor) -> Tensor:
    return net.fc(net.conv(x).flatten(1)) @ torch.ones(3, 2, device=x.device)


OUTPUTS: tuple[Case, ...] = (
    # One Linear(4, 3) on 2 rows in each: params 15, MACs 24. Only tensors are leaves.
    Case(
        "output_dict",
        with_fc(lambda net, x: {"logits": net.fc(x), "features": x.mean(0)}),
        lambda: (floats(2, 4),),
        parameters=15,
        macs=24,
        output={"logits": (2, 3), "features": (4,)},
    ),
    Case(
        "output_tuple_inside_dict",
        with_fc(lambda net, x: {"boxes": (net.fc(x), x[:1]), "labels": x.argmax(1)}),
        lambda: (floats(2, 4),),
        parameters=15,
        macs=24,
        output={"boxes.0": (2, 3), "boxes.1": (1, 4), "labels": (2,)},
    ),
    Case(
        "output_dataclass",
        with_fc(lambda net, x: Prediction(net.fc(x), (x, x[0]))),
        lambda: (floats(2, 4),),
        parameters=15,
        macs=24,
        output={"logits": (2, 3), "hidden.0": (2, 4), "hidden.1": (4,)},
    ),
    Case(
        "output_tuple_with_none_number_and_text",
        with_fc(lambda net, x: (net.fc(x), None, 0.5, x.sum(), "text")),
        lambda: (floats(2, 4),),
        parameters=15,
        macs=24,
        output={"0": (2, 3), "3": ()},
    ),
    Case(
        "output_tuple_of_one", with_fc(lambda net, x: (net.fc(x),)), lambda: (floats(2, 4),), parameters=15, macs=24, output={"0": (2, 3)}
    ),
    Case(
        "output_list",
        with_fc(lambda net, x: [net.fc(x), [x]]),
        lambda: (floats(2, 4),),
        parameters=15,
        macs=24,
        output={"0": (2, 3), "1.0": (2, 4)},
    ),
    # A scalar has the shape (); summing keeps nothing but sizes.
    Case("output_scalar", with_fc(lambda net, x: net.fc(x).sum()), lambda: (floats(2, 4),), parameters=15, macs=24, output=(), saved=0),
    # A layer with a weight of its own that returns a scalar. `x * weight` keeps x, the input.
    Case(
        "output_scalar_of_a_layer_with_weight",
        lambda: Net(lambda net, x: (x * net.weight).sum(), weight=parameter(4)),
        lambda: (floats(2, 4),),
        parameters=4,
        macs=0,
        output=(),
        saved=0,
    ),
    # A distribution is no tensor and no container: no leaves. The layer ran twice, 2 * 24.
    Case(
        "output_distribution",
        with_fc(lambda net, x: Normal(net.fc(x), net.fc(x).exp())),
        lambda: (floats(2, 4),),
        parameters=15,
        macs=48,
        output={},
        own_macs={"fc": 48},
    ),
    Case("output_nothing", with_fc(forget), lambda: (floats(2, 4),), parameters=15, macs=24, output={}),
    # The input itself comes back.
    Case("output_is_the_input", lambda: nn.Identity(), lambda: (floats(2, 4),), parameters=0, macs=0, output=(2, 4), saved=0),
)


INPUTS: tuple[Case, ...] = (
    Case(
        "input_dict_with_text",
        with_fc(lambda net, batch: net.fc(batch["x"])),
        lambda: ({"x": floats(2, 4), "name": "cat.png", "size": 4},),
        parameters=15,
        macs=24,
        output=(2, 3),
    ),
    # Rows 2 and 5.
    Case(
        "input_nested_lists",
        with_fc(lambda net, pair: [net.fc(x) for x in pair[0]] + [pair[1]["y"]]),
        lambda: (([floats(2, 4), floats(5, 4)], {"y": floats(1)}),),
        parameters=15,
        macs=84,
        output={"0": (2, 3), "1": (5, 3), "2": (1,)},
    ),
    Case(
        "input_none",
        with_fc(lambda net, x, mask: net.fc(x if mask is None else x * mask)),
        lambda: (floats(2, 4), None),
        parameters=15,
        macs=24,
        output=(2, 3),
        saved=0,
    ),
    Case(
        "input_keywords",
        with_fc(by_keyword),
        lambda: (floats(2, 4),),
        kwargs=lambda: {"scale": floats(4), "residual": True},
        parameters=15,
        macs=24,
        output=(2, 3),
        saved=32,  # x * scale, a new tensor of 2*4*4, is the input of fc
    ),
    # Lookups are free: Embedding 10*4, Linear 15 on 2*5 rows: 120. Saved: fc input 2*5*4*4; the indices are the input.
    Case(
        "input_integers",
        lambda: nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3)),
        lambda: (torch.arange(10).view(2, 5),),
        parameters=55,
        macs=120,
        output=(2, 5, 3),
        saved=160,
        own_macs={"0": 0, "1": 120},
    ),
    # Two bags from five indices, int32; 2 rows * 12. Params 40+15.
    Case(
        "input_embedding_bag_offsets",
        lambda: Net(lambda net, ids, offsets: net.fc(net.bag(ids, offsets)), bag=nn.EmbeddingBag(10, 4), fc=nn.Linear(4, 3)),
        lambda: (torch.arange(5, dtype=torch.int32), torch.tensor([0, 2], dtype=torch.int32)),
        parameters=55,
        macs=24,
        output=(2, 3),
        own_macs={"bag": 0, "fc": 24},
    ),
    # uint8 pictures, divided by 255 inside: 1*2*4*4 out elements of a 1x1 kernel on 3 channels = 96. Params 8.
    Case(
        "input_uint8_pictures",
        lambda: Net(lambda net, x: net.conv(x / 255), conv=nn.Conv2d(3, 2, 1)),
        lambda: (torch.zeros(1, 3, 4, 4, dtype=torch.uint8),),
        parameters=8,
        macs=96,
        output=(1, 2, 4, 4),
        saved=192,  # the float copy, 3*16*4
    ),
    # float64: 2 rows * 12; relu result 2*3*8 bytes.
    Case(
        "input_float64",
        lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU()).double(),
        lambda: (floats(2, 4).double(),),
        parameters=15,
        macs=24,
        output=(2, 3),
        saved=48,
    ),
    # An in-place ReLU on the model's own input: fc keeps that same storage, which is the input.
    Case(
        "input_changed_in_place",
        lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)),
        lambda: (floats(2, 4),),
        parameters=15,
        macs=24,
        output=(2, 3),
        saved=0,
    ),
)


VALUES: tuple[Case, ...] = (
    # The forward asks whether a mask is full, as BERT does. 2*5 rows * 12. Params 55.
    Case(
        "reads_a_mask",
        lambda: Net(masked, embedding=nn.Embedding(10, 4), fc=nn.Linear(4, 3)),
        lambda: (torch.arange(10).view(2, 5), torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]).bool()),
        parameters=55,
        macs=120,
        output=(2, 5, 3),
        own_macs={"": 0, "fc": 120},
    ),
    # Integer values decide the shape, as BART's padding does: lengths 2 and 3, so 3 of 5 places: 2*3 rows * 12.
    Case(
        "reads_a_length",
        lambda: Net(until_padding, embedding=nn.Embedding(10, 4), fc=nn.Linear(4, 3)),
        lambda: (torch.tensor([[1, 2, 0, 0, 0], [1, 2, 3, 0, 0]]),),
        parameters=55,
        macs=72,
        output=(2, 3, 3),
    ),
    # Integers made on the device of the weights, and read: 2*5 rows * 12. Params 40 + 40 + 15.
    # Saved: fc input 2*5*4*4 = 160; the positions, 5 int64 that the forward made, 40; the ids are the input.
    Case(
        "reads_positions_made_on_the_device",
        lambda: Net(with_positions, tokens=nn.Embedding(10, 4), positions=nn.Embedding(10, 4), fc=nn.Linear(4, 3)),
        lambda: (torch.arange(10).view(2, 5),),
        parameters=95,
        macs=120,
        output=(2, 5, 3),
        saved=200,
        own_macs={"": 0, "fc": 120},
    ),
    # Three of four rows are chosen by a boolean input: 3*12.
    Case(
        "indexes_by_a_boolean_input",
        with_fc(lambda net, x, mask: net.fc(x[mask])),
        lambda: (floats(4, 4), torch.tensor([True, False, True, True])),
        parameters=15,
        macs=36,
        output=(3, 3),
    ),
    # Two of three rows have a sum above 1; only a run with these values can tell, as in detection.
    Case(
        "indexes_by_computed_scores",
        with_fc(keep_high_scores),
        lambda: (torch.tensor([[0.5] * 4, [0.0] * 4, [1.0] * 4]),),
        parameters=15,
        macs=24,
        output=(2, 3),
    ),
    # A branch on the values of a weight; a sum of absolute values is never below 0.
    Case("branches_on_a_weight", with_fc(by_value_of_a_weight), lambda: (floats(2, 4),), parameters=15, macs=24, output=(2, 3)),
    Case("goes_through_numpy", with_fc(through_numpy), lambda: (floats(2, 4),), parameters=15, macs=24, output=(2, 3)),
    # Constants made in the forward with an explicit device. Only `fc` counts.
    Case("constants_on_the_cpu", with_fc(with_constants_on_the_cpu), lambda: (floats(2, 4),), parameters=15, macs=24, output=(2, 3)),
    # Tensors kept as plain attributes are neither parameters nor buffers.
    Case("tensors_as_plain_attributes", hidden_constant, lambda: (floats(2, 4),), parameters=15, macs=24, output=(2, 3), buffers=0),
    # Under inference_mode composite operators arrive whole. conv 2*2*2*2 elements * 9 = 144; fc 2 rows * 8*3 = 48; @ 2*3*2 = 12.
    # Params 20+27. Nothing is kept.
    Case(
        "inference_mode_inside",
        lambda: Net(under_inference_mode, conv=nn.Conv2d(1, 2, 3), fc=nn.Linear(8, 3)),
        lambda: (floats(2, 1, 4, 4),),
        parameters=47,
        macs=204,
        output=(2, 2),
        saved=0,
        own_macs={"": 12, "conv": 144, "fc": 48},
    ),
)


UNCOUNTED: tuple[Case, ...] = (
    # fft2 of a real picture goes through one complex transform. The layer behind it: 3 rows * 12.
    Case(
        "fft2",
        with_fc(lambda net, x: net.fc(torch.fft.fft2(x).abs())),
        lambda: (floats(3, 4),),
        parameters=15,
        macs=36,
        output=(3, 3),
        uncounted=("aten._fft_c2c",),
    ),
    # Real to complex and back.
    Case(
        "rfft_irfft",
        lambda: Function(lambda x: torch.fft.irfft(torch.fft.rfft(x), n=4)),
        lambda: (floats(3, 4),),
        parameters=0,
        macs=0,
        output=(3, 4),
        uncounted=("aten._fft_r2c", "aten._fft_c2r"),
    ),
    # Solving has no formula, the product in front has: 3*3*2.
    Case(
        "linear_solve",
        lambda: Function(lambda a, b: torch.linalg.solve(a, a @ b)),
        lambda: (torch.eye(3), floats(3, 2)),
        parameters=0,
        macs=18,
        output=(3, 2),
        uncounted=("aten._linalg_solve_ex",),
    ),
    Case(
        "qr_and_cholesky",
        lambda: Function(lambda a: (torch.linalg.qr(a).R, torch.linalg.cholesky(a))),
        lambda: (torch.eye(3),),
        parameters=0,
        macs=0,
        output={"0": (3, 3), "1": (3, 3)},
        uncounted=("aten.linalg_qr", "aten.linalg_cholesky_ex"),
    ),
    # Nothing here multiplies matrices, and nothing needs listing.
    Case(
        "only_free_operators",
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Upsample(scale_factor=2), nn.Softmax(1)),
        lambda: (floats(2, 3, 4, 4),),
        parameters=6,
        macs=0,
        output=(2, 3, 4, 4),
        own_macs={"": 0, "0": 0, "4": 0},
        buffers=7,
    ),
    # Interpolation and pooling between two counted layers: conv 2*16*3 = 96 (1x1), then 2 channels * 64 * 2 = 256. Params 8+6.
    Case(
        "interpolation_is_free",
        lambda: Net(
            lambda net, x: net.b(F.interpolate(net.a(x), scale_factor=2, mode="bilinear")), a=nn.Conv2d(3, 2, 1), b=nn.Conv2d(2, 2, 1)
        ),
        lambda: (floats(1, 3, 4, 4),),
        parameters=14,
        macs=352,
        output=(1, 2, 8, 8),
        saved=512,  # the enlarged picture, 2*64*4, is the input of b
        own_macs={"": 0, "a": 96, "b": 256},
    ),
)

STRUCTURES = OUTPUTS + INPUTS + VALUES + UNCOUNTED
