"""The rules of the kernels lens over reports written by hand: each threshold from both sides, what explains what, how findings are told."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from netlens.findings import CODES, Finding, Severity
from netlens.lenses.kernels.report import Change
from netlens.lenses.kernels.rulebook import RULES
from netlens.lenses.kernels.rules import alarms, diagnose, marks
from tests.lenses.kernels_case import codes, layer, norm, report

INFO, WARNING, ERROR = Severity.INFO, Severity.WARNING, Severity.ERROR


def verdict(findings: tuple[Finding, ...]) -> list[tuple[str, Severity]]:
    assert {finding.code for finding in findings} <= set(CODES)
    assert all((finding.message and finding.measured and finding.threshold) or finding.code == "weights-unchanged" for finding in findings)
    assert all(finding.remedy for finding in findings)
    return [(finding.code, finding.severity) for finding in findings]


# --- thresholds: the numbers of the reference, each from both sides. Of 64 filters 3 are 4.7 %, 4 are 6.3 %, 31 are 48.4 %, 32 are 50 %.

SQUEEZE: dict[str, Any] = {"shape": (8, 528, 1, 1), "filters": 8, "fan_in": 528}
BOUNDS: list[tuple[dict[str, Any], str | None, Severity | None]] = [
    ({"nan": 1}, "weight-nonfinite", ERROR),
    ({"infinite": 1}, "weight-nonfinite", ERROR),
    ({"dead": 3}, None, None),
    ({"dead": 4}, "dead-filters", WARNING),
    ({"dead": 31}, "dead-filters", WARNING),
    ({"dead": 32}, "dead-filters", ERROR),
    ({"duplicates": 3}, None, None),
    ({"duplicates": 4}, "duplicate-filters", WARNING),
    ({"duplicates": 32}, "duplicate-filters", ERROR),
    ({"mean": 1.0, "rms": 1.0, "std": 0.00101}, None, None),
    ({"mean": 1.0, "rms": 1.0, "std": 0.00099}, "constant-weights", ERROR),
    ({"mean": 1.0, "rms": 1.0, "std": 0.0, "trainable": False}, None, None),
    ({"mean": 1.0, "rms": 1.0, "std": 0.0, "trainable": None}, "constant-weights", ERROR),
    ({"mean": 1.0, "rms": 1.0, "std": 0.0, "shape": (7, 1, 1, 1), "filters": 7, "fan_in": 1}, None, None),
    ({"mean": 1.0, "rms": 1.0, "std": 0.0, "shape": (8, 1, 1, 1), "filters": 8, "fan_in": 1}, "constant-weights", ERROR),
    ({"outlier": 149.0}, None, None),
    ({"outlier": 151.0}, "weight-outlier", WARNING),
    ({"outlier": 1499.0}, "weight-outlier", WARNING),
    ({"outlier": 1501.0}, "weight-outlier", ERROR),
    ({"outlier": inf}, "weight-outlier", ERROR),
    ({"outlier": None}, None, None),
    ({"stable_rank": 1.11}, None, None),
    ({"stable_rank": 1.09}, "low-rank", WARNING),
    ({"stable_rank": None}, None, None),
    ({"zeros": 4607}, None, None),  # of 9,216
    ({"zeros": 4608}, "weight-pruned", INFO),
    ({"near_zero": 0.24}, None, None),
    ({"near_zero": 0.26}, "weight-spike", WARNING),
    ({"valley": 0.49}, None, None),
    ({"valley": 0.51}, "weight-bimodal", INFO),
    ({"valley": 0.51, "trainable": False}, None, None),
    ({"valley": 0.51, "kind": "embedding"}, None, None),
    ({"gain": 0.0101}, None, None),
    ({"gain": 0.0099}, "init-scale", WARNING),
    ({"gain": 0.00101}, "init-scale", WARNING),
    ({"gain": 0.00099}, "init-scale", ERROR),
    ({"gain": 7.9}, None, None),
    ({"gain": 8.1}, "init-scale", WARNING),
    ({"gain": 29.9}, "init-scale", WARNING),
    ({"gain": 30.1}, "init-scale", ERROR),
    ({"gain": 1e-6, "normalised": True}, None, None),
    ({"gain": 1e-6, "normalised": None}, None, None),
    ({"gain": 1e-6, "head": True}, None, None),
    ({"gain": 1e-6, "kind": "embedding"}, None, None),
    ({"gain": 1e-6, "kind": "linear", "shape": (64, 144)}, "init-scale", ERROR),
    ({"gain": 1e-5, "name": "blocks.0.gate.proj"}, None, None),
    ({"gain": 1e3, "name": "blocks.0.gate.proj"}, "init-scale", ERROR),
    # 528 channels become 8: fan-out mode gives RMS sqrt(2 / 8) = 0.5 and a gain of 11.5; a normal distribution of RMS 1 gives 23.
    ({**SQUEEZE, "gain": 11.5}, None, None),
    ({**SQUEEZE, "gain": 23.0}, "init-scale", WARNING),
    ({**SQUEEZE, "gain": 31.0}, "init-scale", ERROR),
    ({"std": 2.9, "initial_std": 0.1, "gain": 35.0, "normalised": True}, None, None),
    ({"std": 3.1, "initial_std": 0.1, "gain": 37.0, "normalised": True}, "weight-wide", WARNING),
    ({"std": 3.1, "initial_std": 0.1, "gain": 37.0, "head": True}, "weight-wide", WARNING),
    ({"std": 0.1, "initial_std": 1e-6, "gain": 1.2, "normalised": True}, None, None),  # a tiny initialisation that grew is not wide
    ({"std": 3.1, "initial_std": 0.0, "gain": 37.0, "normalised": True}, None, None),
    ({"shape": (0, 16, 3, 3), "filters": 0, "mean": None, "std": None, "rms": None, "norm": None, "gain": None}, None, None),
]


@pytest.mark.parametrize(("changes", "code", "severity"), BOUNDS, ids=lambda value: str(value))
def test_thresholds(changes, code, severity):
    assert verdict(diagnose(report(layer(**changes)))) == ([(code, severity)] if code else [])


def test_a_healthy_layer_is_silent():
    assert diagnose(report(layer())) == ()
    assert diagnose(report(layer(), initialised=True)) == ()
    assert diagnose(report()) == ()


ZERO = {"zeros": 9216, "mean": 0.0, "std": 0.0, "rms": 0.0, "norm": 0.0, "gain": 0.0, "dead": 64, "stable_rank": None, "outlier": None}


@pytest.mark.parametrize(
    ("initialised", "initial_std", "expected"),
    [
        (True, 0.0, []),  # a gate or head that starts from zero on purpose
        (True, 0.1, [("weight-all-zero", INFO)]),
        (False, 0.0, [("weight-all-zero", INFO)]),
        (None, None, [("weight-all-zero", INFO)]),
    ],
)
def test_zero_weights_are_only_told_where_the_initialisation_is_not_zero_itself(initialised, initial_std, expected):
    zero = layer("gate", initial_std=initial_std, **ZERO)
    assert verdict(diagnose(report(layer(), zero, initialised=initialised))) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # What a cause brings with it is told once, by the cause.
        ({"nan": 9, "dead": 40, "stable_rank": 1.0, "outlier": 1e9, "gain": 1e9}, ["weight-nonfinite"]),
        ({"mean": 1.0, "rms": 1.0, "std": 0.0, "duplicates": 64, "stable_rank": 1.0, "gain": 12.0}, ["constant-weights"]),
        ({"duplicates": 60, "stable_rank": 1.01}, ["duplicate-filters"]),
        ({"dead": 60, "near_zero": 0.94, "outlier": 1e6, "stable_rank": 1.02}, ["dead-filters"]),
        ({"dead": 40, "zeros": 5760, "valley": 0.9}, ["dead-filters"]),  # 40 filters of 144 zeros: structured pruning
        ({"zeros": 8000, "valley": 0.9}, ["weight-pruned"]),
        ({"near_zero": 0.6, "valley": 0.9, "outlier": 900.0}, ["weight-spike"]),
        ({"gain": 40.0, "std": 3.3, "initial_std": 0.08}, ["init-scale"]),
        # One weight of 1e5 has all the energy: 63 filters look dead, 9,215 weights near zero, the rank is 1, the gain large.
        (
            {
                "outlier": 1e6,
                "greatest": 1e5,
                "norm": 1e5,
                "dead": 63,
                "near_zero": 0.98,
                "stable_rank": 1.0,
                "gain": 1e4,
                "std": 1e3,
                "initial_std": 0.1,
            },
            ["weight-outlier"],
        ),
        # What has nothing to do with one another is told side by side.
        ({"dead": 10, "duplicates": 10}, ["dead-filters", "duplicate-filters"]),
        ({"dead": 5, "outlier": 200.0}, ["weight-outlier", "dead-filters"]),
        ({"duplicates": 10, "gain": 1e-4}, ["duplicate-filters", "init-scale"]),
    ],
)
def test_a_fault_is_told_once(changes, expected):
    assert codes(diagnose(report(layer(**changes)))) == expected


def test_on_a_fresh_model_only_shapes_that_training_makes_are_left_out():
    sparse = layer(zeros=9000)  # dirac, orthogonal and sparse initialisations
    assert codes(diagnose(report(sparse, initialised=True))) == []
    assert codes(diagnose(report(sparse, initialised=None))) == ["weight-pruned"]
    wide = layer(std=3.1, initial_std=0.1, gain=37.0, normalised=True)
    assert codes(diagnose(report(wide, initialised=True))) == []


def test_small_matrices_have_a_low_rank_by_chance():
    """2 x 8 normal matrices fall below 1.1 in 2 % of the draws; no 4 x 16 one of 40,000 did (the least was 1.43)."""
    small = {"stable_rank": 1.05, "shape": (2, 8, 1, 1), "filters": 2, "fan_in": 8}
    assert diagnose(report(layer(**small))) == ()
    assert codes(diagnose(report(layer(**{**small, "shape": (4, 16, 1, 1), "filters": 4, "fan_in": 16})))) == ["low-rank"]
    grouped = {**small, "shape": (64, 8, 1, 1), "filters": 64, "groups": 32}  # 32 groups of 2 x 8
    assert diagnose(report(layer(**grouped))) == ()


# --- findings of many layers


def test_one_rule_is_one_finding_at_the_worst_layer():
    rows = [layer(f"layer{place}", dead=dead) for place, dead in enumerate([4, 0, 40, 10, 5, 6, 7, 8, 9])]
    (finding,) = diagnose(report(*rows))
    assert (finding.where, finding.severity, finding.measured) == ("layer2", ERROR, "62.5 %")
    assert finding.message == (
        "40 of 64 filters are dead: less than a thousandth of the usual norm; the worst of 8 layers, before layer3 (10/64), layer8 (9/64), "
        "layer7 (8/64), layer6 (7/64), layer5 (6/64), layer4 (5/64) and 1 more"
    )


def test_a_gain_of_a_ten_thousandth_is_as_bad_as_its_counterpart():
    """Beyond its bound 8 by a factor of 100, 800 is worse than 0.001, which is beyond 0.01 by 10."""
    (finding,) = diagnose(report(layer("small", gain=9.9e-4), layer("large", gain=800.0), layer("well")))
    assert finding.where == "large"
    assert "scales the RMS of its input by about 800" in finding.message and "small (0.000990)" in finding.message
    assert "explode" in finding.message


def test_the_smallest_rank_and_the_largest_gain_are_worst():
    (finding,) = diagnose(report(layer("a", stable_rank=1.08), layer("b", stable_rank=1.01), layer("c", stable_rank=1.05)))
    assert finding.where == "b" and "before c (1.05), a (1.08)" in finding.message


def test_names_from_a_file_are_cut_and_steer_nothing():
    (finding,) = diagnose(report(layer("::error::" + "x" * 500, nan=1)))
    assert len(finding.where) <= 110 and not finding.where.startswith("::")


def test_remedies_of_a_fresh_model_speak_of_its_constructor():
    (finding,) = diagnose(report(layer(nan=1), initialised=True))
    assert "constructor" in finding.remedy
    (finding,) = diagnose(report(layer(nan=1), initialised=None))
    assert "checkpoint" in finding.remedy


def test_sick_cells_are_marked_and_infos_are_not():
    found = marks(report(layer(dead=4), layer(), layer(dead=40, nan=0), layer(zeros=9000), layer(gain=1e-9)))
    assert found == {0: {"dead": WARNING}, 2: {"dead": ERROR}, 4: {"gain": ERROR, "init": ERROR}}


def test_alarms_name_every_ill_layer():
    found = alarms(report(layer("a", dead=10, duplicates=10), layer("b"), layer("c", near_zero=0.5)))
    assert found == {"a": "dead filters, copies", "c": "spike"}
    assert all(rule.word for rule in RULES.values())


# --- normalisations


@pytest.mark.parametrize(
    ("changes", "measured"),
    [
        ({"nonfinite": 2, "least_variance": None}, "2 NaN or Inf"),
        ({"nonfinite": 1, "least_variance": 0.5}, "1 NaN or Inf"),
        ({"least_variance": -1e-3}, "variance -0.00100"),
    ],
)
def test_statistics_that_are_not_finite_or_negative(changes, measured):
    (finding,) = diagnose(report(layer(), norms=(norm("bn1"), norm("bn2", **changes), norm("bn3", **changes))))
    assert verdict((finding,)) == [("bn-stats-bad", ERROR)]
    assert finding.where == "bn2" and "bn3" in finding.message and finding.measured == measured


def test_a_variance_of_zero_is_no_fault():
    assert diagnose(report(layer(), norms=(norm(least_variance=0.0),))) == ()


FRESH = {"untouched": True, "least_variance": 1.0, "affine_moved": False}
STALE = {"untouched": True, "least_variance": 1.0, "affine_moved": True}


@pytest.mark.parametrize(
    ("norms", "initialised", "stale"),
    [
        ([FRESH, FRESH], None, ""),
        ([STALE, STALE], None, "bn0"),
        ([STALE, STALE], True, ""),
        ([FRESH, STALE], None, "bn1"),
        ([{}, STALE], False, "bn1"),
        ([{}, FRESH], None, ""),
        ([{}, {}], None, ""),
        ([STALE, {**STALE, "affine_moved": None}], None, "bn0"),
        ([{**STALE, "affine_moved": None}], None, ""),
    ],
)
def test_statistics_that_training_forgot(norms, initialised, stale):
    found = diagnose(
        report(layer(), norms=tuple(norm(f"bn{place}", **changes) for place, changes in enumerate(norms)), initialised=initialised)
    )
    assert verdict(found) == ([("bn-stats-stale", WARNING)] if stale else [])
    assert not stale or found[0].where == stale


# --- kernels that are noise


def noise(name: str = "conv", z: float | None = 0.4, **changes: Any) -> Any:
    return layer(name, smoothness=0.004, smoothness_z=z, **changes)


@pytest.mark.parametrize(
    ("rows", "initialised", "found"),
    [
        ([noise()], None, True),
        ([noise()], False, True),
        ([noise()], True, False),  # the title says that nothing was learned
        ([noise(z=-3.9), noise(z=3.9)], None, True),
        ([noise(z=4.1), noise()], None, False),
        ([noise(z=-4.1), noise()], None, False),  # edges: neighbours of opposite sign are no noise either
        ([noise(z=None, shape=(64, 144, 1, 1))], None, False),
        ([noise(z=nan)], None, False),
        ([noise(shape=(64, 36, 2, 2))], None, False),  # too few neighbours
        ([noise(shape=(8, 16, 3, 3), filters=8)], None, False),  # 8 * 144 = 1,152 weights can hide a small smoothness
        ([], None, False),
    ],
)
def test_a_checkpoint_whose_kernels_are_noise(rows, initialised, found):
    assert verdict(diagnose(report(*rows, initialised=initialised))) == ([("untrained-filters", WARNING)] if found else [])


# --- against another checkpoint


def moved(name: str, largest: float) -> Any:
    return layer(name, change=Change(relative=largest, cosine=1.0, largest=largest))


def test_layers_that_did_not_move_while_others_did():
    (finding,) = diagnose(report(moved("body.0", 0.0), moved("body.1", 0.0), moved("head", 0.3), layer("new"), against="first.ckpt"))
    assert verdict((finding,)) == [("weights-unchanged", INFO)]
    assert finding.where == "body.0" and "body.0, body.1" in finding.message and finding.measured == "2 of 3 layers equal bit for bit"


def test_two_equal_checkpoints():
    (finding,) = diagnose(report(moved("body", 0.0), moved("head", 0.0), against="first.ckpt"))
    assert finding.where == "" and "both hold the same weights" in finding.message


def test_everything_moved():
    assert diagnose(report(moved("body", 1e-9), moved("head", 0.3), against="first.ckpt")) == ()
    assert diagnose(report(moved("body", inf), moved("head", nan), against="first.ckpt")) == ()
