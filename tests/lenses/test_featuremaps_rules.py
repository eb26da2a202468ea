"""The rules of featuremaps: planted faults, thresholds at their edges, and what is told once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from netlens.findings import CODES, Finding, Severity
from netlens.lenses.featuremaps.report import FeaturemapsReport, NonFinite
from netlens.lenses.featuremaps.rules import alarms, diagnose, marks, too_few
from netlens.probing.untouched import seeded
from tests.lenses.featuremaps_case import attention, codes, layer, measured, relu, report


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def only(found: FeaturemapsReport) -> Finding:
    """Return the single finding."""
    (finding,) = diagnose(found)
    assert finding.code in CODES
    return finding


# -- planted faults -----------------------------------------------------------------------------------------------------------------


def convolutions(*, norm: bool = False, act: type[nn.Module] = nn.ReLU, depth: int = 4) -> nn.Sequential:
    """conv1, (norm1,) act1, ... pool, flat, head: fresh, as He et al. 2015 advise."""
    parts: dict[str, nn.Module] = {}
    for place in range(1, depth + 1):
        parts[f"conv{place}"] = nn.Conv2d(3 if place == 1 else 32, 32, 3, padding=1)
        nn.init.kaiming_normal_(parts[f"conv{place}"].weight)
        nn.init.zeros_(parts[f"conv{place}"].bias)
        parts |= {f"norm{place}": nn.BatchNorm2d(32)} if norm else {}
        parts[f"act{place}"] = act()
    parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "head": nn.Linear(32, 10)}
    model = nn.Sequential()
    for name, part in parts.items():
        model.add_module(name, part)
    return model


class Bend(nn.Module):
    """A function in the middle of a network."""

    def __init__(self, bend: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.bend = bend

    def forward(self, x: Tensor) -> Tensor:
        return self.bend(x)


def shifted(model: nn.Sequential, name: str, by: float, channels: slice = slice(None)) -> nn.Module:
    getattr(model, name).bias[channels] += by
    return model


def scaled(model: nn.Sequential, by: float, *names: str) -> nn.Module:
    for name in names or [name for name, _ in model.named_children() if name.startswith("conv")]:
        getattr(model, name).weight *= by
    return model


def bent(bend: Callable[[Tensor], Tensor]) -> nn.Module:
    model = convolutions()
    model.act2 = Bend(bend)
    return model


def copied(model: nn.Sequential, *, signs: bool = False) -> nn.Module:
    """All filters of the second convolution are the first one."""
    model.conv2.weight[:] = model.conv2.weight[:1].clone()
    if signs:
        model.conv2.weight[1::2] *= -1
    return model


def spoilt(value: float) -> nn.Module:
    model = convolutions()
    model.conv3.weight[3, 1, 0, 2] = value
    return model


class Doubling(nn.Module):
    """A residual network each of whose blocks doubles its input."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3)
        self.blocks = nn.ModuleList(nn.Conv2d(16, 16, 1) for _ in range(blocks))
        self.head = nn.Linear(16, 4)
        for block in self.blocks:
            nn.init.dirac_(block.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean((2, 3)))


class Attending(nn.Module):
    """One layer of attention over 64 tokens."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.norm, self.attn, self.head = nn.LayerNorm(32), nn.MultiheadAttention(32, 2, batch_first=True), nn.Linear(32, 4)
        self.attn.in_proj_weight[:32] *= gain

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.head((x + self.attn(x, x, x, need_weights=False)[0]).mean(1))


PLANTED: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "all of a ReLU's channels silenced": (lambda: shifted(convolutions(), "conv2", -100), "dead-relu", "act2"),
    "most of a ReLU's channels silenced": (lambda: shifted(convolutions(), "conv2", -100, slice(30)), "dead-relu", "act2"),
    "a quarter silenced behind BatchNorm": (lambda: shifted(convolutions(norm=True), "norm2", -50, slice(8)), "dead-relu", "act2"),
    "all silenced behind BatchNorm": (lambda: shifted(convolutions(norm=True), "norm3", -50), "dead-relu", "act3"),
    "tanh at its bounds": (lambda: scaled(convolutions(act=nn.Tanh), 100, "conv2"), "saturated", "act2"),
    "sigmoid at its bounds": (lambda: scaled(convolutions(act=nn.Sigmoid), 300, "conv1"), "saturated", "act1"),
    "tanh at one bound, for every input": (lambda: shifted(convolutions(act=nn.Tanh), "conv2", 50), "saturated", "act2"),
    "a thousand times too large, each layer": (lambda: scaled(convolutions(), 1000), "exploding-activations", "conv1"),
    "too large only in the middle": (lambda: scaled(convolutions(), 1e6, "conv3"), "exploding-activations", "conv3"),
    "ten thousand times too small, each layer": (lambda: scaled(convolutions(), 1e-4), "vanishing-activations", "conv2"),
    "far too small in the middle": (lambda: scaled(convolutions(), 1e-7, "conv3"), "vanishing-activations", "conv3"),
    "a layer of zeros": (lambda: scaled(convolutions(), 0, "conv3"), "input-ignored", "conv3"),
    "a layer of zeros before BatchNorm": (lambda: scaled(convolutions(norm=True), 0, "conv3"), "input-ignored", "conv3"),
    "nothing but the bias": (lambda: scaled(convolutions(), 0, "head"), "input-ignored", "head"),
    "a bias that drowns the signal": (lambda: shifted(convolutions(), "conv3", 1e6), "exploding-activations", "conv3"),
    "one filter, in all channels": (lambda: copied(convolutions()), "rank-collapse", "conv2"),
    "one filter and its negative": (lambda: copied(convolutions(), signs=True), "rank-collapse", "conv2"),
    "the logarithm of a negative number": (lambda: bent(torch.log), "act-nonfinite", "act2"),
    "a division by zero": (lambda: bent(lambda x: x / x.clamp(max=0)), "act-nonfinite", "act2"),
    "an overflow": (lambda: bent(lambda x: (100 * x).exp().exp()), "act-nonfinite", "act2"),
    "an infinite weight": (lambda: spoilt(torch.inf), "act-nonfinite", "conv3"),
    "a weight that is not a number": (lambda: spoilt(torch.nan), "act-nonfinite", "conv3"),
    "blocks that double": (lambda: Doubling(24), "exploding-activations", "blocks.11"),
    "scores far too large": (lambda: scaled(convolutions(), 300, "head"), "overconfident", ""),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_told_once_by_its_own_rule_where_it_begins(fault):
    make, code, where = PLANTED[fault]
    with seeded(0), torch.no_grad():
        found = measured(make(), torch.randn(8, 3, 16, 16), torch.randn(8, 3, 16, 16), initialised=True)
    finding = only(found)
    assert (finding.code, finding.where.split("#")[0]) == (code, where)
    assert finding.measured and finding.threshold and finding.remedy


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh, nn.GELU, nn.LeakyReLU])
def test_the_patient_without_a_fault_is_healthy(act, norm):
    with seeded(0):
        model, x = convolutions(norm=norm, act=act), torch.randn(16, 3, 16, 16)
    assert diagnose(measured(model, x, initialised=True)) == ()


@pytest.mark.parametrize(("gain", "expected"), [(1, []), (100, ["attention-collapse"])])
def test_queries_that_are_too_large_attend_to_one_token(gain, expected):
    with seeded(0), torch.no_grad():
        found = measured(Attending(gain), torch.randn(8, 64, 32), initialised=True, heads=True)
    assert codes(diagnose(found)) == expected


def test_half_precision_overflows():
    """60,000 is near the largest number of fp16, 65,504: twice as much is not finite."""
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).half()
    with torch.no_grad():
        model[0].weight.zero_(), model[0].bias.fill_(60000), model[2].weight.fill_(1.0)
    finding = only(measured(model, torch.ones(8, 8).half()))
    assert (finding.code, finding.where) == ("act-nonfinite", "2") and "bf16" in finding.remedy


# -- thresholds ---------------------------------------------------------------------------------------------------------------------

WARNING, ERROR, INFO = Severity.WARNING, Severity.ERROR, Severity.INFO
EDGES: list[tuple[FeaturemapsReport, dict[str, Severity]]] = [
    (report(relu(dead=12, after_norm=True)), {}),  # 18.75 %
    (report(relu(dead=13, after_norm=True)), {"dead-relu": WARNING}),  # 20.3 %
    (report(relu(dead=31, after_norm=True)), {"dead-relu": WARNING}),
    (report(relu(dead=32, after_norm=True)), {"dead-relu": ERROR}),
    (report(relu(dead=47)), {}),  # 0.5 + 2 / sqrt(64) = 0.75 = 48 / 64
    (report(relu(dead=48)), {"dead-relu": ERROR}),
    (report(relu(dead=8, channels=8, elements=512)), {"dead-relu": ERROR}),  # min(0.95, 0.5 + 2 / sqrt(8)) = 0.95
    (report(relu(dead=7, channels=7, elements=512)), {}),  # fewer than 8 channels say nothing
    (report(relu(dead=64, elements=8 * 64 - 1)), {}),  # fewer than 8 values a channel
    (report(relu(dead=64, activation="gelu")), {}),  # a GELU has a gradient below 0
    (report(relu(dead=64, final=True)), {}),
    (report(layer(activation="tanh", saturated=0.49)), {}),
    (report(layer(activation="tanh", saturated=0.5)), {"saturated": WARNING}),
    (report(layer(activation="sigmoid", saturated=0.9)), {"saturated": ERROR}),
    (report(layer(activation="hardsigmoid", saturated=0.99)), {}),
    (report(layer(rms=999.0)), {}),
    (report(layer(rms=1000.0)), {"exploding-activations": WARNING}),
    (report(layer(rms=1e5)), {"exploding-activations": ERROR}),
    (report(layer(rms=1e5), run={"input_rms": 255.0}), {}),  # 392 times as large
    (report(layer(rms=100.0), run={"input_rms": 1e-3}), {}),  # enlarged, to a normal size
    (report(layer(rms=1e4), run={"input_rms": None}), {"exploding-activations": WARNING}),  # ids have no size
    (report(layer(), layer(rms=2e-5)), {}),
    (report(layer(), layer(rms=9e-6)), {"vanishing-activations": WARNING}),
    (report(layer(), layer(rms=9e-6), layer()), {}),  # it comes back
    (report(layer(), layer(rms=1e-8)), {"vanishing-activations": ERROR}),
    (report(layer(), layer(rms=1.0), run={"input_rms": 1e9}), {}),  # made smaller, to a normal size
    (report(layer(effective_rank=1.06)), {}),
    (report(layer(effective_rank=1.04)), {"rank-collapse": WARNING}),
    (report(layer(effective_rank=1.04, channels=7)), {}),
    (report(layer(effective_rank=1.04, elements=32 * 64 - 1)), {}),
    (report(layer(effective_rank=1.04, activation="softmax")), {}),
    (report(layer(effective_rank=1.04), run={"samples": 1}), {}),
    (report(layer(correlation=0.94)), {}),
    (report(layer(correlation=0.96)), {"redundant-channels": WARNING}),
    (report(layer(correlation=1.0, effective_rank=1.0)), {"rank-collapse": WARNING}),
    (report(output={"between": 1.1e-6}), {}),
    (report(output={"between": 9e-7}), {"batch-invariant": WARNING}),
    (report(output={"between": 9e-11}), {"input-ignored": ERROR}),
    (report(output={"between": 9e-11}, initialised=True), {"input-ignored": INFO}),  # a class token behind a LayerScale of 1e-5
    (report(output={"between": 0.0}, initialised=True), {"input-ignored": ERROR}),
    (report(output={"between": 0.0}, run={"samples": 1}), {}),
    (report(attention=(attention(entropy=(0.05, 0.15)),)), {}),
    (report(attention=(attention(entropy=(0.05, 0.14)),)), {"attention-collapse": WARNING}),
    (report(attention=(attention(entropy=(0.0, 0.0), keys=7),)), {}),
    (report(output={"top_probability": 0.91}, initialised=True), {"overconfident": WARNING}),
    (report(output={"top_probability": 0.89}, initialised=True), {}),
    (report(output={"top_probability": 0.99}), {}),  # a trained network may be sure
    (report(output={"top_probability": 0.99, "classes": 2}, initialised=True), {}),
    (report(output={"predicted": 1, "entropy": 0.5}), {"constant-output": WARNING}),
    (report(output={"predicted": 1, "entropy": 0.49}), {"constant-output": INFO}),  # sure, as of a folder of cats
    (report(output={"predicted": 1, "entropy": 0.01, "between": 0.02}), {"constant-output": INFO}),
    (report(output={"predicted": 1, "entropy": 0.01, "between": 0.019}), {"constant-output": WARNING}),
    (report(output={"predicted": 1, "classes": 2}), {}),
    (report(output={"predicted": 1}, run={"samples": 7}), {}),
    (report(output={"predicted": 1}, run={"random_inputs": True}), {}),
    (report(output={"predicted": 1}, initialised=True), {}),
    (report(output={"nonfinite": 3}), {"output-nonfinite": ERROR}),
    (report(layer(nan=5)), {"act-nonfinite": ERROR}),
    (report(layer(infinite=5)), {"act-nonfinite": INFO}),  # gone again at the output
    (report(layer(infinite=5), layer(nan=1)), {"act-nonfinite": ERROR}),
    (report(layer(infinite=5), output={"nonfinite": 1}), {"act-nonfinite": ERROR}),
    (report(layer(infinite=5), first_nonfinite=NonFinite("conv", "Conv2d", 0, 5, 0, weights=True)), {"act-nonfinite": ERROR}),
    (report(layer(infinite=5), relu(dead=64)), {"act-nonfinite": INFO, "dead-relu": ERROR}),
]


@pytest.mark.parametrize(("found", "expected"), EDGES)
def test_thresholds(found, expected):
    assert {finding.code: finding.severity for finding in diagnose(found)} == expected


@pytest.mark.parametrize("samples", [1, 2, 7])
def test_too_few_samples_call_nothing_dead(samples):
    finding = only(report(relu(dead=64), run={"samples": samples}))
    assert finding.severity is Severity.INFO and "too few" in finding.message
    assert marks(report(relu(dead=64), run={"samples": samples})) == {} == alarms(report(relu(dead=64), run={"samples": samples}))


@pytest.mark.parametrize(
    ("sick", "real", "noise"),
    [
        (relu(dead=40, after_norm=True), ERROR, WARNING),
        (relu(dead=20, after_norm=True), WARNING, INFO),
        (layer(effective_rank=1.0), WARNING, INFO),
        (layer(correlation=0.99), WARNING, INFO),
        (layer(rms=1e6), ERROR, ERROR),
        (layer(activation="tanh", saturated=0.95), ERROR, ERROR),
    ],
)
def test_noise_weakens_what_a_trained_network_may_do_on_it(sick, real, noise):
    assert only(report(sick)).severity is real
    found = report(sick, run={"random_inputs": True})
    assert only(found).severity is noise
    assert ("on noise" in only(found).message) is (noise < real)
    assert only(replace(found, initialised=True)).severity is real


# -- once ---------------------------------------------------------------------------------------------------------------------------


def test_the_worst_dead_layer_is_told_and_the_others_named():
    sick = [relu(f"act{place}", dead=count, after_norm=True) for place, count in enumerate((20, 64, 40, 16, 33))]
    finding = only(report(*sick))
    assert (finding.where, finding.measured) == ("act1", "100 %")
    assert finding.message.endswith("; also act2 (40/64), act4 (33/64), act0 (20/64) and 1 more")


def test_an_explosion_is_told_where_it_begins():
    """What comes after is saturated, sure of itself and looks at one token, because it is too large."""
    found = report(
        layer("a", rms=10.0),
        layer("b", rms=2e3),
        layer("c", rms=5e6),
        layer("d", rms=1.0, activation="tanh", saturated=0.99),
        output={"top_probability": 1.0},
        initialised=True,
        attention=(attention(entropy=(0.0, 0.0)),),
    )
    finding = only(found)
    assert (finding.where, finding.severity) == ("b", Severity.ERROR)
    assert finding.message.endswith("(RMS 2.00e3); it begins here, and is in 1 later layer: c (×5.00e6)")
    assert alarms(found) == {"b": "exploding", "c": "exploding"}


def test_saturation_before_an_explosion_is_a_fault_of_its_own():
    found = report(layer("a", activation="tanh", saturated=0.99), layer("b", rms=2e6))
    assert codes(diagnose(found)) == ["saturated", "exploding-activations"]


def test_after_the_input_is_lost_nothing_else_is_judged():
    later = {"between": 0.0}
    found = report(
        layer("a"),
        layer("b", **later),
        relu("c", dead=64, **later),
        layer("d", effective_rank=1.0, **later),
        output={"between": 0.0, "predicted": 1},
    )
    found = replace(found, layers=(*found.layers[:-1], replace(found.layers[-1], between=0.0)))
    finding = only(found)
    assert (finding.code, finding.where) == ("input-ignored", "b") and "`b` (Conv2d)" in finding.message
    assert alarms(found) == {"b": "input lost"}
    assert marks(found) == {1: {"between": Severity.ERROR}}


def test_a_head_that_starts_at_zero_is_not_called_lost():
    """All scores of a fresh ViT of torchvision are 0: their variance has no mean square to be compared with."""
    found = report(layer("a"), output={"between": None})
    found = replace(found, layers=(found.layers[0], replace(found.layers[1], between=0.0)))
    assert diagnose(found) == () and alarms(found) == {} and marks(found) == {}


class Causal(nn.Module):
    """One head that looks back only, by a mask of -inf that a module adds."""

    def __init__(self, mask: nn.Module) -> None:
        super().__init__()
        self.norm, self.query, self.key, self.value = nn.LayerNorm(32), *(nn.Linear(32, 32) for _ in range(3))
        self.mask, self.softmax, self.act, self.head = mask, nn.Softmax(-1), nn.ReLU(), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        scores = self.mask(self.query(x) @ self.key(x).transpose(1, 2) / 32**0.5)
        return self.head(self.act(x + self.softmax(scores) @ self.value(x)).mean(1))


@pytest.mark.parametrize("dead", [False, True])
def test_a_mask_of_minus_infinity_is_information_and_silences_no_rule(dead):
    """Of 8 samples of 24 tokens 24 * 23 / 2 scores each are masked."""
    with seeded(0), torch.no_grad():
        model = Causal(Bend(lambda scores: scores + torch.full((24, 24), -torch.inf).triu(1)))
        model.value.bias[:] -= 100 * dead
        found = measured(model, torch.randn(8, 24, 32), initialised=True)
    findings = {finding.code: finding for finding in diagnose(found)}
    assert findings.keys() == {"act-nonfinite"} | ({"dead-relu"} if dead else set())
    finding = findings["act-nonfinite"]
    assert (finding.severity, finding.where) == (Severity.INFO, "mask") and "mask of -inf" in finding.message
    assert finding.measured.startswith("2,208 Inf in 1 layer")
    assert "mask" not in alarms(found) and all("nonfinite" not in row for row in marks(found).values())


def test_a_mask_that_leaves_a_row_without_a_token_is_an_error():
    """The softmax of -inf alone is NaN."""
    with seeded(0):
        finding = only(measured(Causal(Bend(lambda scores: scores + torch.full((24, 24), -torch.inf).triu(0))), torch.randn(8, 24, 32)))
    assert (finding.code, finding.severity, finding.where) == ("act-nonfinite", Severity.ERROR, "mask")
    assert "the first NaN is in `softmax`" in finding.message


def test_an_overflow_that_a_clamp_hides_is_told_by_what_did_not_overflow():
    """exp(89) is more than float32 holds, exp(88) is 1.7e38."""
    with seeded(0), torch.no_grad():
        model = convolutions()
        model.act2, model.conv3 = Bend(lambda x: (60 * x).exp()), nn.Sequential(Bend(lambda x: x.clamp(-1, 1)), model.conv3)
        found = measured(model, torch.randn(8, 3, 16, 16))
    assert found.output is not None and found.output.nonfinite == 0
    findings = {finding.code: (finding.severity, finding.where) for finding in diagnose(found)}
    assert findings == {"exploding-activations": (Severity.ERROR, "act2"), "act-nonfinite": (Severity.INFO, "act2")}


def test_after_what_is_not_finite_nothing_else_is_judged():
    found = report(
        relu("a", dead=64),
        layer("b", nan=3, infinite=1),
        layer("c", rms=1e9),
        first_nonfinite=NonFinite("b", "Conv2d", 3, 1, 5, weights=True),
    )
    finding = only(found)
    assert (finding.where, finding.measured) == ("b", "3 NaN, 1 Inf in sample 5") and "checkpoint" in finding.remedy
    assert alarms(found) == {"b": "not finite"} and marks(found) == {1: {"nonfinite": Severity.ERROR}}


def test_where_only_some_layers_were_looked_at_nothing_is_said_of_the_end():
    whole = report(layer("a"), layer("b", rms=1e-7))
    assert codes(diagnose(whole)) == ["vanishing-activations"]
    assert diagnose(replace(whole, layers=whole.layers[:2])) == ()


RELU = relu(dead=0)
NOTES: list[tuple[FeaturemapsReport, tuple[str, ...]]] = [
    (report(RELU), ()),
    (report(RELU, run={"samples": 7}), ("7 samples: dead channels and one class for all from 8 samples on",)),
    (report(layer(), run={"samples": 2}), ("2 samples: one class for all from 8 samples on",)),
    (report(RELU, run={"samples": 2}, initialised=True), ("2 samples: dead channels from 8 samples on",)),
    (report(RELU, run={"samples": 2, "random_inputs": True}), ("2 samples: dead channels from 8 samples on",)),
    (report(layer(), run={"samples": 2}, output={"classes": None}), ()),
    (report(layer(nan=1), run={"samples": 1}), ()),
]


@pytest.mark.parametrize(("found", "notes"), NOTES)
def test_rules_that_had_too_few_samples_are_noted(found, notes):
    assert too_few(found) == notes


def test_a_single_sample_tells_nothing_about_samples():
    (note,) = too_few(report(RELU, run={"samples": 1}))
    assert note.startswith("1 sample: whether the output depends on the input") and note.endswith("from 8 samples on")


def test_hostile_names_stay_names():
    finding = only(report(relu("::error title=x::", dead=60), relu("a" * 300, dead=50)))
    assert not finding.where.startswith("::") and "::error" not in finding.message and len(finding.message) < 300
