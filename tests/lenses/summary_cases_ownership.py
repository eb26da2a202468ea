"""Hand-derived cases: who owns a parameter, who runs, and to whom the MACs belong."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from tests.lenses.summary_case import Case, Net, floats, frozen, parameter


def with_buffers() -> nn.Module:
    model = Net(lambda net, x: net.fc(x - net.mean) @ net.mixing, fc=nn.Linear(3, 2))
    model.register_buffer("mean", torch.zeros(3))
    model.register_buffer("mixing", torch.zeros(2, 2), persistent=False)
    return model


def under_two_parents() -> nn.Module:
    shared = nn.Linear(8, 8)
    return nn.Sequential(nn.Sequential(shared, nn.ReLU()), nn.Sequential(shared))


def twice_under_one_parent() -> nn.Module:
    shared = nn.Linear(4, 4)
    return nn.Sequential(shared, nn.Tanh(), shared)


def tied_embedding_and_head() -> nn.Module:
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10, bias=False))
    model[1].weight = model[0].weight
    return model


def blocks_around_one_child() -> nn.Module:
    child = nn.Linear(4, 4)
    return nn.Sequential(*(Net(lambda net, x: net.child(x) @ net.weight, child=child, weight=parameter(4, 4)) for _ in range(2)))


def in_plain_list() -> nn.Module:
    model = Net(lambda net, x: net.head(net.layers[1](net.layers[0](x))), head=nn.Linear(4, 2))
    model.layers = [nn.Linear(4, 4), nn.Linear(4, 4)]
    return model


def nested(depth: int) -> nn.Module:
    module: nn.Module = nn.Linear(2, 2)
    for _ in range(depth):
        module = nn.Sequential(module)
    return module


def pruned() -> nn.Module:
    layer = nn.Linear(10, 10)
    prune.l1_unstructured(layer, "weight", amount=0.3)
    return layer


def with_user_hook() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].register_forward_hook(lambda _layer, _inputs, output: output @ torch.ones(4, 4, device=output.device))
    return model


def scripted_child() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but in use
        return nn.Sequential(nn.Linear(4, 5), torch.jit.script(nn.Linear(5, 3)))


class Recursive(nn.Module):
    """Calls itself until the depth is used up; each round has a product of its own and a call of the child."""

    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Linear(4, 4)
        self.weight = nn.Parameter(torch.zeros(4, 4))

    def forward(self, x: Tensor, depth: int = 3) -> Tensor:
        return self(self.child(x) @ self.weight, depth - 1) if depth else x


class Conv1D(nn.Module):
    """GPT-2's linear layer, which is called like a convolution and is none."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, out))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)


class Stages(nn.Module):
    """Widths computed as a tensor and read back, as torchvision's RegNet does."""

    def __init__(self) -> None:
        super().__init__()
        widths = (torch.arange(3) * 2 + 2).tolist()  # 2, 4, 6
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def run_lists(net: Any, x: Tensor) -> Tensor:
    for weight in net.weights:
        x = x @ weight
    return x @ net.named["out"]


def run_lora(net: Any, x: Tensor) -> Tensor:
    return net.base(x) + x @ net.down.T @ net.up.T


def lora() -> nn.Module:
    return Net(run_lora, base=frozen(nn.Linear(6, 4)), down=parameter(2, 6), up=parameter(4, 2))


def two_scales(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return net.conv(x), net.conv(nn.functional.avg_pool2d(x, 2))


PARAMETERS: tuple[Case, ...] = (
    # Two directly owned parameters and no MAC. Saved: `x * scale` keeps x, the input, for scale; scale for nobody.
    Case(
        "own_parameters",
        lambda: Net(lambda net, x: x * net.scale + net.shift, scale=parameter(4), shift=parameter(2, 4)),
        lambda: (floats(2, 4),),
        parameters=12,
        macs=0,
        output=(2, 4),
        saved=0,
        own_macs={"": 0},
    ),
    # Three (4,4) and one (4,2): 48+8. MACs 2 rows * (3*16 + 8). Saved: inputs of products 2, 3, 4: 3 * 2*4*4.
    Case(
        "parameter_list_and_dict",
        lambda: Net(
            run_lists,
            weights=nn.ParameterList(parameter(4, 4) for _ in range(3)),
            named=nn.ParameterDict({"out": parameter(4, 2)}),
        ),
        lambda: (floats(2, 4),),
        parameters=56,
        macs=112,
        output=(2, 2),
        saved=96,
        own_macs={"": 112},
    ),
    # Params 20 + 10, the first 20 frozen. MACs 3*(16+8). Saved: nothing before the head needs a gradient; the head keeps its input 3*4*4.
    Case(
        "frozen_backbone",
        lambda: nn.Sequential(frozen(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 2)),
        lambda: (floats(3, 4),),
        parameters=30,
        macs=72,
        output=(3, 2),
        saved=48,
        trainable=10,
    ),
    # A frozen LINEAR after a trainable one keeps only its weight (a parameter), not its input. MACs 3*(24+18).
    Case(
        "frozen_linear_behind_trainable",
        lambda: nn.Sequential(nn.Linear(4, 6), frozen(nn.Linear(6, 3))),
        lambda: (floats(3, 4),),
        parameters=51,
        macs=126,
        output=(3, 3),
        saved=0,
        trainable=30,
    ),
    # A frozen CONVOLUTION keeps its input all the same: 2*16*4. MACs 16*(2*9 + 3*2). Params 20+9.
    Case(
        "frozen_conv_behind_trainable",
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), frozen(nn.Conv2d(2, 3, 1))),
        lambda: (floats(1, 1, 4, 4),),
        parameters=29,
        macs=384,
        output=(1, 3, 4, 4),
        saved=128,
        trainable=20,
    ),
    # Buffers 3 + 4, one of them not persistent. MACs 2*(6 + 4). Saved: fc keeps x - mean, 2*3*4; `@ mixing` only the buffer.
    Case(
        "buffers",
        with_buffers,
        lambda: (floats(2, 3),),
        parameters=8,
        macs=20,
        output=(2, 2),
        saved=24,
        own_macs={"": 8, "fc": 12},
        buffers=7,
    ),
    # An unused layer has parameters 4*50+50 and no MACs; the used one 8+2 and 3*8.
    Case(
        "unused_module",
        lambda: Net(lambda net, x: net.used(x), used=nn.Linear(4, 2), unused=nn.Linear(4, 50)),
        lambda: (floats(3, 4),),
        parameters=260,
        macs=24,
        output=(3, 2),
        own_macs={"": 0, "used": 24, "unused": 0},
    ),
    # Params 110 = stored weight 100 + bias 10; the mask is a buffer of 100. Zeros are multiplied too: 2*100.
    # Saved: the product weight * mask is kept by nobody (the input needs no gradient), the mask is a buffer.
    Case("pruned_linear", pruned, lambda: (floats(2, 10),), parameters=110, macs=200, output=(2, 10), saved=0, buffers=100),
    # 6*36 elements * 27. Params 6 magnitudes + 162 + 6 bias. Saved: the computed weight 162*4, which is no parameter, and its 6 norms.
    Case(
        "weight_norm_conv",
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 6, 3))),
        lambda: (floats(1, 3, 8, 8),),
        parameters=174,
        macs=5832,
        output=(1, 6, 6, 6),
        saved=672,
        own_macs={"": 0, "0": 5832},
    ),
    # 3 rows: base 24, down 12, up 8. Params 28 (frozen) + 12 + 8. Saved: only the 2-wide middle, 3*2*4.
    Case(
        "lora",
        lora,
        lambda: (floats(3, 6),),
        parameters=48,
        macs=132,
        output=(3, 4),
        saved=24,
        own_macs={"": 60, "base": 72},
        trainable=20,
    ),
    # addmm: 2*3 rows * 4*5. Not a convolution, whatever its class is called.
    Case("linear_named_conv1d", lambda: Conv1D(4, 5), lambda: (floats(2, 3, 4),), parameters=25, macs=120, output=(2, 3, 5), saved=0),
    # 2 rows: 2->4->6: 8+24. Params 12+30.
    Case(
        "widths_read_from_a_tensor",
        Stages,
        lambda: (floats(2, 2),),
        parameters=42,
        macs=64,
        output=(2, 6),
        own_macs={"layers.0": 16, "layers.1": 48},
        meta_build=False,
    ),
    # Sizes known only after the first call: 4->3: 12+3, 2 rows.
    Case("lazy_linear", lambda: nn.Sequential(nn.LazyLinear(3)), lambda: (floats(2, 4),), parameters=15, macs=24, output=(2, 3)),
)


SHARING: tuple[Case, ...] = (
    # Params 72 once; MACs 2 calls * 2 rows * 64. Saved: relu result, which the second call keeps too, 2*8*4.
    Case("linear_under_two_parents", under_two_parents, lambda: (floats(2, 8),), parameters=72, macs=256, output=(2, 8), saved=64),
    # Params 20; MACs 2*3*16. Saved: tanh result 3*4*4.
    Case("linear_twice_under_one_parent", twice_under_one_parent, lambda: (floats(3, 4),), parameters=20, macs=96, output=(3, 4), saved=48),
    # Table 40 once; head 2*3 rows * 40; the lookup is free. Saved: head input 2*3*4*4; the indices are the input.
    Case(
        "tied_embedding_and_head",
        tied_embedding_and_head,
        lambda: (torch.zeros(2, 3, dtype=torch.int64),),
        parameters=40,
        macs=240,
        output=(2, 3, 10),
        saved=96,
        own_macs={"0": 0, "1": 240},
    ),
    # Three calls of one layer: 3*2*16. Saved: inputs of calls 2 and 3: 2 * 2*4*4.
    Case(
        "reused_module",
        lambda: Net(lambda net, x: net.fc(net.fc(net.fc(x))), fc=nn.Linear(4, 4)),
        lambda: (floats(2, 4),),
        parameters=20,
        macs=96,
        output=(2, 4),
        saved=64,
        own_macs={"": 0, "fc": 96},
    ),
    # One convolution at 8x8 and at 4x4: 4*(64+16) elements * 27.
    Case(
        "reused_at_two_shapes",
        lambda: Net(two_scales, conv=nn.Conv2d(3, 4, 3, padding=1)),
        lambda: (floats(1, 3, 8, 8),),
        parameters=112,
        macs=8640,
        output={"0": (1, 4, 8, 8), "1": (1, 4, 4, 4)},
        own_macs={"": 0, "conv": 8640},
    ),
    # One ReLU for two places: 2 rows * (12 + 9 + 6). Params 16+12+8. Saved: both results 2*3*4, also the inputs of the next layers.
    Case(
        "reused_activation",
        lambda: Net(
            lambda net, x: net.c(net.relu(net.b(net.relu(net.a(x))))),
            a=nn.Linear(4, 3),
            b=nn.Linear(3, 3),
            c=nn.Linear(3, 2),
            relu=nn.ReLU(inplace=True),
        ),
        lambda: (floats(2, 4),),
        parameters=35,
        macs=54,
        output=(2, 2),
        saved=48,
        own_macs={"a": 24, "b": 18, "c": 12, "relu": 0},
    ),
    # Two blocks, each own weight 16, around one child of 20. MACs 2 blocks * 2 rows * (16 + 16).
    Case(
        "two_blocks_around_one_child",
        blocks_around_one_child,
        lambda: (floats(2, 4),),
        parameters=52,
        macs=128,
        output=(2, 4),
        own_macs={"": 0, "0": 32, "1": 32},
    ),
    # Three rounds * 2 rows * 16, in the child and in the module itself.
    Case(
        "recursion",
        Recursive,
        lambda: (floats(2, 4),),
        parameters=36,
        macs=192,
        output=(2, 4),
        own_macs={"": 96, "child": 96},
    ),
)


ATTRIBUTION: tuple[Case, ...] = (
    # `.forward()` skips the hooks, so the 3*20 belong to the parent. Params 25.
    Case(
        "child_reached_by_forward",
        lambda: Net(lambda net, x: net.fc.forward(x), fc=nn.Linear(4, 5)),
        lambda: (floats(3, 4),),
        parameters=25,
        macs=60,
        output=(3, 5),
        own_macs={"": 60, "fc": 0},
    ),
    # Unregistered layers run 3*(16+16) but are no parameters; the head has 10 and 3*8.
    Case(
        "modules_in_a_plain_list",
        in_plain_list,
        lambda: (floats(3, 4),),
        parameters=10,
        macs=120,
        output=(3, 2),
        own_macs={"": 0, "head": 24},
    ),
    # 2 rows * (12 + 12 + 8), head "a" is not asked. Params 15 + 16 + 45 + 10.
    Case(
        "module_list_and_dict",
        lambda: Net(
            lambda net, x: net.heads["b"](net.layers[1](net.layers[0](x))),
            layers=nn.ModuleList([nn.Linear(4, 3), nn.Linear(3, 4)]),
            heads=nn.ModuleDict({"a": nn.Linear(4, 9), "b": nn.Linear(4, 2)}),
        ),
        lambda: (floats(2, 4),),
        parameters=86,
        macs=64,
        output=(2, 2),
        own_macs={"": 0, "layers.0": 24, "layers.1": 24, "heads.a": 0, "heads.b": 16},
    ),
    # A container that does work of its own: child 3*12, own product 3*6.
    Case(
        "function_inside_a_container",
        lambda: nn.Sequential(Net(lambda net, x: net.fc(x) @ net.weight, fc=nn.Linear(4, 3), weight=parameter(3, 2)), nn.ReLU()),
        lambda: (floats(3, 4),),
        parameters=21,
        macs=54,
        output=(3, 2),
        own_macs={"": 0, "0": 18, "0.fc": 36},
    ),
    # Sixty containers around one layer: params 6, MACs 3*4.
    Case(
        "nested_sixty_deep",
        lambda: nested(60),
        lambda: (floats(3, 2),),
        parameters=6,
        macs=12,
        output=(3, 2),
        own_macs={"": 0, ".".join("0" * 60): 12},
    ),
    # The user's own hook multiplies by a (4,4): 3*16, once; layers 3*16 + 3*8. Params 20+10.
    Case("hook_of_the_user", with_user_hook, lambda: (floats(3, 4),), parameters=30, macs=120, output=(3, 2)),
    # A TorchScript child: 3*20 + 3*15. Params 25+18.
    Case("torchscript_child", scripted_child, lambda: (floats(3, 4),), parameters=43, macs=105, output=(3, 3), own_macs={"0": 60}),
)

OWNERSHIP = PARAMETERS + SHARING + ATTRIBUTION
