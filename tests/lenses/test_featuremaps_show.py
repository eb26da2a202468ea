"""The table of `netlens featuremaps`: every cell against the report, nothing cut that is a number, nothing hidden without saying so."""

from __future__ import annotations

import io
import re
import time
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from netlens.drawing.tables import render
from netlens.lenses.featuremaps.columns import COLUMNS, GIVES_WAY, STAYS
from netlens.lenses.featuremaps.report import FeaturemapsReport
from netlens.lenses.featuremaps.rules import diagnose
from netlens.lenses.featuremaps.show import as_markdown, as_text, table
from netlens.parts import Histogram, Picture
from tests.lenses.featuremaps_case import attention, layer, relu, report

LONG = "encoder.layers.encoder_layer_{}.self_attention.out_proj"
HEADERS = "|".join(re.escape(info.header) for info in COLUMNS.values())


def few() -> FeaturemapsReport:
    """Layers with numbers that are easy to find again; "gate" and "act" are sick."""
    return report(
        layer("stem", shape=(64, 112, 112), mean=-0.00123, std=0.0833, least=-12345.0, greatest=4.56e-7, effective_rank=24.56),
        layer("gate", type="Sigmoid", activation="sigmoid", saturated=0.9666, correlation=0.5, between=None, concentration=None),
        relu("act", dead=40, after_norm=True, zeros=0.47649, effective_rank=None, correlation=None),
        layer("body", zeros=0.0004, rms=2e3, std=2e3, between=1.23e-5),
        layer("last", zeros=0.9999),
    )


def many() -> FeaturemapsReport:
    blocks = [layer(LONG.format(place), type="MultiheadAttention", shape=(197, 768)) for place in range(12)]
    return report(*blocks, relu("conv_proj", dead=40, after_norm=True))


def rows(text: str, first: str = "layer") -> dict[str, dict[str, str]]:
    """Read a table back by where its columns stand: layer -> header -> cell."""
    lines = text.splitlines()
    rule = next(
        place for place, line in enumerate(lines) if line and not line.strip("─-") and re.search(rf"(^|  ){first}( |$)", lines[place - 1])
    )
    spans = [match.span() for match in re.finditer(r"\S+(?: \S+)*", lines[rule - 1])]
    found: dict[str, dict[str, str]] = {}
    for line in lines[rule + 1 :]:
        if not line or (first == "layer" and not re.match(r"\s*\d+  ", line)):
            break
        cells: dict[str, str] = {}
        for match in re.finditer(r"\S+(?: \S+)*", line):
            column = max(spans, key=lambda span: min(span[1], match.end()) - max(span[0], match.start()))
            cells[lines[rule - 1][slice(*column)]] = match[0]
        found[cells[first]] = cells
        if len(cells) < 2:
            break
    return found


def facts(found: FeaturemapsReport) -> dict[str, str]:
    """Read the labelled lines below the table."""
    text = as_text(found).split("\n\n")[-1]
    return {line.split("  ", 1)[0]: line.split("  ", 1)[1].strip() for line in text.strip().splitlines()}


def test_cells_are_the_numbers_of_the_report():
    found = rows(as_text(few(), title="net"))
    assert found["stem"] == {
        "#": "0",
        "layer": "stem",
        "type": "Conv2d",
        "shape": "64,112,112",
        "mean": "-0.00123",
        "std": "0.0833",
        "min": "-1.23e4",
        "max": "4.56e-7",
        "rank": "24.6/64",
        "|corr|": "0.125",
        "between": "0.500",
        "conc": "0.250",
    }
    assert found["gate"]["saturated"] == "96.7 %!" and not {"between", "conc", "dead", "zeros"} & set(found["gate"])
    assert (found["act"]["dead"], found["act"]["zeros"]) == ("40/64!", "47.6 %!")
    assert (found["body"]["zeros"], found["body"]["std"], found["body"]["between"]) == ("<0.1 %", "2.00e3!", "1.23e-5")
    assert found["last"]["zeros"] == ">99.9 %"


def test_values_that_are_not_finite_are_counted_and_nothing_else_is_marked():
    found = rows(as_text(report(relu("a", dead=64), layer("b", nan=1200, infinite=34, mean=None, std=None))))
    assert found["b"]["NaN/Inf"] == "1,234!" and "mean" not in found["b"]
    assert found["a"]["dead"] == "64/64"


def test_the_number_is_that_which_the_option_takes():
    chosen = replace(report(), layers=(replace(layer("x"), index=17), replace(layer("y"), index=3)))
    found = rows(as_text(chosen))
    assert (found["x"]["#"], found["y"]["#"]) == ("17", "3")


# -- width --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160, 200])
@pytest.mark.parametrize("make", [few, many])
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
    assert len(fitted) == len(whole)
    for cut, full in zip(fitted.values(), whole.values(), strict=True):  # a number is whole or not there
        numbers = {header: cell for header, cell in cut.items() if header not in ("layer", "type")}
        assert numbers == {header: full[header] for header in numbers}


def test_in_a_pipe_nothing_is_hidden_or_shortened():
    text = as_text(many())
    assert LONG.format(11) in text and "to fit" not in text


def test_a_sick_column_stays_when_others_give_way():
    sick = report(layer("a.long.name.of.a.layer", correlation=0.99))
    assert rows(as_text(sick, 60))["a.long.name.of.a.layer"]["|corr|"] == "0.990!"
    assert "|corr|" not in as_text(report(layer("a.long.name.of.a.layer")), 60).split("hidden")[0].split("──")[0]


def test_every_column_gives_way_or_stays():
    """What is not finite is an error wherever it is: its column stays, being sick."""
    assert {*GIVES_WAY, *STAYS, "nonfinite"} == set(COLUMNS)


def test_types_are_cut_only_where_they_are_longer_than_a_usual_one():
    names = report(*(layer(f"layer{place}.norm", type="BatchNorm2d") for place in range(3)))
    for width in range(70, 130, 5):
        assert "BatchNor…" not in as_text(names, width)


def test_long_names_are_shortened_alike_and_stay_apart():
    found = rows(as_text(many(), 80))
    assert len(found) == 14 and list(found)[:2] == ["e.l.e0.s.out_proj", "e.l.e1.s.out_proj"]
    assert "names shortened" in " ".join(as_text(many(), 80).split())


def test_five_hundred_rows_are_fast():
    found = report(*(relu(f"layer{place}.conv", dead=place % 60, after_norm=True) for place in range(500)))
    start = time.perf_counter()
    text = as_text(found, 80)
    assert time.perf_counter() - start < 2
    assert len(rows(text)) == 501
    (finding,) = diagnose(found)
    assert len(finding.message) < 250


# -- names and signs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [None, 80])
def test_hostile_names_stay_in_their_row(width):
    name = "x\x1b[2J[bold]\n::error::" + "y" * 300
    text = as_text(
        report(layer(name, type="\x1b[31m::error::"), layer("ok"), attention=(attention(name),)), width, title="\x1b[2J::error::a"
    )
    assert "\x1b" not in text and len(rows(text)) == 3
    assert not any(line.lstrip().startswith("::") for line in text.splitlines())


def test_hostile_names_do_not_break_markdown():
    text = as_markdown(report(layer("a|b`c<img>"), layer("::error::x")), title="<b>net</b>")
    table_lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table_lines}) == 1
    assert text.startswith("### \\<b>net\\</b>") and not any(line.startswith("::") for line in text.splitlines())


def test_what_is_sick_has_a_colour_and_a_sign():
    stream = io.StringIO()
    console = Console(file=stream, width=200, force_terminal=True, color_system="standard")
    for renderable in table(few(), 200):
        console.print(renderable, crop=False)
    text = stream.getvalue()
    assert re.search(r"\x1b\[1;31m40/64!", text), "an error"
    assert re.search(r"\x1b\[33m2\.00e3!", text), "a warning"
    assert "!: see the findings" in text
    assert "see the findings" not in as_text(report(layer()))


def test_digits_stand_below_digits_beside_a_sign():
    text = as_text(report(relu("a", dead=40, after_norm=True), relu("b", dead=3), layer("c")))
    ends = [line.index("/64") for line in text.splitlines() if re.match(r"\d  [ab]", line)]
    assert ends[0] == ends[1]
    shares = as_text(report(layer("a", zeros=0.5), layer("b", zeros=0.12345)))
    points = [line.index(".", line.index(" %") - 3) for line in shares.splitlines() if re.match(r"\d  [ab]", line)]
    assert points[0] == points[1]


def test_the_legend_explains_the_columns_that_are_shown():
    text = as_text(report(layer()))
    assert "dead:" not in text and "saturated:" not in text and "between: variance between samples / mean square" in text


# -- attention ----------------------------------------------------------------------------------------------------------------------


def test_the_table_of_attention():
    two = (
        attention("a", entropy=(0.5, 0.7), distance=(2.0, 4.0)),
        attention("b", queries=10, keys=77, entropy=(0.01, 0.05), distance=None),
    )
    text = as_text(report(layer(), attention=two))
    found = rows(text, "attention layer")
    assert found["a"] == {
        "attention layer": "a",
        "heads": "2",
        "tokens": "65",
        "entropy: least": "0.500",
        "mean": "0.600",
        "most": "0.700",
        "distance": "3.00",
    }
    assert (found["b"]["tokens"], found["b"]["mean"]) == ("10 to 77", "0.0300!")
    assert "distance" not in found["b"]
    assert "0.0300!" in as_markdown(report(attention=two))


# -- around the table ---------------------------------------------------------------------------------------------------------------


def test_what_was_run_is_said():
    text = as_text(
        report(
            initialised=True,
            inputs="random numbers",
            run={
                "random_inputs": True,
                "dtype": "bfloat16",
                "autocast": "bf16",
                "channels_last": True,
                "batch_statistics": True,
                "samples": 1,
            },
        ),
        title="resnet18",
    )
    lines = text.splitlines()
    assert lines[0] == "resnet18 · Net · best.ckpt"
    assert lines[1].startswith("input random numbers: noise")
    assert (
        lines[2]
        == "1 sample · on cpu · bfloat16 · autocast bf16 · channels last · eval mode, BatchNorm by the batch: it has no statistics yet"
    )


def test_facts():
    pictures = tuple(Picture(f"out/featuremaps-net-{place}.png", "maps", (), "", 10, 10) for place in range(3))
    found = facts(report(layer(), run={"peak_bytes": 3 << 20, "device": "cuda:0"}, pictures=pictures, notes=("a note",)))
    assert found["output"] == (
        "10 · variance between samples / mean square 0.250 · as scores of 10 classes: "
        "largest probability 0.300, entropy / ln(classes) 0.800 · 4 classes predicted for 8 samples"
    )
    assert found["values"] == "all finite · 131,152 in 2 outputs"  # 8 * 64 * 16 * 16 + 80
    assert found["memory"] == "3.00 MiB at the peak on cuda:0"
    assert found["pictures"] == "3 in out · --format json lists them" and found["note"] == "a note"


def test_facts_of_what_is_not_finite():
    """Nothing is said of the probabilities of scores that are not numbers."""
    found = facts(report(layer(nan=2, infinite=1), output={"nonfinite": 1234}))
    assert found["output"] == "10 · 1,234 NaN or Inf"
    assert found["values"].startswith("2 NaN · 1 Inf")


def test_what_comes_from_a_sample_of_the_elements_is_said():
    assert "even sample" in facts(report(layer(histogram=Histogram(0.0, 1.0, (1,), sampled=True))))["values"]


def test_a_report_without_layers():
    text = as_text(replace(report(notes=("no layer put out a tensor",)), layers=(), output=None), 80, title="net")
    assert "no layer put out a tensor" in text and "──" not in text


def test_markdown_is_a_table_with_every_column():
    text = as_markdown(few(), title="net")
    lines = text.splitlines()
    assert lines[0] == "### net · Net · best.ckpt"
    head = next(line for line in lines if line.startswith("|"))
    filled = [info.header for name, info in COLUMNS.items() if name != "nonfinite"]
    assert [cell.strip().replace("\\", "") for cell in re.split(r"(?<!\\)\|", head.strip("|"))] == filled
    assert "| 40/64! |" in text and "- **output** 10" in text
