"""`cut` against backward passes through forwards unrolled by hand; `replaced` against plain loops."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from netlens.errors import NetlensError, UsageError
from netlens.probing.cutting import cut
from netlens.probing.replacing import Site, inner, replaced, without_channels
from netlens.probing.tokens import Layout

MAPS = Layout("channels first", (4, 6, 5), 4, (6, 5))


def site(module: nn.Module, name: str = "here", layout: Layout = MAPS, **where: Any) -> Site:
    return Site(name, type(module).__name__, module, layout, **where)


class Net(nn.Module):
    """In-place ReLUs, one of them called twice, and a sum in place, as in a ResNet of torchvision; then a function."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        y = self.relu(self.conv1(x))
        y = self.conv2(y)
        y += x
        return self.head(F.gelu(y).mean((2, 3)))


def net() -> Net:
    torch.manual_seed(0)
    model = Net().eval()
    nn.init.normal_(model.norm.running_mean)
    return model


X = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(1))
WEIGHTS = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])


def unrolled(model: Net, x: Tensor) -> dict[str, Tensor]:
    """Every tensor of the forward, none written in place, each with its gradient of the weighted sum of the scores."""
    t = {"stem": model.stem(x)}
    t["norm"] = model.norm(t["stem"])
    t["relu#1"] = t["norm"].clamp(min=0)
    t["conv1"] = model.conv1(t["relu#1"])
    t["relu#2"] = t["conv1"].clamp(min=0)
    t["conv2"] = model.conv2(t["relu#2"])
    t["gelu"] = 0.5 * (t["conv2"] + t["relu#1"]) * (1 + torch.erf((t["conv2"] + t["relu#1"]) / 2**0.5))
    for tensor in t.values():
        tensor.retain_grad()
    (model.head(t["gelu"].mean((2, 3))) * WEIGHTS).sum().backward()
    model.zero_grad()
    return t


def sites_of(model: Net) -> dict[str, Site]:
    calls = {"relu#1": site(model.relu, "relu#1", call=1), "relu#2": site(model.relu, "relu#2", call=2)}
    plain = {name: site(getattr(model, name), name) for name in ("stem", "norm", "conv1", "conv2")}
    return plain | calls | {"gelu": site(model, "gelu", function="gelu")}


@pytest.mark.parametrize("name", ["stem", "norm", "relu#1", "conv1", "relu#2", "conv2", "gelu"])
def test_activation_and_gradient_of_every_site_are_those_of_a_forward_unrolled_by_hand(name: str) -> None:
    model = net()
    truth = unrolled(model, X)[name]
    with cut(model, [sites_of(model)[name]], ((X,), {})) as run:
        gradient = run.gradients((run.output * WEIGHTS).sum(1))[name]
    torch.testing.assert_close(run.maps(name), truth.detach(), rtol=1e-6, atol=1e-6)
    assert gradient is not None
    torch.testing.assert_close(gradient, truth.grad, rtol=1e-5, atol=1e-7)
    assert run.taken[name].tensor.is_leaf


def test_all_sites_of_one_pass_and_several_scores() -> None:
    model = net()
    truth = unrolled(model, X)
    with cut(model, list(sites_of(model).values()), ((X,), {})) as run:
        gradients = run.gradients((run.output * WEIGHTS).sum(1), retain=True)
        again = run.gradients(run.output[:, 0])
    assert list(run.taken) == list(truth)
    assert [taken.tensor.is_leaf for taken in run.taken.values()] == [True] + [False] * 6
    for name, tensor in truth.items():
        torch.testing.assert_close(run.maps(name), tensor.detach(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(gradients[name], tensor.grad, rtol=1e-5, atol=1e-7)
    pooled = model.head.weight[0].detach() / 30  # the mean over 6 x 5 places, then the head
    torch.testing.assert_close(again["gelu"], pooled[None, :, None, None].expand(2, 4, 6, 5))


def test_nothing_is_saved_for_backward_before_the_first_site() -> None:
    model, saved = net(), []
    model.conv2.register_forward_hook(lambda *_: saved.append("conv2 ran"))
    counting = saved_tensors_hooks(lambda tensor: saved.append("tensor") or tensor, lambda tensor: tensor)
    with counting, cut(model, [site(model.conv2)], ((X,), {})):
        pass
    assert saved[0] == "conv2 ran"
    assert "tensor" in saved


@contextmanager
def _autocast() -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16):
        yield


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, torch.enable_grad, _autocast])
@pytest.mark.parametrize("frozen", [False, True])
def test_it_works_in_every_mode_and_leaves_no_trace(around: Callable[[], Any], frozen: bool) -> None:
    model = net().requires_grad_(not frozen)
    truth = unrolled(net(), X)["norm"]
    called, fast = nn.Module.__call__, torch.backends.mha.get_fastpath_enabled()
    with around():
        grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        with cut(model, [sites_of(model)["norm"], sites_of(model)["gelu"]], ((X.clone(),), {})) as run:
            gradient = run.gradients((run.output * WEIGHTS).sum(1))["norm"]
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == (grad, inference)
    tolerance = 0.02 if around is _autocast else 1e-6
    torch.testing.assert_close(gradient, truth.grad, rtol=tolerance, atol=tolerance, check_dtype=False)
    assert [p.requires_grad for p in model.parameters()] == [not frozen] * 10
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert nn.Module.__call__ is called
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_weights_and_inputs_that_were_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model, x = net(), X.clone()
    weight, mean = model.conv2.weight, model.norm.running_mean
    truth = unrolled(net(), X)["relu#1"]
    with cut(model, [sites_of(model)["relu#1"]], ((x,), {})) as run:
        gradient = run.gradients((run.output * WEIGHTS).sum(1))["relu#1"]
    torch.testing.assert_close(gradient, truth.grad, rtol=1e-5, atol=1e-7)
    assert model.conv2.weight is weight
    assert model.norm.running_mean is mean


def test_half_precision_and_inputs_that_require_gradients() -> None:
    model = net().to(torch.bfloat16)
    x = X.bfloat16().requires_grad_()
    with cut(model, [site(model.conv1)], ((x,), {})) as run:
        gradient = run.gradients((run.output * WEIGHTS).sum(1))["here"]
    truth = unrolled(net(), X)["conv1"].grad
    assert gradient is not None and gradient.dtype == torch.bfloat16 and truth is not None
    assert float((gradient.float() - truth).norm() / truth.norm()) < 0.1
    assert x.grad is None


def test_a_forward_that_raises_leaves_no_trace_and_a_layer_that_did_not_run_is_named() -> None:
    model = net()
    called = nn.Module.__call__
    with pytest.raises(RuntimeError), cut(model, list(sites_of(model).values()), ((torch.randn(1, 2, 6, 5),), {})):
        pass
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert nn.Module.__call__ is called
    with pytest.raises(NetlensError, match="'relu#3' did not run"), cut(model, [site(model.relu, "relu#3", call=3)], ((X,), {})):
        pass


def test_a_pass_is_freed_without_the_garbage_collector() -> None:
    """What refers to itself would stay on the device until the next collection."""
    model = net()
    gc.disable()
    try:
        with cut(model, [site(model.conv1), sites_of(model)["gelu"]], ((X,), {})) as run:
            gradients = run.gradients(run.output[:, 0])
        kept = [weakref.ref(tensor) for tensor in (run.taken["here"].tensor, run.output, gradients["here"])]
        del run, gradients
        assert [tensor() for tensor in kept] == [None] * 3
    finally:
        gc.enable()


# --- forwards that do it in their own way


class Wrapped(nn.Module):
    """Body, `middle`, head."""

    def __init__(self, middle: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.after, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)
        self.act = nn.ReLU(inplace=True)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self, x).mean((2, 3)))


def _without_gradients(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        features = model.body(x)
        features = model.after(features)
    return features.relu()


def _in_place_unnamed(model: Any, x: Tensor) -> Tensor:
    x = model.body(x)
    model.act(x)  # what it returns is not looked at
    return model.after(x)


def _function_in_place_unnamed(model: Any, x: Tensor) -> Tensor:
    x = model.body(x)
    x.relu_()
    return model.after(x)


@pytest.mark.parametrize(
    ("middle", "where", "truth"),
    [
        (_without_gradients, "body", lambda m, a: m.after(a).relu()),
        (_in_place_unnamed, "act", lambda m, a: m.after(a)),
        (_function_in_place_unnamed, ":relu", lambda m, a: m.after(a)),
    ],
)
def test_gradients_come_back_through_no_grad_blocks_and_in_place_statements(middle: Any, where: str, truth: Any) -> None:
    model = Wrapped(middle).eval()
    here = site(model, function="relu") if where == ":relu" else site(getattr(model, where))
    x = torch.randn(2, 3, 6, 5)
    with cut(model, [here], ((x,), {})) as run:
        gradient = run.gradients(run.output[:, 1])["here"]
    activation = model.body(x).detach()
    activation = (activation if where == "body" else activation.clamp(min=0)).requires_grad_()
    (expected,) = torch.autograd.grad(model.head(truth(model, activation).mean((2, 3)))[:, 1].sum(), activation)
    torch.testing.assert_close(run.maps("here"), activation.detach())
    torch.testing.assert_close(gradient, expected)


def test_there_is_no_gradient_where_the_forward_switches_it_off_afterwards() -> None:
    def middle(model: Any, x: Tensor) -> Tensor:
        features = model.body(x)
        with torch.no_grad():
            return model.after(features)

    model = Wrapped(middle)
    with cut(model, [site(model.body)], ((torch.randn(1, 3, 6, 5),), {})) as run:
        assert run.gradients(run.output[:, 0]) == {"here": None}


def test_what_the_gradient_needs_and_the_forward_writes_over_is_said() -> None:
    model = Wrapped(lambda model, x: model.body(x).sigmoid().mul_(2))
    inputs = ((torch.randn(1, 3, 6, 5),), {})
    with cut(model, [site(model.body)], inputs) as run, pytest.raises(NetlensError, match="writes over a tensor"):
        run.gradients(run.output[:, 0])


def test_a_function_is_counted_in_the_forward_of_its_own_module_only() -> None:
    """`relu` inside a child is not one of the parent's, whatever other mode the parent switches on around it."""

    class Child(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x) * self.scale

    class Parent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.child = Child()

        def forward(self, x: Tensor) -> Tensor:
            with torch.device("cpu"):
                x = self.child(F.relu(x))
            return F.relu(self.child(x - 1))

    model, x = Parent(), torch.tensor([[[[0.2, 0.7], [3.0, -1.0]]]])
    layout = Layout("channels first", (1, 2, 2), 1, (2, 2))
    for call, expected in ((1, [[0.2, 0.7], [3.0, 0.0]]), (2, [[0.0, 0.8], [10.0, 0.0]])):
        with cut(model, [site(model, layout=layout, function="relu", call=call)], ((x,), {})) as run:
            torch.testing.assert_close(run.maps("here")[0, 0], torch.tensor(expected))


@dataclass
class Pair:
    left: Tensor
    right: dict[str, Any]


def test_parts_of_tuples_mappings_and_dataclasses() -> None:
    class Parts(nn.Module):
        def __init__(self, make: Callable[[Tensor], Any], read: Callable[[Any], Tensor]) -> None:
            super().__init__()
            self.inside = nn.Identity()
            self.inside.forward = make  # type: ignore[method-assign]
            self.read = read

        def forward(self, x: Tensor) -> Tensor:
            return self.read(self.inside(x))

    x = torch.randn(1, 4, 6, 5)
    for make, part, read in (
        (lambda x: (x + 1, x * 2, 3), "1", lambda found: found[1]),
        (lambda x: {"a": x + 1, "b": [x * 2]}, "b.0", lambda found: found["b"][0]),
        (lambda x: Pair(x + 1, {"b": x * 2}), "right.b", lambda found: found.right["b"]),
    ):
        model = Parts(make, lambda found, read=read: read(found).square().sum((1, 2, 3)))
        with cut(model, [site(model.inside, part=part)], ((x,), {})) as run:
            torch.testing.assert_close(run.gradients(run.output)["here"], 4 * x)


def test_tokens_lie_on_their_grid_without_the_prefix() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Flatten(), nn.Linear(21, 2))
    layout = Layout("tokens", (7, 3), 3, (2, 3), prefix=1)
    x = torch.randn(2, 7, 3)
    with cut(model, [site(model[0], layout=layout)], ((x,), {})) as run:
        gradient = run.gradients(run.output[:, 1])["here"]
    assert gradient is not None
    weight = model[2].weight.detach()[1].view(7, 3)
    values = model[0](x).detach()
    for row in range(2):
        for column in range(3):
            token = 1 + 3 * row + column
            torch.testing.assert_close(gradient[1, :, row, column], weight[token])
            torch.testing.assert_close(run.maps("here")[1, :, row, column], values[1, token])


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("where", ["linear1", "self_attn", ":relu"])
def test_layers_inside_fused_transformers(where: str) -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    layer, x = model.layers[1], torch.randn(2, 6, 8)
    width = 8 if where == "self_attn" else 16
    layout = Layout("tokens", (6, width), width, (6,))
    places = {"linear1": site(layer.linear1, layout=layout), ":relu": site(layer, layout=layout, function="relu")}
    here = places.get(where) or site(layer.self_attn, layout=layout, part="0")
    with torch.no_grad(), cut(model, [here], ((x,), {})) as run:
        gradient = run.gradients(run.output[..., 0])["here"]
    before = model.layers[0](x)
    attended = layer.self_attn(before, before, before, need_weights=False)[0]
    hidden = layer.linear1(layer.norm1(before + attended))
    truth = {"self_attn": attended, "linear1": hidden, ":relu": F.relu(hidden)}[where].detach().requires_grad_()
    middle = layer.norm1(before + (truth if where == "self_attn" else attended))
    ended = truth if where == ":relu" else F.relu(layer.linear1(middle) if where == "self_attn" else truth)
    output = layer.norm2(middle + layer.linear2(ended))
    (expected,) = torch.autograd.grad(output[..., 0].sum(), truth)
    torch.testing.assert_close(run.maps("here"), truth.detach().movedim(-1, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, expected.movedim(-1, 1), rtol=1e-4, atol=1e-5)


# --- wrappers


def test_compiled_and_parallel_models_are_run_as_what_they_wrap() -> None:
    model = net()
    assert inner(nn.DataParallel(model)) is model
    assert inner(torch.compile(nn.DataParallel(model))) is model
    truth = unrolled(model, X)["conv1"]
    if not hasattr(torch.compiler, "set_stance"):
        pytest.skip("this torch cannot switch compiled code off")
    model.conv2 = torch.compile(model.conv2)
    model.compile()
    with cut(inner(model), [site(model.conv1)], ((X,), {})) as run:
        gradient = run.gradients((run.output * WEIGHTS).sum(1))["here"]
    torch.testing.assert_close(gradient, truth.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="TorchScript") as caught:
        inner(torch.jit.trace(net(), X))
    assert "--checkpoint" in caught.value.hint


# --- replacing


@pytest.mark.parametrize("name", ["conv2", "relu#2", "gelu"])
def test_only_the_tail_sees_copies_of_a_layers_output(name: str) -> None:
    model, sample = net(), X[:1]
    body: list[int] = []
    model.stem.register_forward_hook(lambda _module, _args, output: body.append(len(output)))
    tails = {
        "conv2": lambda a, x: F.gelu(a + x),
        "relu#2": lambda a, x: F.gelu(model.conv2(a) + x),
        "gelu": lambda a, _: a,
    }
    with torch.no_grad():
        stem = model.norm(model.stem(sample)).clamp(min=0)
        hidden = model.conv1(stem).clamp(min=0)
        convolved = model.conv2(hidden)
        whole = {"conv2": convolved, "relu#2": hidden, "gelu": F.gelu(convolved + stem)}[name]
        expected = []
        for channel in (3, 0, 3):
            edited = whole.clone()
            edited[0, channel] = 0
            expected.append(model.head(tails[name](edited, stem).mean((2, 3)))[0])
        body.clear()
        if name != "gelu":
            model.forward = lambda x: _broadcasting(model, x)  # type: ignore[method-assign]
        with replaced(model, sites_of(model)[name], lambda output: without_channels(output, MAPS, [3, 0, 3])):
            for _ in range(2):  # calls are counted from each pass
                torch.testing.assert_close(model(sample), torch.stack(expected), rtol=1e-5, atol=1e-6)
    assert body == [1, 1]


def _broadcasting(model: Net, x: Tensor) -> Tensor:
    x = model.relu(model.norm(model.stem(x)))
    return model.head(F.gelu(model.conv2(model.relu(model.conv1(x))) + x).mean((2, 3)))


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 3, 2, 2), Layout("channels first", (3, 2, 2), 3, (2, 2))),
        ((1, 2, 2, 3), Layout("channels last", (2, 2, 3), 3, (2, 2))),
        ((1, 5, 3), Layout("tokens", (5, 3), 3, (2, 2), prefix=1)),
        ((5, 1, 3), Layout("tokens", (5, 3), 3, (2, 2), prefix=1, batch_axis=1)),
        ((4, 3, 2, 2), Layout("channels first", (4, 3, 2, 2), 3, (4, 2, 2), folded=4)),
    ],
)
def test_copies_without_a_channel_in_every_layout(shape: tuple[int, ...], layout: Layout) -> None:
    output = torch.arange(1.0, 1 + torch.Size(shape).numel()).view(shape)
    copies = without_channels(output, layout, [2, 0])
    channel_axis = 1 if layout.kind == "channels first" else -1
    samples = copies.chunk(2, dim=layout.batch_axis)
    for sample, channel in zip(samples, (2, 0), strict=True):
        expected = output.clone()
        expected.movedim(channel_axis, 0)[channel] = 0
        if layout.prefix:  # tokens before the grid keep theirs
            first = (slice(None), 0) if layout.batch_axis == 0 else (0,)
            expected[first] = output[first]
        assert torch.equal(sample, expected)


def test_a_layer_of_another_branch_begins_there_itself() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return (self.left(x) * self.right(x)).sum((1, 2, 3))

    model = Two()
    with cut(model, [site(model.right, "right"), site(model.left, "left")], ((X,), {})) as run:
        gradients = run.gradients(run.output)
    assert list(run.taken) == ["left", "right"]
    torch.testing.assert_close(gradients["left"], model.right(X).detach())
    torch.testing.assert_close(gradients["right"], model.left(X).detach())
