"""No trace: a model, the random generators and torch's global switches are as they were, also when forward raises or is interrupted."""

from __future__ import annotations

import gc
import random
import sys
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

import netlens
from netlens.probing.untouched import seeded, untouched

# -- the zoo -------------------------------------------------------------------------------------------------------------------------


class Stateful(nn.Module):
    """Its forward writes attributes, containers, buffers, a tensor of no registry, flags, and removes and adds what is registered."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("average", torch.zeros(4))
        self.register_buffer("cache", None)
        self.calls, self.seen, self.kinds, self.recent = 0, [], {"a": [1]}, deque([1], maxlen=2)
        self.unregistered, self.known = torch.zeros(4), {0}
        self.generator, self.random = torch.Generator().manual_seed(3), random.Random(3)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(x)
        self.kinds["a"].append(2)
        self.kinds["b"] = x
        self.recent.append(x)
        self.known.add(self.calls)
        self.last = x
        self.steps += 1
        self.average.mul_(0.9)
        self.average.data.add_(1)
        self.average = self.average * 2
        self.cache = x
        self.unregistered += 1
        self.fc.eval()
        self.fc.weight.requires_grad_(False)
        self.extra = nn.Linear(2, 2)
        self.register_buffer("late", torch.ones(1))
        torch.rand(1, generator=self.generator)
        self.random.random()
        return self.fc(x)


class Noisy(nn.Module):
    """Its forward draws from every global generator, and seeds them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        scale = random.random() + float(np.random.rand()) + float(torch.rand(1))
        torch.manual_seed(7)
        np.random.seed(7)
        random.seed(7)
        return self.fc(x) * scale


class Raising(nn.Module):
    """Its second layer raises."""

    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__()
        self.first, self.norm, self.second = Stateful(), nn.BatchNorm1d(4), nn.Linear(5, 4)
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x))
        if self.error is not None:
            raise self.error
        return self.second(x)


def mixed_flags() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.BatchNorm1d(4), nn.Dropout())
    model[3].eval()  # a frozen norm in a model that trains
    model[2].eval()
    model[0].weight.requires_grad_(False)
    model[1].weight.grad = torch.ones(4)
    return model


def evaluating() -> nn.Module:
    model = mixed_flags().eval()
    model[4].train()
    return model


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model[0].register_forward_hook(lambda _module, _args, output: output * 2)
    model[1].register_forward_pre_hook(lambda _module, args: args)
    model.register_full_backward_hook(lambda *_: None)
    model[0].weight.register_hook(lambda gradient: gradient)
    return model


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


def hidden() -> nn.Module:
    model = nn.Linear(4, 4)
    model.others = [nn.BatchNorm1d(4)]
    return model


ZOO: list[Callable[[], nn.Module]] = [mixed_flags, evaluating, hooked, tied, hidden, Stateful, Noisy, Raising]
WAYS: list[dict[str, Any]] = [{}, {"device": "cpu"}, {"time": True}]


# -- what a trace would show in ------------------------------------------------------------------------------------------------------


def contents(value: Any, depth: int = 0) -> Any:
    """A value by identity, and what it holds by value."""
    if isinstance(value, Tensor):
        kept = value if value.is_meta else (tuple(value.detach().reshape(-1).tolist()), value.dtype, value.shape)
        return id(value), kept, value.requires_grad
    if isinstance(value, dict) and depth < 3:
        return id(value), [(key, contents(item, depth + 1)) for key, item in value.items()]
    if isinstance(value, (list, tuple, deque)) and depth < 3:
        return id(value), [contents(item, depth + 1) for item in value]
    if isinstance(value, set):
        return id(value), sorted(value)
    if isinstance(value, torch.Generator):
        return id(value), bytes(value.get_state().tolist())
    if isinstance(value, random.Random):
        return id(value), value.getstate()
    return id(value), None


def state_of(model: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        found[f"{path}: class"] = type(module)
        for name, value in vars(module).items():
            found[f"{path}: {name}"] = contents(value)
    for name, parameter in model.named_parameters():
        found[f"{name}: grad"] = None if parameter.grad is None else contents(parameter.grad)
        found[f"{name}: hooks"] = contents(parameter._backward_hooks)
    return found


def state_of_the_process() -> dict[str, Any]:
    return {
        "torch": bytes(torch.get_rng_state().tolist()),
        "numpy": str(np.random.get_state()),
        "python": random.getstate(),
        "call": nn.Module.__call__,
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "validation": Distribution._validate_args,
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "dtype": torch.get_default_dtype(),
        "device": torch.empty(0).device,
        "modes": torch._C._len_torch_dispatch_stack(),
        "attention on meta": torch.nn.functional.scaled_dot_product_attention(*[torch.empty(1, 2, 3, device="meta")] * 3).shape,
        "parameter hooks": len(nn.modules.module._global_parameter_registration_hooks),
        "buffer hooks": len(nn.modules.module._global_buffer_registration_hooks),
        "recursion": sys.getrecursionlimit(),
        "warn always": torch.is_warn_always_enabled(),
        "threads": torch.get_num_threads(),
    }


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [key for key in {**before, **after} if before.get(key, "absent") != after.get(key, "absent")]


# -- tests ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=["meta", "cpu", "time"])
@pytest.mark.parametrize("build", ZOO)
def test_a_summary_leaves_no_trace(build, way):
    model, x = build(), torch.ones(2, 4)
    before, process = state_of(model), state_of_the_process()

    report = netlens.summary(model, x, **way)

    assert (report.failure is not None) == (build is Raising)
    assert differences(before, state_of(model)) == []
    assert differences(process, state_of_the_process()) == []
    assert x.tolist() == [[1.0] * 4] * 2 and not x.requires_grad and x.grad is None


@pytest.mark.parametrize("way", WAYS[:2], ids=["meta", "cpu"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_an_interrupt_goes_through_and_leaves_no_trace(way, error):
    model = Raising(error)
    before, process = state_of(model), state_of_the_process()

    with pytest.raises(type(error)):
        netlens.summary(model, torch.ones(2, 4), **way)

    assert differences(before, state_of(model)) == []
    assert differences(process, state_of_the_process()) == []


@pytest.mark.parametrize("raised", [ZeroDivisionError, KeyboardInterrupt])
def test_a_raising_block_is_put_back(raised):
    model = Raising()
    before, process = state_of(model), state_of_the_process()

    with pytest.raises(raised), untouched(model):
        model.eval()
        model.first(torch.ones(2, 4))
        raise raised

    assert differences(before, state_of(model)) == []
    assert differences(process, state_of_the_process()) == []


def test_the_check_itself_sees_what_a_forward_leaves():
    """Without netlens the same comparison finds every trace; else the tests above would prove nothing."""
    model = Stateful()
    before, process = state_of(model), state_of_the_process()

    Noisy()(model(torch.ones(2, 4)))

    traces = set(differences(before, state_of(model)))
    names = {"calls", "seen", "kinds", "recent", "known", "last", "_buffers", "unregistered", "_modules", "generator", "random"}
    assert traces >= {f": {name}" for name in names} | {"fc: training", "fc: _parameters"}
    assert set(differences(process, state_of_the_process())) == {"torch", "numpy", "python"}


@pytest.mark.parametrize("way", [*WAYS, {"broken": True}], ids=["meta", "cpu", "time", "raising"])
def test_nothing_of_the_model_is_kept_alive(way):
    model: nn.Module = nn.Sequential(Stateful(), nn.LSTM(4, 4), *([nn.Linear(9, 1)] if way.pop("broken", False) else []))
    model[0].forward = lambda x: x  # type: ignore[method-assign]
    x = torch.ones(2, 4)
    watched = [weakref.ref(item) for item in (model, x, *model.modules(), *model.parameters(), *model.buffers())]
    run = nn.Sequential(model[0], nn.Linear(4, 4), *([model[2]] if len(model) == 3 else []))
    watched += [weakref.ref(item) for item in (run, run[1].weight)]

    report = netlens.summary(run, x, **way)
    del model, x, run
    gc.collect()

    assert [item() for item in watched if item() is not None] == []
    assert report.totals.parameters > 0


def test_parameters_written_by_a_forward_are_safe_on_the_meta_device():
    """A moving average of weights: `untouched` does not copy parameters, but only a copy of the model runs."""

    class Averaging(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.weight.data.mul_(0.5)
            return super().forward(x)

    model = Averaging(4, 3)
    before = model.weight.detach().clone()

    assert netlens.summary(model, torch.ones(2, 4)).run.on == "meta"
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize(
    "buffer",
    [
        torch.eye(3).to_sparse(),
        torch.full((2,), float("nan")),
        torch.ones(2, dtype=torch.complex64),
        torch.ones(2, dtype=torch.float8_e4m3fn),
        torch.ones(2, 3).t(),
        torch.ones(3, device="meta"),
    ],
    ids=["sparse", "nan", "complex", "float8", "transposed", "meta"],
)
def test_buffers_of_every_kind_are_put_back(buffer):
    model = nn.Module()
    model.register_buffer("kept", buffer.clone())
    kept, before = model.kept, buffer.clone()

    with untouched(model):
        model.kept.copy_(torch.zeros_like(buffer) if buffer.layout == torch.strided else torch.eye(3).to_sparse() * 2)
    assert model.kept is kept
    if not buffer.is_meta:
        torch.testing.assert_close(kept.to_dense().float(), before.to_dense().float(), rtol=0, atol=0, equal_nan=True)

    with untouched(model):
        model.kept = None
    assert model.kept is kept


def test_inference_tensors_are_put_back():
    model = nn.Module()
    with torch.inference_mode():
        model.register_buffer("kept", torch.ones(2))
    with untouched(model), torch.inference_mode():
        model.kept.zero_()
    assert model.kept.tolist() == [1.0, 1.0]


def test_an_unchanged_buffer_is_not_written():
    """Writing would raise its version, and with it "modified by an inplace operation" in a backward pass of the user."""
    model = nn.BatchNorm1d(3)
    versions = [buffer._version for buffer in model.buffers()]
    with untouched(model):
        model.eval()(torch.ones(2, 3))
    assert [buffer._version for buffer in model.buffers()] == versions


def test_seeded_draws_the_same_numbers_and_puts_the_generators_back():
    process = state_of_the_process()

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    with seeded(5):
        first = draw()
    with seeded(5):
        second = draw()
    with seeded(6):
        third = draw()

    assert first == second
    assert not set(first) & set(third)
    assert differences(process, state_of_the_process()) == []
