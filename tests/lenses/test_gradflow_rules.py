"""The rules of gradflow on reports made by hand: a planted fault and a control for each, edges of thresholds, and what is told once."""

from __future__ import annotations

from dataclasses import replace
from math import inf, log, nan
from typing import Any

import pytest

from netlens.findings import CODES, Finding, Severity
from netlens.lenses.gradflow.report import FirstNonFinite, GradflowReport, Noise, Step
from netlens.lenses.gradflow.rules import alarms, diagnose, marks, notes, second_look_matters, verdict
from tests.lenses.gradflow_case import chain, layer, look, overfit, parameter, rank, report, scale, silent, without, zero

ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO
Told = list[tuple[str, Severity]]


def told(found: GradflowReport) -> Told:
    findings = diagnose(found)
    assert all(finding.code in CODES for finding in findings)
    return [(finding.code, finding.severity) for finding in findings]


def only(found: GradflowReport) -> Finding:
    (finding,) = diagnose(found)
    return finding


def test_a_healthy_report_raises_nothing():
    found = report()
    assert told(found) == [] and alarms(found) == {} and marks(found) == {}
    assert verdict(found) == ("is it learning? nothing stands in its way: all 8 parameters that can learn get gradients", INFO)


# -- Where gradients arrive ---------------------------------------------------------------------------------------------------------

FROZEN = [without(f"l{place}.weight", "frozen") for place in range(3)]
LOOSE = [without(f"l{place}.weight", "detached") for place in range(3)]

NOWHERE: dict[str, tuple[GradflowReport, str]] = {
    "all frozen": (report(*FROZEN, layers=[layer("l0", status="no grad")]), "all are frozen"),
    "no parameter used": (report(without("l0.weight", "unused"), layers=[layer("l1", status="no grad")]), "uses none"),
    "torch.no_grad() around it": (report(*LOOSE, layers=[silent("l0", "no grad"), silent("l1", "no grad")]), "without a graph"),
    "the graph ends inside": (report(*LOOSE, layers=[silent("l0", "detached"), silent("l1", "no grad")]), "the graph ends before `l1`"),
    "the loss is detached": (report(*LOOSE, layers=[silent("l0", "detached"), silent("l1", "detached")]), "not connected to the output"),
    "no parameter, and no graph": (report(layers=[silent("l0", "no grad")], parameters=()), "without a graph"),
}


@pytest.mark.parametrize("case", NOWHERE)
def test_no_gradient_at_all(case):
    found, words = NOWHERE[case]
    finding = only(found)
    assert (finding.code, finding.severity) == ("no-grad", ERROR) and words in finding.message
    assert verdict(found)[0].startswith("is it learning? no: ")


def test_without_parameters_gradients_may_flow_through_layers():
    assert told(report(layers=[layer("a")], parameters=())) == []


@pytest.mark.parametrize(("status", "code"), [("unused", "unused-parameters"), ("detached", "detached-parameters")])
def test_share_of_parameters_without_a_gradient(status, code):
    """More than half of the trainable elements is an error: of two equal weights one is half, and frozen ones do not count."""
    lost = without("b.weight", status)
    assert told(report(parameter("a.weight"), lost, *FROZEN)) == [(code, WARNING)]
    more = without("b.weight", status, elements=16 * 16 * 9 + 1)
    assert told(report(parameter("a.weight"), more, *FROZEN)) == [(code, ERROR)]
    finding = only(report(parameter("a.weight"), lost, lost, lost))
    assert finding.measured == "75 % of the trainable elements"
    assert told(report(parameter("a.weight"), *FROZEN)) == []


def test_a_cut_is_told_by_the_layers_around_it():
    body = [without("body.0.weight", "detached"), without("body.1.weight", "detached")]
    layers = [silent("body.0", "detached"), silent("body.0:relu", "detached"), silent("body.1", "detached"), layer("neck"), layer("head")]
    finding = only(report(*body, parameter("head.weight"), layers=layers))
    assert finding.where == "body" and "the path is cut after `body.1`, before `neck` or a later layer" in finding.message
    assert alarms(report(*body, parameter("head.weight"), layers=layers)) == {
        "body.0.weight": "detached",
        "body.1.weight": "detached",
        "body.1": "detached",
    }


def test_a_side_branch_is_no_cut():
    rows = [parameter("stem.weight"), without("side.weight", "detached"), parameter("head.weight")]
    finding = only(report(*rows, layers=[layer("stem"), silent("side", "detached"), layer("head")]))
    assert "the loss does not depend on what they put out" in finding.message and "cut between" not in finding.message


@pytest.mark.parametrize(
    ("run", "severity"),
    [
        ({"random_labels": True, "loss_source": "inferred: output (2, 32, 768) and integer labels below 768"}, INFO),
        ({"random_labels": True}, WARNING),  # the user named the loss
        ({"loss_source": "inferred: output (2, 32, 768) and integer labels below 768"}, WARNING),  # and here the labels
    ],
)
def test_what_a_made_up_loss_leaves_out(run, severity):
    """A pooler, which comes last; a part in the middle, or at the beginning, is cut off from any loss behind it."""
    rows = [parameter("encoder.weight"), without("pooler.dense.weight", "detached")]
    layers = [layer("encoder"), silent("pooler.dense", "detached"), silent("pooler.act", "detached")]
    assert told(report(*rows, layers=layers, run=run)) == [("detached-parameters", severity)]
    assert told(report(*rows, layers=[*layers, layer("head")], run=run)) == [("detached-parameters", WARNING)]
    assert told(report(*rows[::-1], layers=[*layers[1:], layers[0]], run=run)) == [("detached-parameters", WARNING)]


@pytest.mark.parametrize("status", ["unused", "detached"])
@pytest.mark.parametrize("name", ["aux1.fc.weight", "AuxLogits.conv.weight", "model.aux_classifier.0.weight"])
def test_an_auxiliary_head_may_be_left_out(status, name):
    assert {severity for _, severity in told(report(parameter("a.weight"), without(name, status)))} == {INFO}
    assert {severity for _, severity in told(report(parameter("a.weight"), without("auto.weight", status)))} == {WARNING}


def test_not_updated():
    rows = [parameter("a.weight"), parameter("head.weight", optimized=False, update=None)]
    finding = only(report(*rows))
    assert (finding.code, finding.severity, finding.where) == ("not-updated", ERROR, "head")
    assert alarms(report(*rows)) == {"head.weight": "no optimizer"}
    assert verdict(report(*rows))[0].startswith("is it learning? badly: 1 of 2 parameters is in no group of the optimizer")
    assert told(report(*rows, run={"optimizer": ""})) == [], "nothing is known of the optimizer"
    assert told(report(parameter("a.weight"), without("b.weight", "frozen", optimized=False))) == []


# -- Zeros --------------------------------------------------------------------------------------------------------------------------

DEAD = [
    layer("stem"),
    silent("a"),
    silent("act", activation_rms=1.0),
    layer("relu", activation_rms=0.0),
    layer("b"),
    layer("head"),
]


def dead(*more: Any, **changes: Any) -> GradflowReport:
    """A ReLU behind `a` puts out 0 only: `a` gets none, and `b`, which is fed with zeros, neither; `more` healthy weights follow."""
    return report(zero("a.weight"), zero("b.weight"), *more, layers=DEAD, **changes)


def test_dead_weights_are_told_by_the_layer_that_stops_the_gradient():
    finding = only(dead(parameter("head.weight")))
    assert (finding.code, finding.severity, finding.where) == ("grad-zero", ERROR, "relu")
    assert "it puts out 0 everywhere, and 2 of 3 weights get a gradient of exactly 0: `a`, `b`" in finding.message
    assert (
        "no gradient" not in verdict(dead(parameter("head.weight")))[0] and "`relu` puts out 0" in verdict(dead(parameter("c.weight")))[0]
    )


@pytest.mark.parametrize(("others", "severity"), [(6, ERROR), (7, WARNING)])
def test_share_of_dead_weights(others, severity):
    """2 of 8 are a quarter, which is an error; 2 of 9 are less. Biases and scales do not count."""
    rows = [parameter(f"c{place}.weight") for place in range(others)]
    assert told(dead(*rows, *(scale(f"n{place}.weight") for place in range(20)))) == [("grad-zero", severity)]


def test_a_chain_of_zeros_begins_at_its_first_layer():
    layers = [layer("stem"), silent("a"), silent("relu1", activation_rms=0.0), silent("b", activation_rms=0.0)]
    layers += [layer("relu2", activation_rms=0.0), layer("head")]
    assert only(report(zero("a.weight"), zero("b.weight"), layers=layers)).where == "relu1"


def test_a_layer_that_blocks_is_told_from_one_that_puts_out_zeros():
    finding = only(report(zero("a.weight"), parameter("b.weight"), layers=[silent("a"), layer("round"), layer("b")]))
    assert finding.where == "round" and "no gradient gets back past it" in finding.message


def test_zeros_without_layers_or_in_all_weights():
    assert only(report(zero("a.weight"), parameter("b.weight"))).where == "a"
    finding = only(report(zero("a.weight"), zero("b.weight"), layers=[silent("a"), silent("b")]))
    assert finding.where == "" and "the gradient of the loss is 0 already" in finding.message


def test_some_zeros_are_no_fault():
    assert told(report(*chain([0.018] * 8, zeros=0.999))) == []
    assert told(report(parameter("a.weight"), scale("a.bias", zeros=1.0, rms=0.0, ratio=0.0))) == []


@pytest.mark.parametrize(
    "gate",
    [
        scale("block.norm2.weight", weight_rms=0.0, ratio=None),  # a residual branch whose last scale begins at 0
        parameter("block.lora_B.weight", weight_rms=0.0, ratio=None),
        scale("block.gamma", layer="block.scale", weight_rms=0.0, ratio=None),
        parameter("head.weight", weight_rms=0.0, ratio=None),
    ],
    ids=["zero-initialised scale", "LoRA B", "gate", "zero head"],
)
def test_behind_a_gate_at_zero_nothing_is_called_dead(gate):
    rows = [parameter("stem.weight"), zero("block.conv1.weight"), zero("block.conv2.weight"), gate]
    assert told(report(*rows)) == [("grad-zero", INFO)]
    assert alarms(report(*rows)) == {} and notes(report(*rows)) == {1: "opens later", 2: "opens later"}


def test_a_gate_in_another_block_excuses_nothing():
    rows = [zero("block1.conv.weight"), parameter("block2.conv.weight"), scale("block2.norm.weight", weight_rms=0.0, ratio=None)]
    assert told(report(*rows)) == [("grad-zero", ERROR)]
    dead_bias = scale("block1.conv.bias", weight_rms=0.0, ratio=None)
    assert told(report(zero("block1.conv.weight"), dead_bias, parameter("c.weight"))) == [("grad-zero", ERROR)]


def test_the_second_look_decides_what_is_dead():
    rows = [zero("a.weight"), parameter("b.weight")]
    assert second_look_matters(report(*rows)) and not second_look_matters(report())
    assert told(report(*rows, look=look([0.01, 0.01], [0.5, 0.0]))) == [("grad-zero", INFO)]
    finding = only(report(*rows, scale("g.weight", weight_rms=0.0), look=look([0.0, 0.01, None], [1.0, 0.0, 0.0])))
    assert finding.severity is ERROR and "also after three steps" in finding.message


def steps_of(first: list[float | None], last: list[float | None], losses: tuple[float, float]) -> tuple[Step, Step]:
    """Two steps, with the RMS of each parameter's gradient."""
    return Step(losses[0], 0.5, tuple(first)), Step(losses[1], 0.5, tuple(last))


def test_what_had_a_gradient_in_the_first_step_has_died():
    """The second look begins where the first step does, and says nothing of what the steps did."""
    rows, again = [zero("a.weight"), parameter("b.weight")], look([0.01, 0.01], [0.5, 0.0])
    died = report(*rows, look=again, steps=steps_of([0.2, 0.001], [0.0, 0.001], (1.3, 1.2)))
    finding = only(died)
    assert (finding.code, finding.severity) == ("grad-zero", ERROR) and "where the first step had one" in finding.message
    assert "learning rate" in finding.remedy and "three steps" not in finding.message
    still = report(*rows, look=again, steps=steps_of([0.0, 0.001], [0.0, 0.001], (1.3, 1.2)))
    assert told(still) == [("grad-zero", INFO)]


def test_what_died_as_the_loss_grew_is_not_the_cause():
    steps = (*steps_of([0.2, 0.001], [0.0, 0.001], (1.3, 5.0)), *steps_of([0.0, 0.001], [0.0, 0.001], (9.0, 22.5)))
    finding = only(report(zero("a.weight"), parameter("b.weight"), steps=steps))
    assert finding.code == "loss-diverges" and "1 of 2 weights gets a gradient of exactly 0" in finding.message


def test_weights_that_are_all_zero_are_told_as_such():
    rows = [zero("a.weight", weight_rms=0.0), zero("b.weight", weight_rms=0.0)]
    layers = [silent("a", activation_rms=0.0), silent("relu", activation_rms=0.0), layer("b", activation_rms=0.0)]
    found = report(*rows, layers=layers, output={"zero_head": True}, look=look([None, None], [1.0, 1.0]))
    finding = only(found)
    assert (finding.code, finding.where) == ("grad-zero", "a") and "all its weights are 0" in finding.message
    assert finding.remedy.startswith("initialise") and "ReLU" not in finding.remedy


@pytest.mark.parametrize(("dtype", "rms", "underflows"), [("float32", 1e-38, True), ("float32", 1e-8, False), ("float16", 1e-7, True)])
def test_a_gradient_that_its_data_type_has_no_number_for(dtype, rms, underflows):
    """The least of float32 is 1.4e-45, with all digits 1.2e-38, that of float16 6e-8."""
    finding = only(report(zero("a.weight"), parameter("b.weight", rms=rms), parameter("c.weight"), run={"dtype": dtype}))
    assert finding.code == "grad-zero" and finding.remedy.startswith("it is too small for its data type") is underflows


def test_underflow_follows_from_a_gradient_that_vanishes():
    living = [parameter(f"l{place}.weight", ratio=10.0 ** (place - 8), rms=10.0 ** (5 * place - 40)) for place in range(8)]
    finding = only(report(zero("a.weight"), *living))
    assert finding.code == "vanishing-gradient" and "1 of 9 weights gets a gradient of exactly 0" in finding.message


def test_what_a_trained_network_does_on_noise_weighs_less():
    rows = [parameter("c.weight")]
    assert told(dead(*rows, run={"random_inputs": True}, initialised=False)) == [("grad-zero", WARNING)]
    assert told(dead(*rows, run={"random_inputs": True})) == [("grad-zero", ERROR)]


def test_a_last_layer_of_zeros_is_by_design():
    """The gradient of all before it is exactly 0 in the first step; that is not told a second time."""
    rows = [zero("a.weight"), zero("b.weight"), parameter("head.weight", weight_rms=0.0, ratio=None, update=None)]
    found = report(*rows, output={"zero_head": True, "rows": "in 0..1", "between": 0.0, "loss_moves": 0.0})
    assert told(found) == [("zero-output", INFO)]
    assert verdict(found)[0].endswith(
        "nothing stands in its way: all 3 parameters that can learn get gradients, 2 of them after the first step"
    )
    assert told(replace(found, parameters=found.parameters[:2])) == [("zero-output", INFO)], "where the head is the user's own function"


# -- Sizes --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("power", "severity"), [(-3.9, None), (-4.1, WARNING), (-5.9, WARNING), (-6.1, ERROR), (3.9, None), (4.1, WARNING), (6.1, ERROR)]
)
def test_slope_of_gradients(power, severity):
    """Of eight weights a quarter is two, and the larger one of them counts."""
    first = 0.018 * 10**power if power < 0 else 0.018
    last = 0.018 if power < 0 else 0.018 / 10**power
    ratios = [first / 100, first, 0.018, 0.018, 0.018, 0.018, last / 100, last]
    code = "vanishing-gradient" if power < 0 else "exploding-gradient"
    assert told(report(*chain(ratios))) == ([] if severity is None else [(code, severity)])


@pytest.mark.parametrize(("ratio", "severity"), [(64.0, None), (999.0, None), (1001.0, WARNING), (1.1e6, ERROR)])
def test_a_gradient_far_larger_than_its_weights(ratio, severity):
    found = report(*chain([ratio * 0.9] * 3 + [ratio] + [ratio * 0.9] * 4))
    assert told(found) == ([] if severity is None else [("exploding-gradient", severity)])
    assert severity is None or only(found).where == "l3"


def test_where_it_vanishes():
    spread = only(report(*chain([10.0**-power for power in range(8, 0, -1)])))
    assert spread.where == "l0" and "step by step" in spread.message and spread.measured.startswith("first quarter of 8 weights 1.00e-6 ")
    abrupt = only(report(*chain([1e-7, 1e-7, 1e-7, 1e-1, 1e-1, 1e-1, 1e-1, 1e-1])))
    assert "most of it between `l3` and `l2`" in abrupt.message


def test_what_is_left_out_of_the_comparison():
    """What began at 0 has no size to compare with, and of an embedding a batch uses few rows; biases and scales are small by design."""
    ratios = [None, *[0.018] * 8]
    assert told(report(*chain(ratios, weight_rms=0.08))) == []
    small = parameter("embed.weight", type="Embedding", ratio=1e-9, update=1e-10)
    assert told(report(small, *chain([0.018] * 4))) == []
    assert told(report(scale("n.weight", ratio=1e-9), *chain([0.018] * 4))) == []
    assert told(report(parameter("class_token", layer="", shape=(1, 1, 64), elements=64, ratio=1e-9), *chain([0.018] * 4))) == []


def test_the_second_look_silences_what_opens():
    rows = chain([1e-9] * 6 + [0.018] * 2)
    assert told(report(*rows)) == [("vanishing-gradient", ERROR)] and second_look_matters(report(*rows))
    again = report(*rows, look=look([1e-3] * 6 + [0.018] * 2))
    assert told(again) == [("vanishing-gradient", INFO)] and "no longer" in only(again).message
    assert alarms(again) == {}
    assert told(report(*rows, look=look([1e-7] * 6 + [0.018] * 2))) == [("vanishing-gradient", WARNING)]


def test_gradients_that_grew_in_the_steps_follow_from_them():
    """What the first step did not have does not open either: ratios of 0.018 grow to 1.8e9 as the loss does."""
    rows = chain([1.8e9] * 8, rms=1.5e8, update=9.0)
    steps = steps_of([0.0015] * 8, [1.5e8] * 8, (1.3, 1e27))
    finding = only(report(*rows, steps=steps, look=look([0.018] * 8)))
    assert finding.code == "update-ratio-high" and "so the gradient is 1.80e9 times" in finding.message
    slow = [replace(row, update=0.01) for row in rows]
    assert told(report(*slow, steps=steps, look=look([0.018] * 8))) == [("exploding-gradient", ERROR)], "nothing else explains it"
    begun = steps_of([1.5e8] * 8, [1.5e8] * 8, (1.3, 1.2))
    assert told(report(*slow, steps=begun, look=look([0.018] * 8))) == [("exploding-gradient", INFO)]


@pytest.mark.parametrize("update", [inf, nan])
def test_steps_without_bound(update):
    finding = only(report(*chain([0.018] * 8, update=update)))
    assert (finding.code, finding.severity) == ("update-ratio-high", ERROR)
    assert "inf" not in finding.message + finding.remedy and finding.remedy.startswith("lower the learning rate")


@pytest.mark.parametrize(
    ("optimizer", "update", "says", "remedy"),
    [
        ("SGD(lr=0.001)", 1e-7, "too small (lr=0.001)", "raise it about 1.00e5 times"),
        ("SGD(lr=1e-12)", 0.0, "too small (lr=1e-12)", "raise it: steps are lost in the rounding"),
        ("AdamW(lr=0, betas=(0.9, 0.999))", 0.0, "is 0 (lr=0)", "raise it from 0"),
        ("the step function's own SGD", 0.0, "0 or far too small, or gradients are cleared", "look at the learning rate"),
    ],
)
def test_why_steps_are_too_small(optimizer, update, says, remedy):
    """A hundredth of the weights is usual, which is 1e5 times 1e-7."""
    finding = only(report(*chain([0.018] * 8, update=update), run={"optimizer": optimizer}))
    assert finding.code == "update-ratio-low" and says in finding.message and finding.remedy.startswith(remedy)


@pytest.mark.parametrize(("update", "severity"), [(0.1, None), (0.49, None), (0.51, WARNING), (2.1, ERROR)])
def test_steps_that_are_too_large(update, severity):
    found = report(*chain([0.018] * 8, update=update))
    assert told(found) == ([] if severity is None else [("update-ratio-high", severity)])


@pytest.mark.parametrize(("update", "severity"), [(1.1e-6, None), (9e-7, WARNING), (9e-9, ERROR), (0.0, ERROR)])
def test_steps_that_are_too_small(update, severity):
    """Of the largest one: the others are half as large."""
    found = report(*chain([0.018] * 7, update=update / 2), parameter("head.weight", update=update))
    assert told(found) == ([] if severity is None else [("update-ratio-low", severity)])


def test_a_model_that_has_learned_takes_small_steps():
    found = report(*chain([0.018] * 8, update=1e-9), initialised=False, losses=[0.01])
    assert told(found) == [("update-ratio-low", INFO)] and "raise" not in only(found).remedy
    assert told(report(*chain([0.018] * 8, update=1e-9), initialised=False)) == [("update-ratio-low", ERROR)]


@pytest.mark.parametrize(
    ("update", "words"),
    [
        (101.0, "far larger than"),
        (99.0, None),
        (9e-9, "hardly changes"),
        (1.1e-8, "another pace"),
        (1.2e-6, "another pace"),
        (1.3e-6, None),
        (30.0, None),
    ],
)
def test_one_weight_unlike_the_others(update, words):
    """The others have 0.0125, of which a ten-thousandth is 1.25e-6."""
    found = report(*chain([0.018] * 7), parameter("odd.weight", update=update))
    assert told(found) == ([] if words is None else [("update-imbalance", WARNING)])
    if words is not None:
        finding = only(found)
        assert words in finding.message and finding.where == "odd" and alarms(found).keys() == {"odd.weight"}


def test_steps_that_say_nothing():
    tiny = parameter("head.weight", update=500.0, weight_rms=1e-5)  # gain 1e-5 * sqrt(16 * 9) = 1.2e-4: as good as zero
    assert told(report(*chain([0.018] * 7), tiny)) == []
    assert told(report(*chain([0.018] * 7), tiny, initialised=False)) == [("update-imbalance", WARNING)]
    behind = parameter("block.weight", update=1e-12)
    gate = scale("block.layer_scale", layer="block", weight_rms=1e-6, update=1e3)
    assert told(report(*chain([0.018] * 7), behind, gate)) == []
    assert told(report(*chain([0.018] * 7), behind, gate, initialised=False)) == [("update-imbalance", WARNING)]
    assert told(report(*chain([0.018] * 8, update=None))) == []


# -- Output and loss ----------------------------------------------------------------------------------------------------------------

SOFTMAX, SIGMOID, RELU = (layer("end", type=name) for name in ("Softmax", "Sigmoid", "relu"))
POOL, FLAT, LINEAR = layer("pool", type="AdaptiveAvgPool2d"), layer("flat", type="Flatten"), layer("fc", type="Linear")

LOSSES: dict[str, tuple[GradflowReport, Told]] = {
    "softmax twice": (report(layers=[SOFTMAX], output={"rows": "probabilities"}), [("double-softmax", ERROR)]),
    "softmax unseen": (report(output={"rows": "probabilities"}), [("double-softmax", ERROR)]),
    "sigmoid before cross-entropy": (report(layers=[SIGMOID], output={"rows": "in 0..1"}), [("double-softmax", ERROR)]),
    "probabilities into mse": (report(output={"rows": "probabilities"}, run={"loss": "mse"}), []),
    "log_softmax twice is the same": (report(output={"rows": "log probabilities"}), []),
    "sigmoid twice": (report(layers=[SIGMOID], output={"rows": "in 0..1"}, run={"loss": "bce_with_logits"}), [("double-sigmoid", ERROR)]),
    "scores that happen to be in 0..1": (report(layers=[LINEAR], output={"rows": "in 0..1"}, run={"loss": "bce_with_logits"}), []),
    "sigmoid into bce": (report(layers=[SIGMOID], output={"rows": "in 0..1"}, run={"loss": "bce"}), []),
    "nll of scores": (report(run={"loss": "nll"}), [("nll-on-logits", ERROR)]),
    "nll of probabilities": (report(output={"rows": "probabilities"}, run={"loss": "nll"}, losses=[-0.1]), [("nll-on-logits", ERROR)]),
    "nll of log probabilities": (report(output={"rows": "log probabilities"}, run={"loss": "nll"}), []),
    "relu at the end": (report(layers=[LINEAR, RELU], output={"rows": "not negative"}), [("relu-on-logits", WARNING)]),
    "relu, flattened": (report(layers=[RELU, FLAT], output={"rows": "in 0..1"}), [("relu-on-logits", WARNING)]),
    "relu, pooled": (report(layers=[RELU, POOL, FLAT], output={"rows": "not negative"}), [("relu-on-logits", INFO)]),
    "scores that happen to be positive": (report(layers=[RELU, LINEAR], output={"rows": "not negative"}), []),
    "relu before mse": (report(layers=[RELU], output={"rows": "not negative"}, run={"loss": "mse"}), []),
    "negative mse": (report(losses=[-0.1], run={"loss": "mse"}), [("negative-loss", WARNING)]),
    "negative kl_div": (report(losses=[-0.1], run={"loss": "kl_div"}), [("negative-loss", WARNING)]),
    "a loss that may be negative": (report(losses=[-0.1], run={"loss": "gaussian_nll"}), [("negative-loss", INFO)]),
    "the user's own": (report(losses=[-0.1], run={"loss": "mine.py:elbo"}), [("negative-loss", INFO)]),
    "input ignored": (report(output={"between": 1e-14, "loss_moves": 0.0}), [("input-ignored", ERROR)]),
    "behind a LayerScale near 0": (report(output={"between": 1e-11, "loss_moves": 0.0}), [("input-ignored", INFO)]),
    "of a trained model": (report(output={"between": 1e-11}, initialised=False), [("input-ignored", ERROR)]),
    "output hardly varies": (report(output={"between": 1e-9, "loss_moves": 1e-5}), []),
    "one sample": (report(output={"between": None, "loss_moves": None}), []),
    "loss ignores the input": (report(output={"loss_moves": 0.0}), [("loss-ignores-input", ERROR)]),
    "loss hardly depends on the input": (report(output={"loss_moves": 1e-6}), []),
    "rounding hides it": (report(output={"between": None, "loss_moves": 0.0}), []),
    "a loss alone": (replace(report(run={"loss": "the model's own"}), output=None), []),
}


@pytest.mark.parametrize("case", LOSSES)
def test_output_and_loss(case):
    found, expected = LOSSES[case]
    assert told(found) == expected


@pytest.mark.parametrize(
    ("loss", "classes", "least", "greatest", "wrong"),
    [
        ("cross_entropy", 10, 0, 9, False),
        ("cross_entropy", 10, 1, 10, True),
        ("cross_entropy", 10, -1, 9, True),
        ("cross_entropy", 10, -100, 9, False),
        ("cross_entropy", 10, 0, 255, False),
        ("bce_with_logits", None, 0, 1, False),
        ("bce_with_logits", None, -1, 1, True),
        ("bce", None, 0, 255, True),
        ("mse", None, -100, 300, False),
    ],
)
def test_range_of_labels(loss, classes, least, greatest, wrong):
    found = report(run={"loss": loss}, output={"classes": classes, "label_least": least, "label_greatest": greatest})
    assert told(found) == ([("label-range", ERROR)] if wrong else [])


@pytest.mark.parametrize(
    ("classes", "above", "severity"),
    [(10, 1.1, None), (10, 1.2, WARNING), (10, 3.4, WARNING), (10, 3.5, ERROR), (2, 0.9, None), (2, 1.1, WARNING), (2, 3.1, ERROR)],
)
def test_first_loss(classes, above, severity):
    """ln 10 = 2.303, half of it 1.151, three halves 3.454; ln 2 = 0.693, of which half is below 1 and three halves below 3."""
    output = {"classes": classes, "chance": log(classes), "expected": log(classes) + above, "label_greatest": classes - 1}
    assert told(report(output=output)) == ([] if severity is None else [("init-loss", severity)])
    assert told(report(output=output, initialised=False)) == [] and told(report(output=output, initialised=None)) == []


# -- Not finite, several steps, overfitting -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("where", "code"), [("forward", "act-nonfinite"), ("loss", "loss-nonfinite"), ("backward", "grad-nonfinite")])
def test_first_value_that_is_not_finite(where, code):
    first = FirstNonFinite(where, "block.attn", "Attention", "sqrt", 12, 3)
    found = report(*chain([nan] * 8, update=1e9, zeros=1.0), first_nonfinite=first, losses=[nan], output={"rows": "probabilities"})
    finding = only(found)
    assert (finding.code, finding.severity, finding.where) == (code, ERROR, "block.attn")
    assert "`sqrt` in `block.attn` makes the first 12 NaN and 3 Inf" in finding.message and "under the root" in finding.remedy
    assert alarms(found) == {"block.attn": "not finite"} and not second_look_matters(found)


def test_what_was_not_finite_to_begin_with():
    finding = only(report(first_nonfinite=FirstNonFinite("forward", "fc", "Linear", "addmm", 1, 0, "weight fc.weight")))
    assert "weight fc.weight is not finite to begin with" in finding.message and "checkpoint" in finding.remedy
    finding = only(report(first_nonfinite=FirstNonFinite("forward", "stem", "Conv2d", "", 1, 0, "input")))
    assert "input is not finite" in finding.message and "torch.isfinite(x)" in finding.remedy


def test_a_gradient_that_is_not_finite_without_a_known_origin():
    """The last in forward order is the first on the way back."""
    rows = [parameter("a.weight", nan=5), parameter("b.weight", infinite=2), parameter("c.weight")]
    assert (only(report(*rows)).code, only(report(*rows)).where) == ("grad-nonfinite", "b")
    assert only(report(losses=[inf])).code == "loss-nonfinite"


def test_batches_that_are_not_finite_beside_a_step_that_is():
    noise = Noise(6, 8, None, None, None, None)
    assert told(report(noise=noise)) == []
    finding = only(report(noise=replace(noise, nonfinite=2)))
    assert (finding.code, finding.severity) == ("grad-nonfinite", ERROR) and "2 of the 6 batches" in finding.message


def test_what_has_nothing_to_do_with_numbers_is_told_beside_nan():
    found = report(parameter("a.weight"), without("b.weight", "unused"), losses=[nan])
    assert [code for code, _ in told(found)] == ["loss-nonfinite", "unused-parameters"]


def test_a_loss_that_blew_up_names_the_learning_rate():
    first = FirstNonFinite("forward", "fc", "Linear", "addmm", 0, 3)
    finding = only(report(first_nonfinite=first, losses=[2.3, 400.0, nan]))
    assert "in step 3, after the loss grew from 2.30 to 400" in finding.message and "learning rate" in finding.remedy
    assert "learning rate" not in only(report(first_nonfinite=first, losses=[2.3, 2.2, nan])).remedy


def test_a_loss_that_grows():
    assert told(report(losses=[2.0, 5.0, 9.0, 21.0])) == [("loss-diverges", ERROR)]
    assert told(report(losses=[2.0, 5.0, 9.0, 19.0])) == [] and told(report(losses=[2.0, 9.0, 21.0])) == []


@pytest.mark.parametrize(
    ("tried", "severity"),
    [
        (overfit(2.5, 0.1, passed=True), None),
        (overfit(2.5, *[0.49 * log(10)] * 5, passed=True), None),
        (overfit(9.0, *[0.51 * log(10)] * 5), WARNING),  # of ln 10, which is less than the first loss
        (overfit(9.0, *[0.91 * log(10)] * 5), ERROR),
        (overfit(1.0, *[0.6] * 5, chance=None), WARNING),
        (overfit(1.0, *[0.95] * 5, chance=None), ERROR),
        (overfit(2.5, nan), ERROR),
    ],
)
def test_overfitting_one_batch(tried, severity):
    found = report(overfit=tried)
    assert told(found) == ([] if severity is None else [("cannot-overfit", severity)])
    assert verdict(found)[0].startswith("is it learning? yes" if severity is None else "is it learning? ")


def test_where_updates_stopped():
    found = report(overfit=overfit(2.3, *[2.3] * 5, stopped=("l1.weight", "l2.weight")))
    assert "`l1.weight`, `l2.weight`" in only(found).message and alarms(found) == {"l1.weight": "stopped", "l2.weight": "stopped"}


# -- Processes ----------------------------------------------------------------------------------------------------------------------

RANKS: dict[str, tuple[list[Any], Told]] = {
    "healthy": ([rank(0), rank(1)], []),
    "one process": ([rank(0, loss=nan)], []),
    "other parameters": ([rank(0), rank(1), rank(2, parameters_hash="ffff", norm=100.0)], [("ranks-differ", ERROR)]),
    "the same samples": ([rank(place, loss=2.3, norm=0.5, cosine=1.0) for place in range(2)], [("ranks-alike", WARNING)]),
    "the same loss alone": ([rank(place, loss=2.3) for place in range(2)], []),
    "far larger": ([rank(0), rank(1, norm=6.0)], [("rank-outlier", WARNING)]),
    "nine times larger": ([rank(0), rank(1, norm=4.5)], []),
    "far smaller": ([rank(0), rank(1), rank(2, norm=0.01)], [("rank-outlier", WARNING)]),
    "none at all": ([rank(0), rank(1, norm=None)], [("rank-outlier", WARNING)]),
    "all zero": ([rank(0), rank(1, norm=0.0)], [("rank-outlier", WARNING)]),
    "not finite": ([rank(0), rank(1, norm=inf)], [("rank-outlier", ERROR)]),
    "against the others": ([rank(0), rank(1, cosine=-0.3)], [("rank-outlier", WARNING)]),
}


@pytest.mark.parametrize("case", RANKS)
def test_processes(case):
    ranks, expected = RANKS[case]
    found = report(ranks=tuple(ranks))
    assert told(found) == expected
    if case.startswith(("far", "none", "not", "all", "against", "other")):
        assert alarms(found).keys() == {f"rank {ranks[-1].rank}"}


def test_a_process_with_far_larger_gradients_explains_large_steps():
    large = {"losses": [2.0, 5.0, 9.0, 99.0], "output": {"expected": 60.0}}
    finding = only(report(*chain([0.018] * 8, update=9.0), ranks=(rank(0), rank(1, norm=600.0)), **large))
    assert finding.code == "rank-outlier" and "; so half of the weights change by 9.00 times" in finding.message
    missing = report(*chain([0.018] * 8, update=9.0), ranks=(rank(0), rank(1, norm=0.0)))
    assert [code for code, _ in told(missing)] == ["rank-outlier", "update-ratio-high"]


# -- Each cause once ----------------------------------------------------------------------------------------------------------------


def test_a_cause_takes_its_symptoms_in():
    symptoms: dict[str, Any] = {"output": {"between": 0.0, "loss_moves": 0.0}, "overfit": overfit(2.3, *[2.3] * 5)}
    assert told(report(**symptoms)) == [("input-ignored", ERROR)]
    finding = only(dead(*(parameter(f"c{place}.weight") for place in range(7)), **symptoms))
    assert (finding.code, finding.severity) == ("grad-zero", ERROR), "a warning by itself, as grave as what follows from it"
    assert finding.message.endswith("so the output does not depend on the input and it cannot learn one batch of 16 samples")
    vanishing = chain([1e-8] * 6 + [0.018] * 2, update=1e-9)
    assert [code for code, _ in told(report(*vanishing, **symptoms))] == ["vanishing-gradient"]


def test_exploding_gradients_explain_large_steps_and_losses():
    found = report(*chain([1e5] * 8, update=50.0), losses=[90.0, 100.0, 300.0, 1000.0], output={"expected": 90.0})
    assert told(found) == [("exploding-gradient", ERROR)]


def test_a_first_loss_far_too_large_explains_large_steps():
    assert told(report(*chain([0.5] * 8, update=1.0), output={"expected": 60.0})) == [("init-loss", ERROR)]


FAILED = overfit(2.3, *[2.3] * 5)
BCE = {"run": {"loss": "bce_with_logits"}}
CUT = [without("a.weight", "detached"), without("b.weight", "detached"), parameter("c.weight")]

ABSORBED: dict[str, tuple[GradflowReport, str]] = {
    "nothing learns": (report(*LOOSE, overfit=FAILED, output={"loss_moves": 0.0}), "no-grad"),
    "most is cut off": (report(*CUT, overfit=FAILED), "detached-parameters"),
    "labels of -1": (report(output={"classes": None, "label_least": -1, "label_greatest": 1}, losses=[-0.5], **BCE), "label-range"),
    "softmax twice": (report(layers=[SOFTMAX], output={"rows": "probabilities", "expected": 9.0}, overfit=FAILED), "double-softmax"),
    "sigmoid twice": (report(layers=[SIGMOID], output={"rows": "in 0..1"}, overfit=FAILED, **BCE), "double-sigmoid"),
    "relu at the end": (report(layers=[RELU], output={"rows": "not negative"}, overfit=FAILED), "relu-on-logits"),
    "loss ignores the input": (report(output={"loss_moves": 0.0}, overfit=FAILED), "loss-ignores-input"),
    "large steps": (report(*chain([0.018] * 8, update=9.0), losses=[1.0, 2.0, 9.0, 99.0]), "update-ratio-high"),
}


@pytest.mark.parametrize("case", ABSORBED)
def test_symptoms_are_not_told_beside_their_cause(case):
    found, code = ABSORBED[case]
    assert told(found) == [(code, ERROR)]
    assert "; so " in only(found).message


def test_two_causes_are_two_findings():
    rows = [parameter("a.weight", optimized=False, update=None), *chain([0.018] * 4), without("b.weight", "unused")]
    found = report(*rows, layers=[SOFTMAX], output={"rows": "probabilities"})
    assert [code for code, _ in told(found)] == ["unused-parameters", "not-updated", "double-softmax"]
    assert verdict(found)[0].endswith(", and 2 more findings") and verdict(found)[1] is ERROR


def test_information_silences_nothing():
    gates = [zero("block.a.weight"), scale("block.gate", layer="block.g", weight_rms=0.0, ratio=None), parameter("head.weight")]
    found = report(*gates, overfit=overfit(2.3, *[2.3] * 5))
    assert told(found) == [("grad-zero", INFO), ("cannot-overfit", ERROR)]


def test_verdict_of_a_warning():
    assert verdict(report(parameter("a.weight"), without("b.weight", "unused")))[0].startswith("is it learning? in doubt: 1 of 2 ")


def test_findings_stay_short_with_hostile_and_many_names():
    rows = [zero(f"{'x' * 300}{place}.weight") for place in range(400)]
    (finding,) = diagnose(report(*rows, parameter("head.weight")))
    assert len(finding.message) < 700
