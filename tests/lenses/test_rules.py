"""What `netlens summary` points out without being asked."""

from __future__ import annotations

from dataclasses import replace
from inspect import signature

import pytest

from netlens.findings import CODES, Finding, Severity
from netlens.lenses.summary.report import Call, Layer
from netlens.lenses.summary.rules import STATELESS, STATELESS_ENDINGS, diagnose
from tests.reports import TINY, TINY_LAYERS, call, failed, layer, operator, report, without_run

RAN = call((1, 8), (1, 8))


def found(*rows: Layer, code: str) -> tuple[Finding, ...]:
    """Findings of one code for a model that has these layers besides Tiny's."""
    return tuple(finding for finding in diagnose(report(layers=(*TINY_LAYERS, *rows))) if finding.code == code)


def unused(*rows: Layer) -> tuple[str, ...]:
    """What is said of modules that never ran."""
    return tuple(finding.message for finding in found(*rows, code="unused-module"))


def test_a_healthy_model_gives_nothing() -> None:
    assert diagnose(TINY) == ()


# --- unused modules ---------------------------------------------------------------------------------------------------------


def test_a_layer_that_never_ran_is_named_with_its_parameters() -> None:
    (finding,) = found(layer("aux", "Linear", parameters=90), code="unused-module")
    assert (finding.severity, finding.where, finding.measured) == (Severity.INFO, "aux", "90 parameters")
    assert "aux Linear" in finding.message


def test_the_topmost_layer_of_an_unused_subtree_stands_for_all_of_it() -> None:
    """aux and everything in it never ran: 90 + 10 parameters under one name, although the list between them has none."""
    rows = (
        layer("aux", "Head"),
        layer("aux.layers", "ModuleList"),
        layer("aux.layers.0", "Linear", parameters=90),
        layer("aux.layers.1", "Linear", parameters=10),
    )
    (finding,) = found(*rows, code="unused-module")
    assert finding.message.startswith("1 module with parameters never ran: aux Head")
    assert finding.measured == "100 parameters"


def test_only_the_unused_part_of_a_container_is_named() -> None:
    """A ModuleList is never called itself, and two of its three experts were not either."""
    rows = (
        layer("experts", "ModuleList"),
        layer("experts.0", "Linear", parameters=8),
        layer("experts.1", "Linear", RAN, parameters=8),
        layer("experts.2", "Linear", parameters=8),
    )
    assert unused(*rows) == ("2 modules with parameters never ran: experts.0 Linear, experts.2 Linear",)


def test_a_layer_whose_child_ran_is_in_use() -> None:
    assert unused(layer("box", "Box", parameters=5), layer("box.inner", "ReLU", RAN)) == ()


@pytest.mark.parametrize(
    "rows",
    [
        (layer("drop", "Dropout"),),  # nothing to train
        (layer("head", "Linear", alias_of="fc"),),  # the same module runs under another name
        (layer("tail", "Tail", parameters=5), layer("tail.fc", "Linear", alias_of="fc")),  # what is in it runs under another name
        (layer("scales", "ParameterList", parameters=4),),  # never called by anybody
        (layer("attn", "MultiheadAttention", RAN, parameters=9), layer("attn.out_proj", "NonDynamicallyQuantizableLinear", parameters=8)),
        (layer("attn", "MyAttention", RAN), layer("attn.out_proj", "NonDynamicallyQuantizableLinear", parameters=8)),
        (layer("enc", "TransformerEncoderLayer", RAN), layer("enc.linear1", "Linear", parameters=8)),  # the fused fast path
        (
            layer("conv2", "ParametrizedConv2d", RAN),
            layer("conv2.parametrizations", "ModuleDict"),
            layer("conv2.parametrizations.weight", "ParametrizationList", parameters=8),
            layer("conv2.parametrizations.weight.0", "_WeightNorm", parameters=1),
        ),
    ],
)
def test_what_is_not_called_on_purpose_is_not_reported(rows: tuple[Layer, ...]) -> None:
    assert unused(*rows) == ()


def test_a_whole_attention_that_never_ran_is_reported_with_all_its_parameters() -> None:
    rows = (layer("attn", "MultiheadAttention", parameters=9), layer("attn.out_proj", "NonDynamicallyQuantizableLinear", parameters=8))
    (finding,) = found(*rows, code="unused-module")
    assert (finding.where, finding.measured) == ("attn", "17 parameters")


def test_a_child_whose_weight_its_parent_multiplies_with_is_in_use() -> None:
    """Swin's attention calls F.linear(x, self.qkv.weight): 4 tokens * 8 * 24 = 768 multiply-adds for 8*24 + 24 = 216 parameters."""
    attention = layer("attn", "ShiftedWindowAttention", RAN, macs=768)
    assert unused(attention, layer("attn.qkv", "Linear", parameters=216)) == ()
    assert unused(attention, layer("attn.spare", "Linear", parameters=1000)) == ("1 module with parameters never ran: attn.spare Linear",)
    assert unused(attention, layer("attn.deep", "Sequential"), layer("attn.deep.0", "Linear", parameters=216)) != ()


def test_an_encoder_layer_that_never_ran_has_no_excuse_for_its_children() -> None:
    (finding,) = found(layer("enc", "TransformerEncoderLayer"), layer("enc.linear1", parameters=8), code="unused-module")
    assert (finding.where, finding.measured) == ("enc", "8 parameters")


def test_at_most_ten_are_named() -> None:
    (message,) = unused(*(layer(f"x{number}", parameters=1) for number in range(12)))
    assert message.startswith("12 modules with parameters never ran: x0 Linear")
    assert message.endswith("x9 Linear and 2 more")


def test_nothing_is_unused_where_the_forward_pass_did_not_reach_its_end() -> None:
    assert [finding.code for finding in diagnose(failed())] == []
    assert "unused-module" not in [finding.code for finding in diagnose(without_run())]


# --- unregistered modules ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Linear", "BatchNorm2d", "Embedding", "PReLU", "MyBlock", "LSTM"])
def test_a_hidden_module_that_may_hold_weights_is_a_warning(kind: str) -> None:
    """Its weights are in no total, so only the type tells; a type that we do not know may hold some."""
    hidden = (layer("blocks", "Sequential", RAN, registered=False), layer("blocks.0", kind, RAN, registered=False))
    (finding,) = found(*hidden, code="unregistered-module")
    assert (finding.severity, finding.where) == (Severity.WARNING, "blocks")
    assert "1 module ran" in finding.message
    assert "nn.ModuleList" in finding.remedy


@pytest.mark.parametrize("kind", ["ReLU", "AdaptiveAvgPool2d", "ReflectionPad1d", "Dropout", "Dropout2d", "CrossEntropyLoss", "Sequential"])
def test_an_activation_made_in_forward_harms_nobody(kind: str) -> None:
    assert found(layer("made", kind, RAN, registered=False), code="unregistered-module") == ()


def test_what_is_called_stateless_has_no_weights_in_torch() -> None:
    """Build every class of torch.nn that the rule lets pass, and look."""
    from torch import nn

    fractional = {f"FractionalMaxPool{rank}d": (2, 1) for rank in (2, 3)}
    special: dict[str, tuple[object, ...]] = {"ChannelShuffle": (1,), "Unflatten": (1, (1, 1)), **fractional}
    names = [name for name in dir(nn) if name in STATELESS or name.endswith(STATELESS_ENDINGS)]
    assert set(names) > STATELESS
    for name in names:
        kind = getattr(nn, name)
        needed = [p for p in signature(kind).parameters.values() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
        module = kind(*special.get(name, (2,) * len(needed)))
        assert not [*module.parameters(), *module.buffers()], name


@pytest.mark.parametrize("kind", ["AdaptiveLogSoftmaxWithLoss", "LinearCrossEntropyLoss", "ArcFaceLoss"])
def test_a_loss_that_holds_weights_is_a_warning(kind: str) -> None:
    assert len(found(layer("loss", kind, RAN, registered=False), code="unregistered-module")) == 1


# --- operators and runs -----------------------------------------------------------------------------------------------------


def test_operators_that_multiply_are_a_warning_and_others_an_information() -> None:
    both = report(uncounted=(operator("aten.fft_fft2", times=3), operator("aten.sort", multiplies=False, layers=())))
    warning, information = diagnose(both)
    assert (warning.code, warning.severity, warning.where) == ("uncounted-operators", Severity.WARNING, "mix")
    assert "lower bound" in warning.message and "aten.fft_fft2 x3" in warning.message and "sort" not in warning.message
    assert (information.severity, information.where) == (Severity.INFO, "")
    assert "aten.sort" in information.message and "lower bound" not in information.message


def test_a_model_that_did_not_run_is_a_warning_with_the_reason() -> None:
    (finding,) = diagnose(without_run("no input is known"))
    assert (finding.code, finding.severity) == ("not-run", Severity.WARNING)
    assert "no input is known" in finding.message and "--input" in finding.remedy


def test_every_code_is_in_the_table() -> None:
    rows = (*TINY_LAYERS, layer("aux", parameters=1), layer("hid", "Linear", RAN, parameters=1, registered=False))
    sick = report(layers=rows, uncounted=(operator(),))
    codes = [finding.code for finding in (*diagnose(sick), *diagnose(without_run()))]
    assert codes == ["unused-module", "unregistered-module", "uncounted-operators", "not-run"]
    assert set(codes) <= set(CODES)


def test_a_deep_and_wide_model_is_diagnosed_at_once() -> None:
    """10,000 unused layers below one another and side by side: what is named stays the topmost."""
    deep = [layer(".".join(["d"] * depth), parameters=1) for depth in range(1, 61)]
    wide = [layer(f"w.{number}", parameters=1) for number in range(10_000)]
    (message,) = unused(*deep, layer("w", "ModuleList"), *wide)
    assert message == "2 modules with parameters never ran: d Linear, w ModuleList"


def test_calls_with_zero_times_are_no_run() -> None:
    never = Call((), (), 0)
    assert unused(replace(layer("aux", parameters=1), calls=(never,))) == ("1 module with parameters never ran: aux Linear",)
