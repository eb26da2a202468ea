"""Bytes of activations without a run, against a run of the same network on the CPU.

The two measurements below know nothing of netlens: they follow the definitions. What autograd keeps is what it hands to
`saved_tensors_hooks`, each storage once, without weights and input; the peak is the most that all storages made by operators take at once.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision import models  # noqa: TID253

import netlens


def kept_for_backward(model: nn.Module, x: Tensor) -> int:
    """Bytes of all storages that autograd keeps after a forward pass in training mode."""
    known = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers(), x)}
    kept: dict[int, Tensor] = {}  # by address; alive, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model.train()(x)
    return sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in known)


class Made(TorchDispatchMode):
    """Watches the storages that operators make: `total` bytes, and `peak` bytes alive at once."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.alive: dict[int, weakref.ref[Any]] = {}
        self.total = self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.see(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return result

    def see(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known or key in self.alive:
            return

        def freed(_storage: Any) -> None:
            del self.alive[key]
            self.now -= size

        self.alive[key] = weakref.ref(storage, freed)
        self.total += size
        self.now += size


def made_in_inference(model: nn.Module, x: Tensor) -> tuple[int, int]:
    """Bytes that the operators of a forward pass in eval mode make: the most at once, and in total."""
    with torch.no_grad(), Made([*model.parameters(), *model.buffers(), x]) as made:
        model.eval()(x)
    return made.peak, made.total


@contextmanager
def attention_as_one_operator() -> Iterator[None]:
    """`nn.MultiheadAttention` has a shortcut for inference that hides its parts; switched off, its core is one fused operator."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def vit_b_16(size: int) -> nn.Module:
    return models.vit_b_16(image_size=size)


def efficientnet_b0(_size: int) -> nn.Module:
    """Without stochastic depth and dropout, which make no difference to the bytes but draw random masks."""
    return models.efficientnet_b0(stochastic_depth_prob=0.0, dropout=0.0)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "resnet18": lambda _size: models.resnet18(),
    "resnet50": lambda _size: models.resnet50(),
    "densenet121": lambda _size: models.densenet121(),
    "convnext_tiny": lambda _size: models.convnext_tiny(),
    "swin_t": lambda _size: models.swin_t(),
    "swin_v2_t": lambda _size: models.swin_v2_t(),
    "mobilenet_v3_large": lambda _size: models.mobilenet_v3_large(),
    "efficientnet_b0": efficientnet_b0,
    "shufflenet_v2_x0_5": lambda _size: models.shufflenet_v2_x0_5(),
    "vit_b_16": vit_b_16,
}
FAST = {("resnet18", 64), ("mobilenet_v3_large", 64), ("swin_t", 96), ("vit_b_16", 64)}
SMALL = [(name, 96 if name.startswith("swin") else 64) for name in NETWORKS]  # 96: windows of 7 need padding, and are shifted
CASES = [pytest.param(*case, marks=[] if case in FAST else [pytest.mark.sweep]) for case in (*SMALL, *((name, 224) for name in NETWORKS))]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_bytes_without_a_run_are_those_of_a_run(name: str, size: int):
    torch.manual_seed(0)
    model, x = NETWORKS[name](size), torch.randn(2, 3, size, size)

    report = netlens.summary(model, x)

    assert report.run.on == "meta"
    assert report.memory.saved_mode == "train"
    with attention_as_one_operator():
        peak, total = made_in_inference(model, x)
        kept = kept_for_backward(model, x)
    assert report.memory.saved_for_backward == kept
    assert report.memory.peak_activations == peak
    assert report.memory.activations == total


class Attention(nn.Module):
    """Attention on queries whose heads lie in memory in a given order: what follows is then a view, or a copy."""

    def __init__(self, order: str, mask: Tensor | None = None) -> None:
        super().__init__()
        self.order, self.mask = order, mask
        self.project = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:  # (2, 5, 8): batch, length, 2 heads of 4
        qkv = self.project(x).view(2, 5, 3, 2, 4)
        if self.order == "length first":
            qkv = qkv.transpose(0, 1).contiguous().transpose(0, 1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.order == "heads first":
            q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        return nn.functional.scaled_dot_product_attention(q, k, v, self.mask).transpose(1, 2).reshape(2, 5, 8)


@pytest.mark.parametrize("mask", [None, torch.ones(5, 5, dtype=torch.bool), torch.zeros(5, 5)], ids=["no mask", "bool mask", "float mask"])
@pytest.mark.parametrize("order", ["batch first", "length first", "heads first"])
def test_the_layout_of_attention_is_that_of_its_query(order: str, mask: Tensor | None):
    model, x = Attention(order, mask), torch.randn(2, 5, 8)

    report = netlens.summary(model, x)

    own_mask = 0 if mask is None or mask.dtype == torch.bool else mask.nbytes  # a tensor of the model's own is no activation
    assert report.memory.saved_for_backward == kept_for_backward(model, x) - own_mask


class Pointwise(nn.Module):
    """Arithmetic on a transposed, gapped operand and a broadcast one."""

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.run = nn.Linear(6, 12), run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.linear(x))  # (2, 5, 12)


POINTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "half": lambda y: (y[..., ::2] * 2).reshape(-1),
    "transposed half": lambda y: (y[..., ::2].transpose(0, 1) * 2).transpose(0, 1).reshape(-1),
    "transposed and broadcast": lambda y: (torch.ones(5, 1) + y.permute(2, 1, 0)).permute(2, 1, 0).reshape(-1).exp(),
    "permuted chunk": lambda y: (y.view(2, 5, 3, 4).permute(2, 0, 3, 1)[1] * 0.5).flatten(1).tanh(),
    "compared": lambda y: (y.transpose(1, 2)[:, ::2] > 0).transpose(1, 2).reshape(-1) * 1.0,
}


@pytest.mark.parametrize("run", POINTWISE.values(), ids=POINTWISE)
def test_pointwise_results_lie_in_memory_as_on_the_cpu(run: Callable[[Tensor], Tensor]):
    """A result that lies otherwise makes one copy more or one less in the reshape behind it."""
    model, x = Pointwise(run), torch.randn(2, 5, 6)

    report = netlens.summary(model, x)

    assert (report.memory.peak_activations, report.memory.activations) == made_in_inference(model, x)
    assert report.memory.saved_for_backward == kept_for_backward(model, x)
