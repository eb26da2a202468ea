"""What is measured equals a forward pass unrolled by hand, and the model, torch and the memory are afterwards as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from weakref import finalize

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import IterableDataset

import netlens
from netlens.errors import ForwardFailed, InputError, LayerNotFound
from netlens.lenses.featuremaps.measure import Measured, measure
from netlens.loading.datasets import data_of


class Residual(nn.Module):
    """A residual block whose ReLUs write into their input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn, self.relu, self.conv2 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(True), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.relu(self.bn(self.conv1(x))))
        y += x
        return self.relu(y)


class Tokens(nn.Module):
    """A class token, then 2 x 3 patches of a picture of 4 x 6."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed, self.cls_token = nn.Conv2d(3, 8, 2, 2), nn.Parameter(torch.randn(1, 1, 8))
        self.norm, self.up, self.head = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], 1)
        return self.head(F.gelu(self.up(self.norm(tokens)))[:, 0])


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm, self.fc = nn.Embedding(11, 4), nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.fc(self.lstm(self.embed(ids))[0][:, -1])


class Broken(Residual):
    def forward(self, x: Tensor) -> Tensor:
        super().forward(x)
        random.random()
        raise ValueError("out of luck")


def run(model: nn.Module, *batches: Tensor, keep: int = 8) -> Measured:
    return measure(model, lambda: (((x,), {}) for x in batches), keep=keep)


def trained(model: nn.Module) -> nn.Module:
    """Let BatchNorm see data, so that eval mode uses its statistics."""
    model.train()
    with torch.no_grad():
        model(torch.randn(16, 3, 4, 6))
    return model


@pytest.fixture(autouse=True)
def fixed() -> None:
    torch.manual_seed(0)


def equal(found: Measured, expected: dict[str, Tensor]) -> None:
    assert list(found.maps) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(torch.from_numpy(found.maps[name].joined()), tensor), name


def test_a_small_cnn_equals_its_unrolled_forward():
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    x = torch.randn(4, 3, 4, 6)
    conv, head = model[0], model[4]
    with torch.no_grad():
        first = F.conv2d(x, conv.weight, conv.bias)
        pooled = F.adaptive_avg_pool2d(first.clamp(min=0), 1)
        scores = F.linear(pooled.flatten(1), head.weight, head.bias)
    found = run(model, x[:2], x[2:])
    assert found.samples == 4
    equal(found, {"0": first, "1": first.clamp(min=0), "2": pooled, "3": pooled.flatten(1), "4": scores})


def test_in_place_relus_do_not_reach_back_into_what_was_measured():
    model, x = trained(Residual()), torch.randn(3, 3, 4, 6)
    with torch.no_grad():
        conv1 = F.conv2d(x, model.conv1.weight, model.conv1.bias, padding=1)
        bn = F.batch_norm(conv1, model.bn.running_mean, model.bn.running_var, model.bn.weight, model.bn.bias, eps=model.bn.eps)
        conv2 = F.conv2d(bn.relu(), model.conv2.weight, model.conv2.bias)
    equal(run(model, x), {"conv1": conv1, "bn": bn, "relu": bn.relu(), "conv2": conv2, "relu#2": (conv2 + x).relu()})


def test_tokens_are_folded_to_their_patches_and_the_class_token_stands_apart():
    model, x = Tokens(), torch.randn(2, 3, 4, 6)
    with torch.no_grad():
        patches = F.conv2d(x, model.patch_embed.weight, model.patch_embed.bias, stride=2)
        tokens = torch.cat([model.cls_token.expand(2, -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        normed = F.layer_norm(tokens, (8,), model.norm.weight, model.norm.bias)
    found = run(model, x)
    assert torch.equal(torch.from_numpy(found.maps["patch_embed"].joined()), patches)
    assert torch.equal(torch.from_numpy(found.maps["norm"].joined()), normed[:, 1:].reshape(2, 2, 3, 8).permute(0, 3, 1, 2))
    assert torch.equal(torch.from_numpy(found.maps["norm"].prefix()), normed[:, :1])
    assert found.maps["patch_embed"].prefix() is None


def test_an_lstm_equals_its_gates_written_out():
    model, ids = Recurrent().double(), torch.randint(0, 11, (2, 5))
    lstm = model.lstm
    h = c = torch.zeros(2, 6, dtype=torch.float64)
    outputs = []
    with torch.no_grad():
        for step in model.embed.weight[ids].unbind(1):
            gates = step @ lstm.weight_ih_l0.T + lstm.bias_ih_l0 + h @ lstm.weight_hh_l0.T + lstm.bias_hh_l0
            i, f, g, o = gates.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
    found = run(model, ids)
    np.testing.assert_allclose(found.maps["lstm.0"].joined(), torch.stack(outputs, 2).numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("model", [Residual, Tokens])
def test_the_output_is_bitwise_what_it_is_without_netlens(model):
    model, x, results = trained(model()).eval(), torch.randn(2, 3, 4, 6), []
    with torch.no_grad():
        plain = model(x)
    model.register_forward_hook(lambda _module, _args, output: results.append(output.clone()))
    run(model, x)
    assert len(results) == 1 and torch.equal(results[0], plain)


def state(model: nn.Module) -> dict[str, object]:
    return {
        "call": nn.Module.__call__,
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "global": len(nn.modules.module._global_forward_hooks),
        "training": [m.training for m in model.modules()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "random": (random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()),
        "values": {name: tensor.tolist() for name, tensor in model.state_dict().items()},
        "grads": [(p.requires_grad, p.grad) for p in model.parameters()],
        "momentum": [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)],
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "grad mode": torch.is_grad_enabled(),
    }


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("way", ["measure", "api"])
@pytest.mark.parametrize("cls", [Residual, Broken])
def test_no_trace_is_left_also_after_an_error(cls, way, fresh):
    model = cls() if fresh or cls is Broken else trained(cls())
    model.conv1.eval()  # a frozen part, in a model that trains
    x = torch.randn(2, 3, 4, 6)
    before = state(model)
    failing = pytest.raises((ValueError, ForwardFailed), match="out of luck") if cls is Broken else None
    if failing is None:
        run(model, x) if way == "measure" else netlens.featuremaps(model, x)
    else:
        with failing:
            run(model, x) if way == "measure" else netlens.featuremaps(model, x)
    assert state(model) == before


def test_a_forward_that_changes_the_model_leaves_the_callers_as_it_came():
    class Counts(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.calls.append(1)
            self.seen += 1
            return super().forward(x)

    model = Counts(4, 2)
    model.calls = []
    model.register_buffer("seen", torch.zeros(1))
    report = netlens.featuremaps(model, torch.randn(3, 4))
    assert (model.calls, float(model.seen)) == ([], 0) and report.run.samples == 3


class Stream(IterableDataset[Tensor]):
    """2,000 pictures, of which it knows how many are alive."""

    def __init__(self) -> None:
        self.alive = self.most = self.made = 0

    def __iter__(self) -> Iterator[Tensor]:
        for _ in range(2000):
            picture = torch.rand(3, 8, 8)
            self.alive, self.made = self.alive + 1, self.made + 1
            self.most = max(self.most, self.alive)
            finalize(picture, self._gone)
            yield picture
            del picture

    def _gone(self) -> None:
        self.alive -= 1


def test_of_two_thousand_pictures_no_more_than_the_batch_before_and_this_one_are_alive():
    source, living, most = Stream(), [0], [0]
    data = data_of(source, "stream")

    def gone() -> None:
        living[0] -= 1

    def track(_module: nn.Module, _args: object, output: Tensor) -> None:
        living[0] += 1
        most[0] = max(most[0], living[0])
        finalize(output, gone)

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    for layer in model:
        layer.register_forward_hook(track)
    found = measure(model, lambda: ((batch.args, {}) for batch in data.batches(8, None)), keep=4)
    assert source.made == found.samples == 2000
    assert source.most <= 2 * 8 + 1  # while one group is read, the last one is not gone yet
    assert most[0] <= 3 and living[0] == 0  # outputs of a single pass
    assert {name: maps.joined().shape[0] for name, maps in found.maps.items()} == {"0": 4, "1": 4, "2": 4}
    assert sum(part.nbytes for maps in found.maps.values() for part in maps.values) == 4 * 4 * 4 * (36 + 36 + 16)


def test_the_python_function_reports_numpys_numbers():
    model, x = nn.Sequential(nn.Linear(6, 4), nn.Tanh()), torch.randn(50, 6)
    rows = netlens.featuremaps(model, x).layers
    weight, bias = (tensor.detach().double().numpy() for tensor in model[0].parameters())
    y = x.double().numpy() @ weight.T + bias
    for row, values in zip(rows, (y, np.tanh(y)), strict=True):
        assert (row.mean, row.std, row.least) == pytest.approx((values.mean(), values.std(), values.min()), rel=1e-5)


def test_the_python_function_takes_inputs_in_every_form():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 2)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.a(left) + right

    model, left, right = Two(), torch.randn(3, 4), torch.ones(3, 2)
    reports = [
        netlens.featuremaps(model, (left, right)),
        netlens.featuremaps(model, {"left": left, "right": right}),
        netlens.featuremaps(model, left, kwargs={"right": right}),
    ]
    assert len({report.layers for report in reports}) == 1 and not reports[0].run.random_inputs
    random_ = netlens.featuremaps(model, input_size=[(5, 4), (5, 2)])
    assert random_.run.samples == 5 and random_.run.random_inputs
    assert netlens.featuremaps(nn.Conv2d(3, 2, 3)).run.samples == 8  # the first layer tells
    with pytest.raises(InputError):
        netlens.featuremaps(model, left, kwargs={"right": right}, input_size=(3, 4))


def test_the_python_function_chooses_layers_and_names_what_raises():
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.randn(2, 3, 5, 5)
    assert [row.name for row in netlens.featuremaps(model, x, layer="ReLU").layers] == ["1"]
    assert [row.name for row in netlens.featuremaps(model, x, layer=["0", "1"]).layers] == ["0", "1"]
    with pytest.raises(LayerNotFound):
        netlens.featuremaps(model, x, layer="layer4")
    with pytest.raises(ForwardFailed, match=r"layer `0` Conv2d expects \(N, 3, H, W\), got \(2, 4, 5, 5\)"):
        netlens.featuremaps(model, torch.randn(2, 4, 5, 5))


def test_the_python_function_looks_at_attention():
    model = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.randn(3, 5, 8)
    (layer,) = netlens.featuremaps(model, (x, x, x), attention=True).attention
    assert (layer.heads, layer.queries, layer.keys) == (2, 5, 5)


def test_half_precision_random_numbers_fit_the_model():
    report = netlens.featuremaps(nn.Linear(4, 2).bfloat16(), input_size=(3, 4))
    assert report.run.dtype == "bfloat16" and report.layers[0].nan == 0


def test_an_output_without_elements_is_left_out():
    class Boxes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x[:0])

    assert run(Boxes(), torch.randn(3, 4)).layers == ()


def test_pictures_in_a_list_are_as_many_samples():
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, pictures: list[Tensor]) -> list[Tensor]:
            return [self.conv(picture[None]) for picture in pictures]

    assert netlens.featuremaps(Detector(), [torch.randn(3, 4, 5), torch.randn(3, 6, 5)]).run.samples == 2


def test_a_batch_that_is_not_finite_does_not_make_a_fresh_batchnorm_sick():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    sick = torch.randn(2, 3, 4, 4)
    sick[1] = 3e38  # the convolution overflows
    with torch.no_grad():
        model[0].weight.fill_(10)
    found = run(model, torch.randn(2, 3, 4, 4), sick)
    assert found.first_nonfinite is not None and (found.first_nonfinite.name, found.first_nonfinite.sample) == ("0", 3)
    assert model[1].running_mean.eq(0).all() and model[1].running_var.eq(1).all()
