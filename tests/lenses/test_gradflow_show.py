"""The tables of `netlens gradflow`: every cell against the report, nothing cut that is a number, nothing hidden without saying so."""

from __future__ import annotations

import io
import re
import time
from dataclasses import replace
from math import inf, nan

import pytest
from rich.cells import cell_len
from rich.console import Console

from netlens.drawing.tables import render
from netlens.errors import UsageError
from netlens.lenses.gradflow.columns import COLUMNS, GIVES_WAY, STAYS
from netlens.lenses.gradflow.report import GradflowReport, Noise, RateRange
from netlens.lenses.gradflow.show import MOST_ROWS, as_markdown, as_text, table
from netlens.parts import Picture
from tests.lenses.gradflow_case import layer, look, overfit, parameter, rank, report, scale, silent, without, zero

LONG = "encoder.layers.encoder_layer_{}.self_attention.out_proj.weight"
HEADERS = "|".join(re.escape(info.header) for info in COLUMNS.values())


def few() -> GradflowReport:
    """Parameters with numbers that are easy to find again."""
    first = parameter("stem.weight", weight_rms=0.0833, mean=0.00123, greatest=4.56e-7, rms=0.0789, norm=12345.0, zeros=0.25, ratio=0.5)
    rows = [
        replace(first, update=0.0125, signal=0.321, cosine=-0.5),
        scale("stem.bias", zeros=0.0004),
        zero("dead.weight"),
        parameter("next.weight", update=500.0),
        without("loose.weight", "detached"),
        without("old.weight", "frozen"),
    ]
    layers = [layer("stem"), silent("dead", shape=(8, 64)), layer("act", type="ReLU", activation_rms=0.0), layer("next"), layer("out")]
    return report(*rows, layers=layers, initialised=False)


def many() -> GradflowReport:
    return report(*(parameter(LONG.format(place), type="MultiheadAttention", shape=(768, 768)) for place in range(30)), zero("head.weight"))


def huge() -> GradflowReport:
    """Three hundred parameters, of which one is dead and one far off."""
    names = [f"blocks.{place // 2}.{'weight' if place % 2 else 'bias'}" for place in range(298)]
    rows = [parameter(name) if name.endswith("weight") else scale(name) for name in names]
    return report(*rows[:150], zero("dead.weight"), *rows[150:200], parameter("far.weight", update=0.9), *rows[200:])


def rows(text: str, first: str = "parameter") -> dict[str, dict[str, str]]:
    """Read a table back by where its columns stand: name -> header -> cell."""
    lines = text.splitlines()
    rule = next(
        place for place, line in enumerate(lines) if line and not line.strip("─-") and re.search(rf"(^|  ){first}( |$)", lines[place - 1])
    )
    spans = [match.span() for match in re.finditer(r"\S+(?: \S+)*", lines[rule - 1])]
    found: dict[str, dict[str, str]] = {}
    for line in lines[rule + 1 :]:
        if not re.match(r"\s*\d+(  |$)", line):
            break
        cells: dict[str, str] = {}
        for match in re.finditer(r"\S+(?: \S+)*", line):
            column = max(spans, key=lambda span: min(span[1], match.end()) - max(span[0], match.start()))
            cells[lines[rule - 1][slice(*column)]] = match[0]
        found[cells[first]] = cells
    return found


def facts(found: GradflowReport) -> dict[str, str]:
    """Read the labelled lines around the table."""
    lines = [line for line in as_text(found).splitlines() if re.match(r"[a-z]+ {2,}\S", line)]
    return {line.split("  ", 1)[0]: line.split("  ", 1)[1].strip() for line in lines}


def test_cells_are_the_numbers_of_the_report():
    found = rows(as_text(few()))
    assert found["stem.weight"] == {
        "#": "0",
        "parameter": "stem.weight",
        "type": "Conv2d",
        "shape": "16,16,3,3",
        "weight": "0.0833",
        "mean |g|": "0.00123",
        "max |g|": "4.56e-7",
        "RMS": "0.0789",
        "norm": "1.23e4",
        "zeros": "25.0 %",
        "g/w": "0.500",
        "step/w": "0.0125",
        "signal": "0.321",
        "cos": "-0.500",
    }
    assert found["stem.bias"]["zeros"] == "<0.1 %"
    assert (found["dead.weight"]["zeros"], found["dead.weight"]["note"]) == ("100.0 %!", "dead!")
    assert (found["next.weight"]["step/w"], found["next.weight"]["note"]) == ("500!", "step too large!")
    assert found["loose.weight"]["note"] == "detached!" and found["old.weight"]["note"] == "frozen"
    assert not {"mean |g|", "g/w", "step/w", "zeros"} & found["old.weight"].keys()


def test_values_that_are_not_finite_are_counted():
    found = rows(as_text(report(parameter("a.weight", nan=1200, infinite=34), parameter("b.weight"))))
    assert found["a.weight"]["NaN/Inf"] == "1,234!" and "NaN/Inf" not in found["b.weight"]


def test_what_is_only_information_has_no_sign():
    gates = [zero("b.a.weight"), scale("b.gate", layer="b.g", weight_rms=0.0, ratio=None), parameter("head.weight")]
    assert rows(as_text(report(*gates)))["b.a.weight"]["note"] == "opens later"
    assert "!" not in as_text(report(*gates))


def test_layers_show_where_it_stops():
    found = rows(as_text(few()), "output of")
    assert list(found) == ["stem", "dead", "act", "next", "out"]
    assert found["act"]["note"] == "dead!" and found["act"]["output"] == "0"
    assert found["dead"]["mean |g|"] == "0" and found["dead"]["zeros"] == "100.0 %"


def test_a_terminal_shows_the_layers_around_the_place_alone():
    layers = [layer(f"l{place}") for place in range(20)]
    layers[9:11] = [silent("dead"), layer("act", type="ReLU", activation_rms=0.0)]
    found = report(zero("dead.weight"), parameter("head.weight"), layers=layers)
    text = as_text(found, 120)
    assert list(rows(text, "output of")) == ["l8", "dead", "act", "l11", "l12"]
    assert "15 other layers in a pipe" in text and len(rows(as_text(found), "output of")) == 20
    assert "output of" not in as_text(report(layers=layers[:5]), 120)


def test_a_small_model_shows_all_layers_where_one_is_wrong():
    """The rows that would be left out take no more room than the line that says so."""
    layers = [silent("dead"), layer("act", type="ReLU", activation_rms=0.0), *(layer(f"l{place}") for place in range(3))]
    text = as_text(report(zero("dead.weight"), parameter("head.weight"), layers=layers), 120)
    assert list(rows(text, "output of")) == ["dead", "act", "l0", "l1", "l2"] and "other layer" not in text


def test_markdown_points_to_the_document_alone():
    layers = [silent("dead"), layer("act", type="ReLU", activation_rms=0.0), *(layer(f"l{place}") for place in range(20))]
    found = report(zero("dead.weight"), *(parameter(f"p{place}.weight") for place in range(200)), layers=layers)
    text = as_markdown(found).replace("\\", "")
    assert "18 other layers in --format json" in text and "100 of 201 parameters" in text and "pipe" not in text


@pytest.mark.parametrize(
    ("run", "loss", "told"),
    [
        ({}, 2.4, True),
        ({"loss": "nll"}, 2.4, True),
        ({}, 8 * 2.4, False),  # the sum over 8 samples
        ({"loss": "my_loss"}, 2.4, False),
        ({"loss": "the model's own", "kind": "the model's own loss"}, 2.5, True),
        ({"loss": "the model's own", "kind": "the model's own loss"}, 9.0, False),  # it adds others
    ],
)
def test_what_knowing_nothing_costs_is_that_of_a_mean_cross_entropy(run, loss, told):
    assert ("ln(10)" in facts(report(run=run, losses=[loss]))["loss"]) is told


def test_a_model_without_parameters_shows_its_layers():
    found = report(layers=[layer("a"), silent("b", "no grad")], parameters=())
    assert rows(as_text(found, 100), "output of")["b"]["note"] == "no grad"
    assert "gradients flow through all layers" in as_text(found, 100)


def test_layers_and_processes_are_no_findings_where_all_is_well():
    text = as_text(report(layers=[layer("a")], ranks=(rank(0), rank(1, device="cuda:1", norm=0.512, cosine=0.81))))
    assert rows(text, "rank")["1"] == {"rank": "1", "device": "cuda:1", "loss": "2.31", "|g|": "0.512", "cos": "0.810"}
    assert rows(as_text(report(ranks=(rank(0), rank(1, norm=9.0)))), "rank")["1"]["note"] == "outlier!"


# -- order and rows -----------------------------------------------------------------------------------------------------------------


def test_a_terminal_shows_the_worst_of_many_in_forward_order():
    text = as_text(huge(), 80)
    found = rows(text)
    assert len(found) == MOST_ROWS and {"dead.weight", "far.weight"} <= found.keys()
    numbers = [int(cells["#"]) for cells in found.values()]
    assert numbers == sorted(numbers)
    assert f"{MOST_ROWS} of 300 parameters" in " ".join(text.split())
    assert sum("weight" in name for name in found) == MOST_ROWS, "weights before biases"


def test_a_pipe_shows_all_of_them():
    found = rows(as_text(huge()))
    assert len(found) == 300 and [int(cells["#"]) for cells in found.values()] == list(range(300))
    assert "of 300 parameters, " not in as_text(huge())


def test_the_worst_first():
    found = report(
        parameter("usual.weight", update=0.01),
        parameter("half.weight", update=0.0001),
        without("loose.weight", "detached"),
        parameter("other.weight", update=0.011),
        zero("dead.weight"),
        without("frozen.weight", "frozen"),
    )
    names = list(rows(as_text(found, 100, sort="worst")))
    assert names[:3] == ["dead.weight", "loose.weight", "half.weight"] and names[-1] == "frozen.weight"
    assert list(rows(as_text(found, 100, sort="order"))) == list(rows(as_text(found, 100)))
    with pytest.raises(UsageError, match="worts"):
        table(found, 80, sort="worts")


def test_only_what_was_asked_for_is_shown():
    """Findings are of all parameters; rows are of those that --layer takes."""
    found = replace(few(), shown=("stem.weight", "old.weight"))
    assert list(rows(as_text(found, 80))) == ["stem.weight", "old.weight"]
    assert "of 2 parameters" not in as_text(found, 80) and "puts out 0 everywhere" in as_text(found, 80)


# -- width --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160, 200])
@pytest.mark.parametrize("make", [few, many, huge])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_it_fits_and_says_what_is_hidden(make, width, encoding):
    text = render(table(make(), width, title="net"), width, encoding)
    if encoding == "ascii":
        assert text.isascii()
    assert all(cell_len(line) <= width for line in text.splitlines())
    whole, fitted = rows(as_text(make(), title="net")), rows(text)
    said = re.search(rf"((?:{HEADERS})(?:, (?:{HEADERS}))*) hidden to fit {width} columns", " ".join(text.split()))
    headers, shown = ({header for cells in found.values() for header in cells} for found in (whole, fitted))
    assert headers - shown == set(said[1].split(", ") if said else ())
    by_number = {cells["#"]: cells for cells in whole.values()}
    for cut in fitted.values():  # a number is whole or not there
        numbers = {header: cell for header, cell in cut.items() if header not in ("parameter", "type")}
        assert numbers == {header: by_number[cut["#"]][header] for header in numbers}


def test_in_eighty_columns_the_gradient_and_the_step_are_readable():
    found = rows(as_text(report(), 80))["l0.weight"]
    assert {"mean |g|", "max |g|", "g/w", "step/w"} <= found.keys()
    assert {"g/w", "step/w", "note"} <= list(rows(as_text(many(), 80)).values())[-1].keys()


def test_in_a_pipe_nothing_is_hidden_or_shortened():
    assert LONG.format(11) in as_text(many()) and "to fit" not in as_text(many())


def test_every_column_gives_way_or_stays():
    assert {*GIVES_WAY, *STAYS} == set(COLUMNS)


def test_long_names_are_shortened_alike_and_stay_apart():
    text = as_text(many(), 80)
    assert len(rows(text)) == 31 and "names shortened" in " ".join(text.split())


def test_hundreds_of_rows_are_fast():
    found = report(*(zero(f"a{place}.weight") if place % 2 else parameter(f"b{place}.weight") for place in range(600)))
    start = time.perf_counter()
    as_text(found, 80)
    assert time.perf_counter() - start < 2


# -- names and signs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [None, 80])
def test_hostile_names_stay_in_their_row(width):
    name = "x\x1b[2J[bold]\n::error::" + "y" * 300
    rows_ = [zero(f"{name}.weight", type="\x1b[31m::error::"), parameter("ok.weight")]
    layers = [silent(name), layer(f"{name}#2", activation_rms=0.0), layer("ok")]
    text = as_text(report(*rows_, layers=layers, ranks=(rank(0, device="\x1b[2J"), rank(1))), width, title="\x1b[2J::error::a")
    assert "\x1b" not in text and len(rows(text)) == 2
    assert not any(line.lstrip().startswith("::") for line in text.splitlines())


def test_hostile_names_do_not_break_markdown():
    text = as_markdown(report(parameter("a|b`c<img>.weight"), zero("::error::x.weight")), title="<b>net</b>")
    table_lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table_lines}) == 1
    assert text.startswith("### \\<b>net\\</b>") and not any(line.startswith("::") for line in text.splitlines())


def test_what_is_sick_has_a_colour_and_a_sign():
    stream = io.StringIO()
    console = Console(file=stream, width=200, force_terminal=True, color_system="standard")
    for renderable in table(few(), 200):
        console.print(renderable, crop=False)
    text = stream.getvalue()
    assert re.search(r"\x1b\[1;31m100\.0 %!", text), "an error"
    assert re.search(r"\x1b\[33mdetached!", text), "a warning"
    assert "!: see the findings" in text and "see the findings" not in as_text(report())


def test_digits_stand_below_digits_beside_a_sign():
    text = as_text(report(zero("a.weight", zeros=1.0), parameter("b.weight", zeros=0.125), parameter("c.weight")))
    points = [line.index(".", line.index(" %") - 4) for line in text.splitlines() if re.match(r"\d  [ab]\.", line)]
    assert points[0] == points[1]


# -- around the table ---------------------------------------------------------------------------------------------------------------


def test_what_was_run_is_said():
    run = {"loss_source": "inferred: labels below 10", "amp": "bf16", "accumulate": 4, "mode": "eval", "device": "cuda:0", "processes": 2}
    found = facts(report(run=run))
    assert as_text(report(), title="resnet18").splitlines()[0] == "resnet18 · Net · as initialised with seed 0"
    assert found["input"] == "8 pictures" and found["optimizer"] == "SGD(lr=0.1)"
    assert found["run"] == ("1 step · batches of 8 · 4 batches in a step · eval mode · on cuda:0 · float32 · autocast bf16 · 2 processes")
    assert "cross_entropy (inferred: labels below 10)" in as_text(report(run=run))


@pytest.mark.parametrize(
    ("inputs", "labels", "words"),
    [(True, True, "RANDOM INPUTS AND LABELS"), (False, True, "RANDOM LABELS"), (True, False, "RANDOM INPUTS:")],
)
def test_random_data_is_said_loudly(inputs, labels, words):
    found = report(run={"random_inputs": inputs, "random_labels": labels})
    assert as_text(found, 80).splitlines()[1].startswith(words) and f"**{words}" in as_markdown(found)
    assert "RANDOM" not in as_text(report())


def test_facts():
    pictures = tuple(Picture(f"out/gradflow-net-{place}.png", "gradients", (), "", 10, 10) for place in range(3))
    found = facts(
        report(
            parameter("a.weight", rms=0.25, update=0.03),
            parameter("b.weight", rms=0.0005, update=0.01),
            scale("b.bias", rms=0.001, update=7.0),
            without("c.weight", "frozen"),
            losses=[2.5, 1.9, 2.0],
            run={"peak_bytes": 3 << 20},
            pictures=pictures,
            notes=("a note",),
            noise=Noise(6, 8, 120.0, 60.0, 300.0, 0.05),
            rate_range=RateRange((1e-5, 1.0), (2.3, 9.0), 1e-4, 0.1, 0.01),
            overfit=overfit(2.5, 1.0, 0.1, passed=True),
        )
    )
    assert found["loss"] == "2.50 to 2.00 in 3 steps, lowest 1.90 · knowing nothing costs 2.30, ln(10)"
    assert found["gradient"] == ("3 of 4 parameters · 1 frozen · norm 0.500 to 0.500 · RMS from 0.000500 (b.weight) to 0.250 (a.weight)")
    assert (
        found["steps"]
        == "of weights, by their size: 0.0100 to 0.0300, median 0.0200; 0.0001 to 0.1 is usual, 0.001 a rule of thumb (Karpathy)"
    )
    signal = "signal 0.0500, the median over parameters"
    assert found["noise"] == f"noise scale 120 samples (90 % between 60.0 and 300) · {signal} · from 6 batches of 8"
    assert found["overfit"] == "passed: loss 2.50 to 0.100 in 2 steps of Adam(lr=0.003) on 16 samples"
    assert found["rates"] == "usable from 0.000100 to 0.100 · falls fastest at 0.0100"
    assert found["memory"] == "3.00 MiB at the peak on cpu"
    assert found["pictures"] == "3 in out · --format json lists them" and found["note"] == "a note"


def test_steps_that_move_nothing_are_counted():
    rows_ = [parameter("a.weight", update=0.03), zero("b.weight"), zero("c.weight")]
    told = facts(report(*rows_))["steps"]
    assert "0.0300 to 0.0300, median 0.0300; " in told and told.endswith(" · 2 weights not at all")
    unbound = [parameter("d.weight", update=inf), parameter("e.weight", update=nan)]
    told = facts(report(*rows_, *unbound))["steps"]
    assert "0.0300 to 0.0300, median 0.0300; " in told and told.endswith(" · 2 weights not at all · 2 weights without bound")
    assert facts(report(*rows_[1:]))["steps"] == "2 weights not at all"


def test_facts_of_trials_that_failed():
    found = facts(
        report(
            noise=Noise(6, 8, None, None, None, None),
            rate_range=RateRange((1e-5, 1.0), (2.3, 9.0), None, None, None),
            overfit=overfit(2.3, *[2.2] * 5, stopped=("l1.weight",)),
        )
    )
    assert found["noise"].startswith("the noise scale cannot be told") and found["rates"].startswith("no rate from 1.00e-5 to 1.00 lets")
    assert found["overfit"].startswith("FAILED: loss 2.30 to 2.20 in 5 steps") and found["overfit"].endswith("updates stopped: l1.weight")


def test_one_line_says_whether_it_learns():
    assert as_text(report(), 80).rstrip().splitlines()[-2:] == [
        "is it learning? nothing stands in its way: all 8 parameters that can learn get",
        "gradients",
    ]
    assert as_text(few()).rstrip().splitlines()[-1].startswith("is it learning? no: `act` puts out 0 everywhere, and 1 of 3 weights gets")
    assert as_markdown(few()).split("\n\n")[1].startswith("**is it learning? no: ")


def test_a_report_without_anything():
    found = replace(report(parameters=(), notes=("nothing ran",)), steps=(), output=None)
    assert "nothing ran" in as_text(found, 80) and "──" not in as_text(found, 80)


def test_the_second_look_is_in_the_answer():
    found = report(zero("a.weight"), parameter("b.weight"), look=look([0.0, 0.01], [1.0, 0.0]))
    assert "also after three steps" in as_text(found)


def test_markdown_is_a_table_with_every_column():
    text = as_markdown(few(), title="net")
    lines = text.splitlines()
    assert lines[0] == "### net · Net · as initialised with seed 0"
    head = next(line for line in lines if line.startswith("|"))
    filled = [info.header for name, info in COLUMNS.items() if name != "nonfinite"]
    assert [cell.strip().replace("\\", "") for cell in re.split(r"(?<!\\)\|", head.strip("|"))] == filled
    assert "100.0 %!" in text and "- **loss** 2.40" in text


def test_rates_that_no_longer_show_whether_they_are_too_large_are_said_to_be_so():
    rates = (0.01, 0.1, 1.0, 10.0)
    found = facts(report(rate_range=RateRange(rates, (2.0, 1.5, 0.1, 0.05), 0.1, None, None)))["rates"]  # 0.1: a twentieth of 2
    assert found == "usable from 0.100 on, and none up to 10.0 is too large, but from 1.00 on the batches were learned already"
    found = facts(report(rate_range=RateRange(rates, (2.0, 1.5, 0.4, 0.2), 0.1, None, None)))["rates"]
    assert found == "usable from 0.100 on, and none up to 10.0 is too large"


def test_batches_without_a_finite_gradient_are_not_among_those_compared():
    found = facts(report(noise=Noise(6, 8, 22.0, None, None, None, 2)))["noise"]
    assert found == "noise scale 22.0 samples · from 4 batches of 8 · without 2 whose gradient is not finite"
