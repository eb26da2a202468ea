"""The rules of gradcam: planted faults beside clean reports, thresholds at their edges, and what is told once."""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest

from netlens.findings import CODES, Finding, Severity
from netlens.lenses.gradcam.choices import METHODS
from netlens.lenses.gradcam.ranking import believed, distrusted, ranked
from netlens.lenses.gradcam.report import Class, GradcamReport
from netlens.lenses.gradcam.rules import diagnose, marks
from tests.lenses.gradcam_case import LAYER, LYNX, SHOT, TABBY, TIGER, checked, heat, report, scored

BLANK = {"least": 0.0, "greatest": 0.0, "positive": 0.0, "peak": None}


def only(found: GradcamReport) -> Finding:
    """Return the single finding."""
    (finding,) = diagnose(found)
    assert finding.code in CODES
    return finding


def codes(found: GradcamReport) -> list[str]:
    return [finding.code for finding in diagnose(found)]


def test_a_healthy_report_has_no_findings():
    many = [heat(sample=sample, method=method) for sample in range(3) for method in METHODS if method != "eigencam"]
    whole = report(*many, methods=(scored("gradcam"), scored("layercam", road=0.2)), sanity=(checked("gradcam", (0.6, 0.2, 0.1)),))
    assert diagnose(whole) == () and marks(whole) == {}
    assert diagnose(replace(report(), maps=(), shots=())) == (), "--list-layers"


# -- blank maps, and why ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code", "severity"),
    [
        ({"least": -3.2, "greatest": -0.1}, "negative-evidence", Severity.WARNING),
        ({"least": -3.2, "greatest": 0.0}, "negative-evidence", Severity.WARNING),
        ({"least": 0.0, "greatest": 0.0, "gradient": 0.5, "method": "layercam"}, "negative-evidence", Severity.WARNING),
        ({"least": 0.0, "greatest": 0.0, "gradient": 0.0}, "zero-gradient", Severity.WARNING),
        ({"least": 0.0, "greatest": 0.0, "gradient": None, "method": "cam"}, "zero-gradient", Severity.WARNING),
        ({"least": -1.0, "greatest": 0.0, "gradient": None, "method": "ablationcam"}, "negative-evidence", Severity.WARNING),
        ({"least": 0.0, "greatest": 0.0, "gradient": 0.5, "dead": True}, "dead-layer", Severity.WARNING),
        ({"least": None, "greatest": None, "nonfinite": 49}, "map-nonfinite", Severity.ERROR),
        ({"nonfinite": 1}, "map-nonfinite", Severity.ERROR),
        ({"least": 0.951, "greatest": 1.0, "positive": 1.0}, "flat-map", Severity.WARNING),
        ({"least": 2.5, "greatest": 2.5, "shape": (1, 1)}, "flat-map", Severity.WARNING),
    ],
)
def test_what_ails_a_map(changes, code, severity):
    found = report(heat(**changes))
    finding = only(found)
    assert (finding.code, finding.severity, finding.where) == (code, severity, "layer4")
    assert finding.remedy and marks(found)[0][1] is severity


@pytest.mark.parametrize(
    "changes",
    [{"greatest": 1e-30}, {"least": 0.949, "greatest": 1.0, "positive": 1.0}, {"gradient": 1e-9}, {"dead": True, "method": "fullgrad"}],
)
def test_what_is_no_fault(changes):
    assert diagnose(report(heat(**changes))) == ()


def test_a_class_that_is_not_predicted_may_well_have_only_negative_evidence():
    """That nothing speaks for it is what the model says; the finding tells it, and does not warn."""
    wrong = heat(target=LYNX, asked="lynx", least=-2.0, greatest=-0.5)
    assert [(each.code, each.severity) for each in diagnose(report(wrong))] == [
        ("negative-evidence", Severity.INFO),
        ("not-predicted", Severity.INFO),
    ]
    both = diagnose(report(wrong, heat(least=-2.0, greatest=-0.5)))
    assert both[0].severity is Severity.WARNING, "the top prediction is among them"


def test_a_blank_map_after_the_last_attention_is_explained():
    tokens = replace(LAYER, name="encoder.ln", layout="tokens", shape=(197, 768), grid=(14, 14), channels=768)
    finding = only(report(heat(**BLANK, gradient=0.0, layers=("encoder.ln",)), layers=(tokens,)))
    assert "class token" in finding.remedy and finding.where == "encoder.ln"
    assert "class token" not in only(report(heat(**BLANK, gradient=0.0))).remedy


def test_a_head_of_zeros_is_the_cause_of_a_blank_map_whatever_the_layer():
    even = tuple(replace(found, score=0.0, probability=0.001) for found in (TABBY, TIGER, LYNX))
    tokens = replace(LAYER, layout="tokens", shape=(197, 768), grid=(14, 14), channels=768)
    blank = heat(**BLANK, gradient=0.0, target=even[0])
    (_, zero) = diagnose(report(blank, layers=(tokens,), shots=(replace(SHOT, top=even),), initialised=True))
    assert zero.code == "zero-gradient" and zero.remedy.startswith("every class has the same score, so the head is 0")
    assert "earlier layer" not in zero.remedy, "none has a gradient"
    two = report(blank, replace(blank, sample=1), shots=(replace(SHOT, top=even), SHOT), initialised=True)
    assert "earlier layer" in diagnose(two)[1].remedy, "another picture says that the head is not 0"
    uneven = (even[0], replace(even[1], score=-1e-6))
    for layout in ("tokens", "channels first"):
        layers = (replace(LAYER, layout=layout),)
        (_, zero) = diagnose(report(blank, layers=layers, shots=(replace(SHOT, top=uneven),), initialised=True))
        assert zero.remedy.count("earlier layer") == 1 and zero.remedy.count("head") == 1


def test_who_explains_the_top_prediction_is_not_told_to():
    nothing = {"least": -2.0, "greatest": -0.5}
    (own,) = diagnose(report(heat(**nothing)))
    (both, *_) = diagnose(report(heat(**nothing), heat(**nothing, target=LYNX, asked="lynx")))
    assert "top prediction" not in own.remedy and both.remedy.startswith("explain the top prediction, ")
    assert own.remedy[0].islower() and own.remedy in both.remedy


def test_half_precision_is_suspected_where_numbers_are_lost():
    blank = heat(**BLANK, gradient=0.0)
    assert "float32" in only(report(blank, run={"dtype": "float16"})).remedy
    assert "float32" in only(report(blank, run={"autocast": "bf16"})).remedy
    assert "float32" not in only(report(blank)).remedy


@pytest.mark.parametrize(
    ("probability", "score", "gradient", "saturated"),
    [
        (1.0, 0.0, 0.0, True),  # softmax: log(1)
        (1 - 2**-24, log(1 - 2**-24), 3e-8, True),  # all that is left of the gradient is rounding
        (1.0, 21.5, 0.4, False),  # a model that gives scores is never saturated, however sure it is
        (1.0, 17.3287, 0.0, True),  # sigmoid: log(1) - log(eps / 4), eps = 2^-23
        (0.0, -87.3365, 0.0, True),  # log(2^-126), the least normal number
        (0.999, log(0.999), 0.0125, False),
        (None, 0.9, 0.0, False),
    ],
)
def test_saturated_scores(probability, score, gradient, saturated):
    assert log(4 * 2**23) == pytest.approx(17.3287, abs=1e-4) and -126 * log(2) == pytest.approx(-87.3365, abs=1e-4)
    sure = Class(281, "tabby", score, probability)
    found = report(heat(target=sure, gradient=gradient), shots=(replace(SHOT, top=(sure,)),))
    assert ("saturated-score" in codes(found)) is saturated


@pytest.mark.parametrize(
    ("probability", "score", "told"),
    [(1.0, 0.0, "1"), (1 - 2**-24, log(1 - 2**-24), "1 less 5.96e-8"), (0.0, -87.3365, "0"), (1e-38, log(1e-38), "1e-38")],
)
def test_a_saturated_probability_is_written_in_full(probability, score, told):
    sure = Class(281, "tabby", score, probability)
    finding = diagnose(report(heat(**BLANK, target=sure, gradient=0.0), shots=(replace(SHOT, top=(sure,)),)))[0]
    assert (finding.measured, finding.threshold) == (f"probability {told}, largest |gradient| 0", "1 less 1e-07, or 1e-37")


def test_saturation_explains_a_blank_map():
    sure = Class(281, "tabby", 0.0, 1.0)
    assert codes(report(heat(**BLANK, target=sure, gradient=0.0), shots=(replace(SHOT, top=(sure,)),))) == ["saturated-score"]


def test_an_output_that_is_not_finite_is_the_cause_of_maps_that_are_not():
    bad = replace(SHOT, name="bad.png", top=(), nonfinite=3)
    finding = only(report(heat(), heat(sample=1, least=None, greatest=None, nonfinite=49), shots=(SHOT, bad)))
    assert (finding.code, finding.severity, finding.measured) == ("output-nonfinite", Severity.ERROR, "3 NaN or Inf")
    assert "1 of 2 samples, bad.png" in finding.message
    blank = report(heat(), heat(**BLANK, sample=1, gradient=0.0), shots=(SHOT, bad))
    assert codes(blank) == ["output-nonfinite"] and marks(blank) == {1: ("output not finite", Severity.ERROR)}
    assert codes(report(shots=(bad,))) == ["output-nonfinite"], "also where no map was made"


def test_hundreds_of_maps_are_one_finding():
    maps = [heat(sample=sample, **(BLANK | {"gradient": 0.0} if sample % 2 else {})) for sample in range(400)]
    finding = only(report(*maps))
    assert "200 of 400 maps, cat1.png (tabby), cat3.png (tabby), cat5.png (tabby) and 197 more" in finding.message
    assert len(finding.message) < 250


def test_examples_name_the_method_where_there_are_several_and_a_class_without_a_name_by_its_number():
    nameless = Class(7, None, 9.0, 0.9)
    maps = (heat(target=nameless, method="layercam", least=-1.0, greatest=-1.0), heat())
    (finding, *_) = diagnose(report(*maps, shots=(replace(SHOT, top=(nameless,)),)))
    assert "cat.png (class 7, LayerCAM)" in finding.message


# -- what is explained -----------------------------------------------------------------------------------------------------------------


def test_an_untrained_model_is_told_loudly_and_nothing_is_made_of_its_maps():
    guess = Class(281, "tabby", 0.1, 0.0011)
    fresh = report(
        heat(target=guess, least=0.99, greatest=1.0),
        shots=(replace(SHOT, top=(guess,)),),
        initialised=True,
        methods=(scored("gradcam", road=-0.3),),
    )
    finding = only(fresh)
    assert (finding.code, finding.severity) == ("untrained", Severity.WARNING)
    assert believed(fresh) == "", "no method is recommended"
    assert "untrained" not in codes(replace(fresh, initialised=None))


def test_an_untrained_head_of_zeros_still_says_why_the_map_is_blank():
    found = diagnose(report(heat(**BLANK, gradient=0.0), initialised=True))
    assert [(each.code, each.severity) for each in found] == [("untrained", Severity.WARNING), ("zero-gradient", Severity.WARNING)]


@pytest.mark.parametrize(("probability", "expected"), [(0.0999, ["low-confidence"]), (0.1, [])])
def test_an_unsure_prediction(probability, expected):
    guess = Class(281, "tabby", 1.0, probability)
    found = report(heat(target=guess), heat(target=guess, method="layercam"), shots=(replace(SHOT, top=(guess,)),))
    assert codes(found) == expected
    assert codes(replace(found, run=replace(found.run, random_inputs=True))) == [], "of noise nothing else is to be expected"


def test_a_class_that_is_not_predicted():
    finding = only(report(heat(target=TIGER, asked="tiger cat"), heat(target=TIGER, asked="tiger cat", method="layercam")))
    assert (finding.code, finding.severity) == ("not-predicted", Severity.INFO)
    assert finding.message.count("tiger cat") == 1, "once a question, not once a map"
    assert "0.225" in finding.measured
    assert codes(report(heat(target=TIGER, asked="prediction 2"))) == [], "top3 asks for it by its rank"
    likely = replace(TIGER, probability=0.7)  # classes that are independent of one another: both are predicted
    assert codes(report(heat(target=likely, asked="tiger cat"))) == []
    assert codes(report(heat(target=Class(0, None, 0.4, None), asked="likeness to the reference"))) == []


# -- methods ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked", ["top prediction", "prediction 2", "largest region besides background", "best detection", "likeness to the reference"]
)
def test_a_method_that_knows_no_class_is_named_where_a_class_is_asked_for(asked):
    assert "class-blind" not in codes(report(heat(method="eigencam", gradient=None, asked=asked)))


@pytest.mark.parametrize("asked", ["tabby", "281", "point 40,60"])
def test_class_blind(asked):
    finding = only(report(heat(method="eigencam", gradient=None, asked=asked), heat(asked=asked)))
    assert (finding.code, finding.severity, finding.where) == ("class-blind", Severity.INFO, "Eigen-CAM")


@pytest.mark.parametrize(("last", "fails"), [(0.9, True), (0.899, False), (-0.95, True), (None, False)])
def test_maps_that_do_not_depend_on_the_weights(last, fails):
    """What counts is the step at which all weights are new; that only the head is new changes some methods' maps little."""
    found = report(heat(), sanity=(checked("gradcam", (0.9, 0.8, last)), checked("layercam", (0.9, 0.5, 0.0))))
    assert codes(found) == (["weights-ignored"] if fails else [])
    if fails:
        assert only(found).where == "Grad-CAM" and only(found).severity is Severity.WARNING


@pytest.mark.parametrize(
    ("worth", "fails"),
    [
        ({"deletion": 0.5, "insertion": 0.3}, True),
        ({"deletion": 0.305, "insertion": 0.3}, False),  # noise
        ({"road": -0.011}, True),
        ({"road": -0.009}, False),
        ({"deletion": None, "insertion": None, "road": None}, False),
    ],
)
def test_methods_that_are_worse_than_chance(worth, fails):
    found = report(heat(), methods=(scored("layercam"), scored("gradcam", **worth)))
    assert codes(found) == (["unfaithful-maps"] if fails else [])
    if fails:
        assert only(found).where == "Grad-CAM" and distrusted(found) == {"gradcam": "worse than chance"}


@pytest.mark.parametrize(("maps", "pointing", "fails"), [(8, 0.0, True), (7, 0.0, False), (8, 0.125, False), (8, None, False)])
def test_methods_that_miss_every_box(maps, pointing, fails):
    assert codes(report(heat(), methods=(scored("gradcam", maps=maps, pointing=pointing),))) == (["misses-boxes"] if fails else [])


def test_methods_that_are_equal_are_told_once():
    several = [("gradcam", None), ("hirescam", "gradcam"), ("xgradcam", "gradcam"), ("layercam", None)]
    maps = [heat(sample=sample, method=method, equals=equals) for sample in range(5) for method, equals in several]
    finding = only(report(*maps))
    assert (finding.code, finding.severity) == ("equal-maps", Severity.INFO)
    assert finding.message.endswith("Grad-CAM = HiResCAM = XGrad-CAM")
    odd = heat(sample=0, method="hirescam")
    assert only(report(*maps, odd)).message.endswith(": Grad-CAM = XGrad-CAM"), "equal by chance, once, is not by theory"
    blank = [heat(method=method, equals=equals, least=-1.0, greatest=-0.5) for method, equals in several]
    assert codes(report(*blank)) == ["negative-evidence"], "blank maps are all alike"


# -- the order of methods --------------------------------------------------------------------------------------------------------------


def test_methods_are_ranked_by_their_mean_rank():
    """By hand. ROAD: a 1, b 2, c 3. Pointing: b 1, a and c share 2.5. Energy: c 1, b 2, a, which was not measured, 3."""
    a = scored("gradcam", road=0.4, pointing=0.5, energy=None, seconds=2.0)
    b = scored("layercam", road=0.3, pointing=0.9, energy=0.5, seconds=9.0)
    c = scored("scorecam", road=0.2, pointing=0.5, energy=0.6, seconds=1.0)
    found = ranked((a, b, c))
    assert [row.method for row, _ in found] == ["layercam", "scorecam", "gradcam"], "of equal ones the faster"
    assert [mean for _, mean in found] == pytest.approx([5 / 3, 6.5 / 3, 6.5 / 3])
    assert believed(report(heat(), methods=(a, b, c))) == (
        "believe LayerCAM: the best mean rank of 3 methods by ROAD, pointing and energy, on 20 maps"
    )


@pytest.mark.parametrize(
    ("roads", "ranks"),
    [
        ((0.31, 0.30, 0.299, 0.2), (1.5, 1.5, 3, 4)),  # 0.01 is not clear; 0.299 is clearly below the best, though not below the second
        ((0.31, 0.305, 0.3, None), (2, 2, 2, 4)),
        ((0.2, 0.211, 0.1, 0.1), (2, 1, 3.5, 3.5)),
        ((0.3, 0.4, 0.295, 0.2), (2.5, 1, 2.5, 4)),
        ((None, 0.5, None, 0.4), (3.5, 1, 3.5, 2)),
    ],
)
def test_methods_that_differ_by_less_than_is_clear_share_a_rank(roads, ranks):
    methods = ("gradcam", "hirescam", "layercam", "cam")
    rows = [scored(method, road=road, pointing=None, energy=None) for method, road in zip(methods, roads, strict=True)]
    assert {row.method: mean for row, mean in ranked(rows)} == dict(zip(methods, ranks, strict=True))


def test_methods_that_share_the_first_place_are_all_believed():
    rows = (scored("gradcam", road=0.31), scored("hirescam", road=0.319), scored("layercam", road=0.2))
    assert believed(report(heat(), methods=rows)).startswith("believe Grad-CAM and HiResCAM: the best mean rank of 3")


@pytest.mark.parametrize("roads", [(0.3, 0.2), (0.3,), (0.0, -0.1), (-0.3, -0.4)])
def test_of_one_or_two_maps_nothing_is_concluded(roads):
    def verdict(maps):
        rows = tuple(scored(method, road=road, maps=maps) for method, road in zip(("gradcam", "layercam"), roads, strict=False))
        return believed(report(heat(), methods=rows))

    assert verdict(1) == "1 map of each method is too few to say which to believe: give 3 or more"
    assert verdict(2) == "2 maps of each method are too few to say which to believe: give 3 or more"
    assert "too few" not in verdict(3)


def test_a_method_that_knows_no_class_or_fails_is_passed_over():
    rows = (scored("eigencam", road=0.5), scored("fullgrad", road=0.4), scored("gradcam", road=0.3), scored("cam", road=-0.2))
    found = report(heat(), methods=rows, sanity=(checked("fullgrad", (1.0, 0.9, 0.95)),))
    assert believed(found) == (
        "believe Grad-CAM: the best mean rank of 4 methods by ROAD, pointing and energy, on 20 maps; "
        "passed over: Eigen-CAM knows no class, FullGrad does not depend on the weights"
    )


def test_where_nothing_is_better_than_chance_nothing_is_recommended():
    rows = (scored("gradcam", road=0.004), scored("layercam", road=-0.005))
    assert (
        believed(report(heat(), methods=rows))
        == "no order of pixels is clearly better than chance: ROAD of Grad-CAM and LayerCAM is 0.004 on 20 maps"
    )
    worse = (scored("gradcam", road=-0.2), scored("layercam", road=-0.3))
    assert believed(report(heat(), methods=worse)).startswith("none of them is to be believed: Grad-CAM is worse than chance")


def test_a_single_method_is_compared_with_chance():
    assert believed(report(heat(), methods=(scored("gradcam"),))) == "Grad-CAM orders the pixels better than chance, on 20 maps"
    unmeasured = scored("gradcam", road=None, pointing=None, energy=None)
    assert believed(report(heat(), methods=(unmeasured,))) == "" and believed(report(heat())) == ""


def test_names_cannot_steer_what_reads_findings():
    hostile = Class(1, "::error::x", 9.0, 0.01)
    (finding,) = diagnose(report(heat(target=hostile), shots=(replace(SHOT, name="::set-output::" + "y" * 300, top=(hostile,)),)))
    assert " ::" not in finding.message and len(finding.message) < 250
