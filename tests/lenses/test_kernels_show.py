"""The table of `netlens kernels`: every cell against the report, nothing cut that is a number, nothing hidden without saying so."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from netlens.drawing.tables import render
from netlens.errors import UsageError
from netlens.lenses.kernels.columns import COLUMNS, GIVES_WAY, SORT_KEYS, USUAL
from netlens.lenses.kernels.report import Change, KernelsReport, LayerWeights, Picture
from netlens.lenses.kernels.show import as_markdown, as_text, parse_columns, table
from netlens.wording import abbreviated, bounded, number, share
from tests.lenses.kernels_case import layer, norm, report

LINEAR: dict[str, Any] = {"kind": "linear", "shape": (10, 64), "filters": 10, "fan_in": 64, "smoothness": None}
LONG = "encoder.layers.encoder_layer_{}.self_attention.in_proj_weight"


def few() -> KernelsReport:
    """Three layers with numbers that are easy to find again; "body" and "head" are sick."""
    return report(
        layer("stem", shape=(64, 16, 3, 3), mean=-0.00123, std=0.0833, initial_std=0.0417, norm=8.0, stable_rank=24.6),
        layer("body", dead=5, duplicates=40, largest_cosine=0.99999, std=1234.5, smoothness=None, stable_rank=1.5),
        layer(
            "head",
            type="",
            kind="linear",
            shape=(10, 64),
            filters=10,
            fan_in=64,
            smoothness=None,
            std=4.56e-7,
            initial_std=None,
            nan=2,
            infinite=1,
        ),
        norms=(norm("bn1", least_variance=0.5), norm("bn2", least_variance=0.0125)),
    )


def rows(text: str) -> dict[str, dict[str, str]]:
    """Read a table back by where its columns stand: layer -> header -> cell."""
    lines = text.splitlines()
    rule = next(place for place, line in enumerate(lines) if line and not line.strip("─-"))
    spans = [match.span() for match in re.finditer(r"\S+(?: \S+)*", lines[rule - 1])]
    found: dict[str, dict[str, str]] = {}
    for line in lines[rule + 1 :]:
        if not re.match(r"\s*\d+  ", line):
            break
        cells: dict[str, str] = {}
        for match in re.finditer(r"\S+(?: \S+)*", line):
            column = max(spans, key=lambda span: min(span[1], match.end()) - max(span[0], match.start()))
            cells[lines[rule - 1][slice(*column)]] = match[0]
        found[cells["layer"]] = cells
    return found


def test_cells_are_the_numbers_of_the_report():
    found = rows(as_text(few(), title="net"))
    assert found["stem"] == {
        "#": "0",
        "layer": "stem",
        "type": "Conv2d",
        "shape": "64,16,3,3",
        "mean": "-0.00123",
        "std": "0.0833",
        "norm": "8.00",
        "×init": "2.00",  # 0.0833 / 0.0417 = 1.998
        "max cos": "0.310",
        "rank": "24.6/64",  # of 64 filters of 144
        "smooth": "0.200",
    }
    body = found["body"]
    assert (body["dead"], body["dup"], body["max cos"]) == ("5/64!", "40/64!", ">0.999!")
    assert (body["std"], body["rank"]) == ("1.23e3", "1.50/64")
    assert "smooth" not in body and "NaN/Inf" not in body
    head = found["head"]
    assert (head["type"], head["std"], head["shape"], head["NaN/Inf"]) == ("linear", "4.56e-7", "10,64", "3!")
    assert "×init" not in head and "dead" not in head


def test_the_rank_of_groups_is_that_of_one_group():
    """64 filters in 16 groups are matrices of 4 x 36, whose rank is 4 at most."""
    text = as_text(report(layer(groups=16, fan_in=36, shape=(64, 4, 3, 3), stable_rank=3.21)))
    assert rows(text)["conv"]["rank"] == "3.21/4"


def test_every_column_can_be_chosen():
    one = layer(outlier=12.5, zeros=921, near_zero=0.005, valley=0.25, change=Change(0.125, 0.5, 1.0))
    text = render(table(report(one), None, columns=tuple(COLUMNS)))
    cells = rows(text)["conv"]
    assert set(cells) == {info.header for name, info in COLUMNS.items() if name not in ("dead", "duplicates", "nonfinite")}
    expected = {"dtype": "float32", "min": "-0.330", "max": "0.330", "gain": "1.00", "zeros": "9.99 %", "near 0": "0.5 %"}
    expected |= {"outlier": "12.5", "valley": "0.250", "moved": "0.125", "cos": "0.500"}
    assert {header: cells[header] for header in expected} == expected


def test_a_fresh_model_shows_the_gain_and_not_a_ratio_that_is_one():
    text = as_text(report(layer(gain=1.25), initialised=True, source="as initialised, seed 0"), title="net")
    cells = rows(text)["conv"]
    assert cells["gain"] == "1.25" and "×init" not in cells
    assert text.splitlines()[0] == "net · Net · as initialised, seed 0: nothing has been learned yet"


@pytest.mark.parametrize(
    ("title", "changes", "line"),
    [
        ("resnet18", {"model": "ResNet", "source": "best.ckpt"}, "resnet18 · ResNet · best.ckpt"),
        ("runs/best.ckpt", {"model": "best.ckpt", "source": "best.ckpt"}, "runs/best.ckpt"),
        ("Net", {"against": "first.ckpt"}, "Net · best.ckpt · against first.ckpt"),
        (
            "net",
            {"source": "as initialised with seed 0: nothing has been learned yet", "initialised": True},
            "net · Net · as initialised with seed 0: nothing has been learned yet",
        ),
    ],
)
def test_the_title_says_what_was_looked_at(title, changes, line):
    assert as_text(report(layer(), **changes), title=title).splitlines()[0] == line


def test_comparison_brings_two_columns():
    text = as_text(report(layer(change=Change(0.25, 0.97, 0.1)), layer("fixed", change=Change(0.0, 1.0, 0.0)), against="first.ckpt"))
    found = rows(text)
    assert (found["conv"]["moved"], found["conv"]["cos"]) == ("0.250", "0.970")
    assert (found["fixed"]["moved"], found["fixed"]["cos"]) == ("0", "1.000")
    assert "moved" not in as_text(few()).split("──")[0]


# --- width


def many() -> KernelsReport:
    blocks = [layer(LONG.format(place), dead=10 * (place == 7), type="MultiheadAttention") for place in range(12)]
    return report(*blocks, layer("conv_proj"))


HEADERS = "|".join(re.escape(info.header) for info in COLUMNS.values())


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160, 200])
@pytest.mark.parametrize("make", [few, many])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_it_fits_and_says_what_is_hidden(make, width, encoding):
    text = render(table(make(), width, title="net"), width, encoding).replace("xinit", "×init")
    assert all(cell_len(line) <= width for line in text.splitlines())
    whole, fitted = rows(as_text(make(), title="net")), rows(text)
    said = re.search(rf"((?:{HEADERS})(?:, (?:{HEADERS}))*) hidden to fit {width} columns", " ".join(text.split()))
    headers, shown = ({header for cells in found.values() for header in cells} for found in (whole, fitted))
    assert headers - shown == set(said[1].split(", ") if said else ())
    for cut, full in zip(fitted.values(), whole.values(), strict=True):  # a number is whole or not there
        numbers = {header: cell for header, cell in cut.items() if header not in ("layer", "type")}
        assert numbers == {header: full[header] for header in numbers}


def test_sick_columns_stay_when_others_give_way():
    text = as_text(report(layer(gain=1e-4, largest_cosine=0.9), initialised=False), 60)
    assert "cos" not in rows(text)["conv"]
    sick = report(layer("a.long.name.of.a.layer", duplicates=40, largest_cosine=1.0))
    assert rows(as_text(sick, 60))["a.long.name.of.a.layer"]["max cos"] == "1.000!"
    assert GIVES_WAY.index("cosine") < GIVES_WAY.index("std")


def test_long_names_are_shortened_alike_and_stay_apart():
    found = rows(as_text(many(), 80))
    assert list(found)[:2] == ["e.l.e0.s.in_proj_weight", "e.l.e1.s.in_proj_weight"]
    assert "e.l.e11.s.in_proj_weight" in found and "conv_proj" in found
    assert "names shortened" in as_text(many(), 80)
    assert LONG.format(11) in as_text(many())


@pytest.mark.parametrize(
    ("names", "room", "expected"),
    [
        (["layer1.0.conv1", "fc"], 14, ["layer1.0.conv1", "fc"]),
        (["layer1.0.conv1", "fc"], 13, ["l1.0.conv1", "fc"]),
        (["features.denseblock4.denselayer16.conv2"], 20, ["f.d4.d16.conv2"]),
        (["a.b"], 1, ["a.b"]),
        (["unsplittable_name"], 5, ["unsplittable_name"]),
        (["..x"], 1, ["..x"]),
        ([], 5, []),
    ],
)
def test_abbreviated(names, room, expected):
    assert abbreviated(names, room) == expected


def test_hostile_names_stay_in_their_row():
    name = "x\x1b[2J[bold]\n::error::" + "y" * 300
    for width in (None, 80):
        text = as_text(report(layer(name), layer("ok")), width)
        assert "\x1b" not in text and len(rows(text)) == 2
    assert "\n| " in as_markdown(report(layer("a|b`c")))


# --- signs


def test_what_is_sick_has_a_colour_and_a_sign():
    stream = io.StringIO()
    console = Console(file=stream, width=200, force_terminal=True, color_system="standard")
    for renderable in table(few(), 200):
        console.print(renderable, crop=False)
    text = stream.getvalue()
    assert re.search(r"\x1b\[1;31m40/64!", text), "an error"
    assert re.search(r"\x1b\[33m5/64!", text), "a warning"
    assert "see the findings" in text
    assert "see the findings" not in as_text(report(layer()))


def test_digits_stand_below_digits_beside_a_sign():
    text = as_text(report(layer("a", dead=40), layer("b", dead=3), layer("c")))
    ends = [line.index("/64") for line in text.splitlines() if re.match(r"\d  [ab]", line)]
    assert ends[0] == ends[1]


# --- sorting


def test_sort_and_top():
    stds = [0.1, 0.4, None, 0.2, 0.4]
    found = report(*(layer(f"l{place}", std=std) for place, std in enumerate(stds)))
    text = render(table(found, None, sort="std", top=3))
    assert list(rows(text)) == ["l1", "l4", "l3"]
    assert "3 of 5 layers, by std" in text
    assert list(rows(render(table(found, None, sort="std")))) == ["l1", "l4", "l3", "l0", "l2"]
    assert list(rows(render(table(found, None, top=2)))) == ["l0", "l1"]


ORDERS: dict[str, list[dict[str, Any]]] = {  # each in the order that the key must give
    "norm": [{"norm": 9.0}, {"norm": 2.0}, {"norm": None}],
    "std": [{"std": 9.0}, {"std": 2.0}, {"std": None}],
    "init": [{"std": 1.0, "initial_std": 0.1}, {"std": 5.0, "initial_std": 1.0}, {"initial_std": 0.0}],
    "dead": [{"dead": 5, "filters": 10}, {"dead": 6, "filters": 64}, {"dead": 0}],
    "duplicates": [{"duplicates": 5, "filters": 10}, {"duplicates": 6, "filters": 64}, {"duplicates": 0}],
    "rank": [{"stable_rank": 3.0, "filters": 64}, {"stable_rank": 2.0, "filters": 8}, {"stable_rank": None}],
    "moved": [{"change": Change(0.5, 1.0, 1.0)}, {"change": Change(0.1, 1.0, 1.0)}, {"change": None}],
}


@pytest.mark.parametrize("key", ORDERS)
def test_sort_keys(key):
    layers = [layer(f"l{place}", **changes) for place, changes in enumerate(ORDERS[key])]
    assert list(rows(render(table(report(*reversed(layers)), None, sort=key)))) == ["l0", "l1", "l2"]


def test_all_sort_keys_are_tested():
    assert set(ORDERS) == set(SORT_KEYS)


def test_unknown_keys_and_columns_are_errors_with_a_way_out():
    with pytest.raises(UsageError, match="'norms'") as caught:
        table(few(), None, sort="norms")
    assert "'norm'" in caught.value.hint
    with pytest.raises(UsageError, match="'stdd'") as caught:
        parse_columns("name,stdd")
    assert "'std'" in caught.value.hint


def test_parse_columns():
    assert parse_columns("std,×init") == ("name", "std", "init")
    assert parse_columns("+gain,-mean,-Type") == (*(name for name in USUAL if name not in ("mean", "type")), "gain")
    assert parse_columns("name,dup,dup") == ("name", "duplicates")


# --- around the table


def facts(found: KernelsReport) -> dict[str, str]:
    text = as_text(found).split("\n\n")[-1]
    return {line.split("  ", 1)[0]: line.split("  ", 1)[1].strip() for line in text.strip().splitlines()}


def test_facts_are_sums_over_the_layers():
    found = facts(few())
    # 2 * 64 * 144 + 640 elements; norms 8, 8 and 8: sqrt(192) = 13.86
    assert found["weights"] == "19,072 in 2 Conv2d, 1 linear · norm 13.9"
    assert found["filters"] == "138 · 5 dead · 40 near copies"
    assert found["values"] == "2 NaN · 1 Inf"
    assert found["norm layers"] == "2 BatchNorm2d · running variance 0.0125 or more"
    assert "moved" not in found and "pictures" not in found


def test_facts_of_a_comparison_of_pictures_and_notes():
    layers = [layer(name, change=Change(far, 1.0, far)) for name, far in (("a", 0.5), ("b", 0.0), ("c", 0.001), ("d", float("nan")))]
    pictures = tuple(Picture(f"out/kernels-net-{place}.png", "filters", (), "", 10, 10) for place in range(3))
    found = facts(report(*layers, pictures=pictures, notes=("2 quantised weights are left out",), against="first.ckpt"))
    assert found["moved"] == "most a (0.500) · least c (0.00100) · 1 layer not at all"
    assert found["pictures"] == "3 in out · --format json lists them"
    assert found["note"] == "2 quantised weights are left out"
    still = report(layer(change=Change(0.0, 1.0, 0.0)))
    assert facts(still)["moved"] == "nothing: the weights are equal"


def test_statistics_that_no_batch_has_touched():
    found = facts(report(layer(), norms=(norm(untouched=True), norm(untouched=True))))
    assert found["norm layers"] == "2 BatchNorm2d · running statistics as initialised"
    found = facts(report(layer(), norms=(norm(untouched=True), norm(least_variance=0.25))))
    assert found["norm layers"] == "2 BatchNorm2d · running variance 0.200 or more · running statistics of 1 as initialised"


def test_a_report_without_weights():
    text = as_text(report(notes=("every weight is quantised",)), 80, title="net")
    assert "no convolution, linear layer or embedding" in text and "every weight is quantised" in text
    assert "#" not in as_markdown(report()).removeprefix("###")


def test_the_legend_names_the_initialisation_that_was_compared_with():
    by_default = replace(layer(), initial_source="torch's default")
    assert "std / std of torch's default initialisation" in as_text(report(by_default))
    assert "std / std at initialisation" in as_text(report(layer()))


def test_markdown_is_a_table_with_every_column():
    text = as_markdown(few(), title="net")
    lines = text.splitlines()
    assert lines[0] == "### net · Net · best.ckpt"
    head = next(line for line in lines if line.startswith("|"))
    assert [cell.strip() for cell in head.strip("|").split("|")] == ["\\#", *(COLUMNS[name].header for name in USUAL[1:])]
    body = next(line for line in lines if "`body`" in line)
    assert "| 40/64! |" in body and "- **weights** 19,072" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.5, "0.500"),
        (12.345, "12.3"),
        (123.4, "123"),
        (1234.0, "1.23e3"),
        (1e-7, "1.00e-7"),
        (-0.00012345, "-0.000123"),
        (1e300, "1.00e300"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert number(value) == text


def test_numbers_that_are_not_finite():
    assert [number(value) for value in (float("inf"), float("-inf"), float("nan"))] == ["inf", "-inf", "nan"]


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1.000"), (0.9999, ">0.999"), (-0.9999, "<-0.999"), (-1.0, "-1.000"), (-0.0001, "0.000"), (0.1234, "0.123")]
)
def test_bounded(value, text):
    assert bounded(value) == text


def test_shares():
    assert [share(value) for value in (0.0, 0.05, 0.625, 0.99999, 1.0)] == ["0 %", "5 %", "62.5 %", ">99.9 %", "100 %"]


def test_a_thousand_rows_are_fast():
    import time

    found = report(*(layer(f"block{place}.conv", dead=place % 5) for place in range(1000)))
    start = time.perf_counter()
    as_text(found, 80)
    assert time.perf_counter() - start < 2


def test_layers_keep_their_numbers_when_a_part_is_shown():
    """`--layer` takes the number that the table shows, also where only some layers are in the report."""
    chosen: tuple[LayerWeights, ...] = (replace(layer("x"), index=17), replace(layer("y"), index=3))
    found = rows(as_text(replace(report(), layers=chosen)))
    assert (found["x"]["#"], found["y"]["#"]) == ("17", "3")
