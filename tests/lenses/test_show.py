"""The table of `netlens summary`: what is drawn adds up, is exact where there is room, and hides nothing without saying so.

Every sum is compared with one over the report's layers, found by their paths and not by the code that draws them.
"""

from __future__ import annotations

import random
import re
import time
from dataclasses import replace
from typing import Any

import pytest

from netlens.errors import UsageError
from netlens.lenses.summary.report import (
    Call,
    Failure,
    Layer,
    Memory,
    Operator,
    Run,
    SummaryReport,
    TensorLeaf,
    Totals,
    Weight,
)
from netlens.lenses.summary.show import COLUMNS, TableOptions, as_html, as_markdown, as_text, parse_columns

NUMBERS = {"params": "parameters", "MACs": "macs", "memory B": "activation_bytes"}
IMAGE = (TensorLeaf("", (1, 3, 8, 8), "float32"),)


def leaf(*dims: int, name: str = "") -> tuple[TensorLeaf, ...]:
    return (TensorLeaf(name, dims, "float32"),)


def layer(path: str, kind: str = "Linear", **fields: Any) -> Layer:
    values: dict[str, Any] = {
        "detail": "",
        "depth": path.count(".") + 1 if path else 0,
        "registered": True,
        "alias_of": None,
        "calls": (Call(IMAGE, leaf(1, 10), 1),),
        "parameters": 0,
        "trainable": fields.get("parameters", 0),
        "buffers": 0,
        "weight_bytes": 4 * fields.get("parameters", 0),
        "tied": (),
        "macs": 0,
        "activation_bytes": 0,
        "saved_bytes": 0,
    }
    return Layer(path, kind, **{**values, **fields})


def report(*layers: Layer, **fields: Any) -> SummaryReport:
    def total(name: str) -> int:
        return sum(getattr(one, name) for one in layers)

    weights = {"float32": total("weight_bytes")}
    whole: dict[str, Any] = {
        "inputs": IMAGE,
        "input_source": "--input",
        "outputs": leaf(1, 10),
        "run": Run("meta", "eval", ""),
        "weights": (),
        "totals": Totals(total("parameters"), total("trainable"), total("buffers"), total("macs"), 2 * total("macs")),
        "memory": Memory(weights, {}, 768, total("activation_bytes"), 96, 2_048, "train", 400, 3_000, 3_800),
    }
    return SummaryReport("Net", layers=layers, **{**whole, **fields})


def small() -> SummaryReport:
    """One container with a parameter of its own, around two equal layers; one layer beside it. 1 + 3 + 3 + 20 = 27."""
    return report(
        layer("", "Net"),
        layer("body", "Body", parameters=1, macs=5, activation_bytes=7),
        layer("body.0", parameters=3, macs=10, activation_bytes=40),
        layer("body.1", parameters=3, macs=10, activation_bytes=40),
        layer("head", "Head", parameters=20_000, macs=1_234_567, activation_bytes=4_096),
        weights=(Weight("body.token", (1,), "float32", "parameter", True, 4, None),),
    )


def random_report(seed: int, most: int = 200) -> SummaryReport:
    """A tree of any shape, in the order of definition, with many equal neighbours."""
    chance = random.Random(seed)
    layers: list[Layer] = []

    def grow(path: str, depth: int) -> None:
        work = chance.choice([0, 1, 2])
        number = {name: chance.choice([0, 7 * work, 11]) for name in ("parameters", "macs", "activation_bytes", "saved_bytes")}
        layers.append(layer(path, f"T{work}", **number))
        for index in range(chance.randint(0, 6) if depth < 5 and len(layers) < most else 0):
            grow(f"{path}.{index}" if path else str(index), depth + 1)

    grow("", 0)
    return report(*layers)


def rows(text: str) -> list[str]:
    """The lines between the two rules."""
    lines = text.splitlines()
    rules = [index for index, line in enumerate(lines) if set(line) == {"─"}]
    return lines[rules[0] + 1 : rules[1]]


def total_row(text: str) -> str:
    lines = text.splitlines()
    return lines[[index for index, line in enumerate(lines) if set(line) == {"─"}][1] + 1]


def number(text: str, row: str, header: str) -> tuple[bool, int]:
    """Read what stands below a header that is set right: is it a sum, and how much."""
    head = next(line for line in text.splitlines() if line.startswith("layer"))
    found = re.search(r"  (Σ ?)?([\d,]+|–)$", row[: head.index(header) + len(header)].rstrip("\n"))
    assert found, (header, row)
    return found[1] is not None, 0 if found[2] == "–" else int(found[2].replace(",", ""))


def assert_adds_up(drawn: str, made: SummaryReport) -> None:
    for header, field in NUMBERS.items():
        truth = sum(getattr(one, field) for one in made.layers)
        plain = [value for is_sum, value in (number(drawn, row, header) for row in rows(drawn)) if not is_sum]
        assert sum(plain) == truth, header
        assert number(drawn, total_row(drawn), header) == (False, truth)


OPTIONS = [
    TableOptions(),
    TableOptions(fold=True, depth=99),
    TableOptions(fold=False, depth=99),
    TableOptions(fold=True, depth=2),
    TableOptions(depth=1),
    TableOptions(sort="macs"),
    TableOptions(top=3),
    TableOptions(sort="memory", top=5, only=("t1",)),
    TableOptions(only=("t[12]",)),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("seed", range(8))
def test_rows_that_are_no_sums_add_up_to_the_total(seed: int, options: TableOptions) -> None:
    made = random_report(seed)
    if len(made.layers) > 1 and (not options.only or {"T1"} <= {one.type for one in made.layers}):
        assert_adds_up(as_text(made, None, options), made)


@pytest.mark.parametrize("seed", range(8))
def test_a_container_shows_the_sum_of_all_below_its_path(seed: int) -> None:
    made = random_report(seed)
    drawn = as_text(made, None, TableOptions(fold=False, depth=99))
    shown = iter(rows(drawn))
    for one in made.layers[1:]:
        row = next(row for row in shown if "(own)" not in row)
        below = [other for other in made.layers if other.path == one.path or other.path.startswith(one.path + ".")]
        for header, field in NUMBERS.items():
            assert number(drawn, row, header)[1] == sum(getattr(other, field) for other in below)


def test_what_a_container_owns_is_a_row_that_names_its_parameters() -> None:
    drawn = rows(as_text(small()))
    assert [re.split(r"\s{2,}", row) for row in drawn] == [
        ["body", "Body", "1,10", "Σ 7", "Σ 25", "Σ 87", "Σ <0.1"],
        ["├─ (own)", "token", "1", "5", "7", "<0.1"],
        ["├─ 0", "Linear", "1,10", "3", "10", "40", "<0.1"],
        ["└─ 1", "Linear", "1,10", "3", "10", "40", "<0.1"],
        ["head", "Head", "1,10", "20,000", "1,234,567", "4,096", ">99.9"],
    ]


def test_a_collapsed_container_shows_its_sum_plainly_and_the_depth_is_told() -> None:
    text = as_text(small(), None, TableOptions(depth=1))
    assert [re.split(r"\s{2,}", row)[3] for row in rows(text)] == ["7", "20,000"]
    assert "depth 1 of 2 shown; --depth all" in text


def test_equal_neighbours_fold_into_their_sum() -> None:
    text = as_text(blocks(12), None, TableOptions(fold=True))
    assert [re.split(r"\s{2,}", row)[:4] for row in rows(text)] == [
        ["0…11 ×12", "Block", "1,10", "Σ 132"],  # 12 x (5 + 6)
        ["├─ a", "Linear", "1,10", "60"],
        ["└─ b", "Linear", "1,10", "72"],
        ["stage_0…2 ×3", "Block", "1,10", "Σ 33"],
        ["├─ a", "Linear", "1,10", "15"],
        ["└─ b", "Linear", "1,10", "18"],
    ]
    assert "×N after a name" in text


def blocks(count: int) -> SummaryReport:
    names = [*map(str, range(count)), "stage_0", "stage_1", "stage_2"]
    layers = [layer("", "Net")]
    for index, name in enumerate(names):
        detail = "late" if index >= count else ""  # so that the two groups differ
        layers += [layer(name, "Block", detail=detail), layer(f"{name}.a", parameters=5), layer(f"{name}.b", parameters=6)]
    return report(*layers)


@pytest.mark.parametrize(
    "change",
    [{"parameters": 6}, {"macs": 1}, {"activation_bytes": 4}, {"type": "Conv2d"}, {"detail": "x"}, {"calls": ()}, {"trainable": 0}],
)
def test_what_differs_in_anything_shown_does_not_fold(change: dict[str, Any]) -> None:
    made = blocks(3)
    odd = [replace(one, **change) if one.path == "1.a" else one for one in made.layers]
    names = [row.split()[0] for row in rows(as_text(report(*odd), None, TableOptions(fold=True, depth=1)))]
    assert names == ["0", "1", "2", "stage_0…2"]


def test_what_autograd_saves_may_differ_between_folded_layers_and_is_added_up() -> None:
    made = blocks(3)
    saved = {"0.a": 10, "1.a": 100, "2.a": 1, "1": 7}  # "1" is a container: its row of what is its own appears for all three
    odd = [replace(one, saved_bytes=saved.get(one.path, 0)) for one in made.layers]
    drawn = as_text(report(*odd), None, TableOptions(fold=True, columns=("name", "saved")))
    assert [number(drawn, row, "saved B") for row in rows(drawn)[:3]] == [(True, 118), (False, 7), (False, 111)]


def test_long_tables_fold_and_short_ones_do_not() -> None:
    assert "×12" not in as_text(blocks(12))
    assert "×100" in as_text(blocks(100))
    assert "×100" not in as_text(blocks(100), None, TableOptions(fold=False, depth=9))


def test_the_automatic_depth_is_the_deepest_readable_one() -> None:
    """50 different containers of 4 layers: 50 rows at depth 1, 250 at depth 2, which is over 120."""
    layers = [layer("", "Net")]
    for index in range(50):
        layers += [layer(f"{index}", "B", detail=str(index)), *(layer(f"{index}.{inner}", detail=str(inner)) for inner in range(4))]
    text = as_text(report(*layers))
    assert len(rows(text)) == 50
    assert "depth 1 of 2 shown" in text
    assert len(rows(as_text(report(*layers), None, TableOptions(depth=2)))) == 250


def test_a_model_that_is_one_layer_is_one_row() -> None:
    text = as_text(report(layer("", "Linear", parameters=16)))
    assert [re.split(r"\s{2,}", row)[:4] for row in rows(text)] == [["(model)", "Linear", "1,10", "16"]]


def test_flat_lists_are_sorted_and_the_rest_is_one_row() -> None:
    text = as_text(small(), None, TableOptions(sort="macs", top=2))
    fields = [re.split(r"\s{2,}", row) for row in rows(text)]
    assert [field[0] for field in fields] == ["head", "body.0", "rest: 2 layers"]
    assert fields[2][1:] == ["4", "15", "47", "<0.1"]  # body's own and body.1: 1 + 3, 5 + 10, 7 + 40
    assert "% MACs" in text


def test_only_lists_a_container_as_a_whole() -> None:
    fields = [re.split(r"\s{2,}", row) for row in rows(as_text(small(), None, TableOptions(only=("BODY",))))]
    assert [field[0] for field in fields] == ["body", "rest: 1 layer"]
    assert fields[0][3] == "7"


def test_only_prefers_the_innermost_match_and_still_adds_up() -> None:
    made = report(layer("", "Net"), layer("a", "Seq", parameters=1), layer("a.b", "Seq", parameters=2), layer("a.b.c", parameters=4))
    drawn = as_text(made, None, TableOptions(only=("seq",)))
    assert [re.split(r"\s{2,}", row)[0] for row in rows(drawn)] == ["a (own)", "a.b"]
    assert [number(drawn, row, "params") for row in rows(drawn)] == [(False, 1), (False, 6)]


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (TableOptions(only=("Liner",)), "no layer of type 'Liner'", "'Linear'"),
        (TableOptions(columns=("name", "parms")), "no column 'parms'", "'params'"),
        (TableOptions(sort="time"), "cannot sort by time", "--time"),
        (TableOptions(sort="speed"), "cannot sort by 'speed'", "params, macs"),
        (TableOptions(top=0), "at least 1", "--top"),
    ],
)
def test_wrong_options_are_usage_errors_with_a_way_out(options: TableOptions, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        as_text(small(), None, options)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_columns_are_chosen_or_changed() -> None:
    assert parse_columns("name,macs") == ("name", "macs")
    assert parse_columns("params") == ("name", "params")
    assert parse_columns("+dtype,-memory,-share") == ("name", "type", "output", "params", "macs", "dtype")
    assert parse_columns("type, MACs ,+time") == ("name", "type", "macs", "time")
    with pytest.raises(UsageError):
        parse_columns("+tim3")


def test_every_column_can_be_drawn() -> None:
    made = small()
    timed = replace(made, layers=tuple(replace(one, seconds=0.001) for one in made.layers))
    for column in COLUMNS:
        drawn = as_text(timed, None, TableOptions(columns=("name", column)))
        assert len(rows(drawn)) == (6 if column == "time" else 5)  # the model itself took time, too
        assert column == "name" or len(rows(drawn)[-1].split()) > 1 or column in ("detail", "buffers")


def test_flops_are_twice_the_macs() -> None:
    drawn = as_text(small(), None, TableOptions(columns=("name", "flops")))
    assert number(drawn, rows(drawn)[-1], "FLOPs")[1] == 2 * 1_234_567
    assert "FLOPs = 2 × MACs = 2,469,184" in drawn  # 2 x (5 + 10 + 10 + 1,234,567)


@pytest.mark.parametrize("width", [50, 60, 80, 100])
def test_a_narrow_table_stays_within_the_terminal_and_says_what_it_hides(width: int) -> None:
    made = random_report(3)
    text = as_text(made, width)
    assert max(map(len, text.splitlines())) <= width
    head = next(line for line in text.splitlines() if line.startswith("layer"))
    for header in ("type", "output", "params", "MACs", "memory", "% params"):
        assert header in head or header in text.split("hidden")[0].split("rounded, and")[-1]


def test_a_narrow_table_rounds_and_a_wide_one_does_not() -> None:
    narrow, wide = as_text(small(), 62), as_text(small(), 200)
    assert "1.235 M" in narrow
    assert "rounded" in narrow
    assert "1,234,567" in rows(wide)[-1]
    assert "rounded" not in wide


@pytest.mark.parametrize("width", [1, 12, 25, 40])
def test_no_number_is_cut_however_narrow_the_terminal(width: int) -> None:
    made = report(layer("", "Net"), layer("a_layer_with_a_name_that_is_far_too_long_for_this", parameters=11_689_512))
    assert "11.69 M" in rows(as_text(made, width))[0]
    assert "11.69 M" in total_row(as_text(made, width))


def test_shares_add_up_without_the_numbers_they_are_shares_of() -> None:
    drawn = rows(as_text(report(layer("", "Net"), layer("a", parameters=30), layer("a.b", parameters=70)), None, parse("name,share")))
    assert [row.split()[-1] for row in drawn] == ["100", "30.0", "70.0"]


def parse(columns: str) -> TableOptions:
    return TableOptions(columns=parse_columns(columns))


def remarks(*layers: Layer, **fields: Any) -> dict[str, str]:
    text = as_text(report(layer("", "Net"), *layers, **fields), None, TableOptions(columns=("name", "output", "params")))
    return {row.split()[0]: " ".join(row.split()[1:]) for row in rows(text)}


def test_what_is_special_about_a_layer_is_written_beside_it() -> None:
    tied = Weight("head.weight", (10, 3), "float32", "parameter", True, 120, "embed.weight")
    twice = (Call(IMAGE, leaf(1, 10), 2), Call(IMAGE, leaf(1, 12), 1))
    assert remarks(
        layer("embed", parameters=30),
        layer("head", tied=("weight",)),
        layer("frozen", parameters=4, trainable=0),
        layer("half", parameters=4, trainable=2),
        layer("again", calls=twice),
        layer("alias", alias_of="embed", calls=()),
        layer("hidden", registered=False),
        layer("unused", parameters=5, calls=()),
        weights=(tied,),
    ) == {
        "embed": "1,10 30",
        "head": "1,10 – = embed.weight",
        "frozen": "1,10 4 frozen",
        "half": "1,10 4 partly frozen",
        "again": "1,10 – ×3, 2 shapes",
        "alias": "– → embed",
        "hidden": "1,10 – not registered!",
        "unused": "not called 5",
    }


def test_every_output_of_a_layer_is_shown() -> None:
    outputs = leaf(1, 7, 30, name="0") + leaf(2, 1, 30, name="1.0") + leaf(2, 1, 30, name="1.1")
    named = leaf(1, 5, name="logits") + leaf(name="loss")
    assert remarks(layer("lstm", calls=(Call((), outputs, 1),)), layer("head", calls=(Call((), named, 1),))) == {
        "lstm": "1,7,30 · 2,1,30 · 2,1,30 –",
        "head": "logits 1,5 · loss () –",
    }


def failed(path: str) -> SummaryReport:
    failure = Failure(path, "Linear", "mat1 and mat2", "(1, 12544)", "(*, 9216)", "flatten", "nets.py:42: x = self.fc(x)", "use 9216")
    layers = (
        layer("", "Net", calls=()),
        layer("body", "Body", calls=()),
        layer("body.0", macs=3),
        layer("body.1", parameters=2, calls=()),
        layer("head", calls=()),
    )
    return report(*layers, failure=failure, outputs=())


def test_a_failure_is_marked_where_it_happened_and_explained() -> None:
    text = as_text(failed("body.1"))
    assert [("✗ failed" in row, "not reached" in row) for row in rows(text)] == [
        (False, False),
        (False, False),
        (True, False),
        (False, True),
    ]
    for part in (
        "layer body.1 (Linear) failed",
        "(1, 12544)",
        "(*, 9216)",
        "flatten",
        "nets.py:42: x = self.fc(x)",
        "mat1 and mat2",
        "use 9216",
    ):
        assert part in text
        assert part.replace("*", "\\*") in as_markdown(failed("body.1"))
        assert part in as_html(failed("body.1"))


def test_a_failure_stays_visible_when_its_layer_is_not() -> None:
    row = rows(as_text(failed("body.1"), None, TableOptions(depth=1)))[0]
    assert "✗ failed" in row
    assert row.endswith("in 1")


def test_a_failure_in_the_model_itself_marks_its_own_row() -> None:
    first = rows(as_text(failed("")))[0]
    assert first.startswith("(own)")
    assert "✗ failed" in first


def test_the_totals_state_their_parts() -> None:
    """The labelled lines, from the fields of the report: 20,007 x 4 = 80,028 B = 78.2 KiB."""
    text = as_text(small())
    facts = dict(re.findall(r"^(\w[\w ]*?)  +(.*)$", text.split("\n\n")[-1], re.MULTILINE))
    assert facts["parameters"] == "20,007 · all trainable"
    assert facts["weights"] == "78.2 KiB = parameters 78.2 KiB float32"
    assert facts["activations"] == "4.08 KiB made by one forward pass, at most 96 B at once"  # 7 + 40 + 40 + 4,096 = 4,183 B
    assert facts["saved"] == "2.00 KiB kept for backward (train mode)"
    assert facts["SGD training"] == "about 2.93 KiB = weights 78.2 KiB + inputs 768 B + gradients 400 B + saved 2.00 KiB"
    assert facts["Adam training"] == "about 3.71 KiB = the same + moments 800 B"
    assert "estimates, without workspace and fragmentation" in text


def test_the_header_says_what_was_run_on_what() -> None:
    lines = as_text(small(), title="net").splitlines()
    assert lines[:2] == ["net · Net · meta device, eval mode", "input 1,3,8,8 float32 (--input) → output 1,10 float32"]


def test_without_a_run_there_are_only_parameters() -> None:
    made = replace(small(), run=Run("nothing", "eval", "no input was given"), outputs=(), totals=Totals(20_007, 20_007, 0, None, None))
    text = as_text(made)
    assert "not run, parameters only (no input was given)" in text
    assert next(line for line in text.splitlines() if line.startswith("layer")).split() == ["layer", "type", "params", "%", "params"]
    assert "not called" not in text


def test_uncounted_operators_and_notes_are_told() -> None:
    operator = Operator("aten.fft_fft2", 2, 2048, True, ("body.0", ""))
    text = as_text(replace(small(), uncounted=(operator,), notes=("input ids are zeros",)))
    assert "MACs are a lower bound" in text
    assert "at least 1,234,592" in text
    assert re.search(r"aten.fft_fft2 +2 +2.00 KiB +yes +body.0, the model", text)
    assert "note  input ids are zeros" in text


EVIL = "<b>x</b>|\x1b[31m[red]"


def test_names_of_the_user_do_nothing_anywhere() -> None:
    made = report(layer("", EVIL), layer(EVIL, EVIL, detail=EVIL), input_source=EVIL, notes=(EVIL,))
    options = TableOptions(columns=("name", "type", "detail"))
    assert "\x1b" not in as_text(made, None, options) + as_markdown(made, options) + as_html(made, options)
    assert "<b>x</b>|\\x1b[31m[red]" in as_text(made, None, options)
    assert "<b>" not in as_html(made, options)
    row = next(line for line in as_markdown(made, options).splitlines() if line.startswith("| `<b>"))
    assert len(re.split(r"(?<!\\)\|", row)) == 3 + 2


def test_markdown_and_html_show_the_exact_numbers() -> None:
    for drawn in (as_markdown(small(), title="net"), as_html(small(), title="net")):
        for part in ("20,000", "1,234,567", "20,007", "Σ 87", "net · Net"):
            assert part in drawn
    assert str(small()) == as_text(small())
    assert small()._repr_html_() == as_html(small())


def test_depth_costs_neither_recursion_nor_time() -> None:
    """A chain of 5,000 containers: a recursive walk would raise, a quadratic one would take minutes."""
    chain = report(*(layer(".".join(["a"] * depth), parameters=1) for depth in range(5_000)))
    start = time.perf_counter()
    text = as_text(chain, 80)
    assert time.perf_counter() - start < 5
    assert total_row(text).split()[:2] == ["total", "5,000"]
    nested = report(*(layer(".".join(["a"] * depth), parameters=1) for depth in range(61)))
    assert len(rows(as_text(nested, None, TableOptions(depth=99)))) == 120 - 1 + 1
