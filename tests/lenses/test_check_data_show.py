"""The tables of `netlens check-data`: every cell against the report, nothing cut that is a number, nothing hidden without saying so."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from netlens.data.facts_types import Colours, Spread
from netlens.findings import Severity
from netlens.lenses.check_data.lines import UNKNOWN
from netlens.lenses.check_data.report import CheckDataReport
from netlens.lenses.check_data.rules import verdict
from netlens.lenses.check_data.show import MOST_ROWS, as_markdown, as_text, table
from netlens.loaders.facts import Pace
from tests.lenses.check_data_case import ESCAPE, classes, field, loader, loaders, many, report, split

FEW = report(
    splits=[split("train", skipped=((".gif", 12), (".jfif", 3))), split("val", classes=classes(30, 20, names=("dog", "cat")), files=50)]
)
MANY = report(splits=[split(classes=classes(*range(1000, 0, -1)))])


def cells(text: str, first: str) -> dict[str, list[str]]:
    """Read a table back: the first cell of each row -> the others."""
    lines = text.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith(first) and not lines[place + 1].strip("─- "))
    found: dict[str, list[str]] = {}
    for line in [lines[start], *lines[start + 2 :]]:
        if not line.strip():
            break
        name, *others = re.split(r" {2,}", line.strip())
        found[name] = others
    return found


def facts(found: CheckDataReport) -> dict[str, str]:
    """Read the labelled lines."""
    lines = [re.match(r"([a-z ]+?) {2,}(\S.*)", line) for line in as_text(found).splitlines()]
    return {match[1]: match[2] for match in lines if match}


def test_splits_stand_side_by_side():
    text = as_text(FEW, title="./data")
    found = {line[:10].strip(): re.split(r" {2,}", line[10:].strip()) for line in text.splitlines()[2:15]}
    assert text.splitlines()[0] == "./data · 1,050 files · 2 splits · 2 classes"
    assert found["files"] == ["1,000", "50"] and found["decoded"] == ["1,000", "1,000"] and found["size"] == ["20.0 MiB", "20.0 MiB"]
    assert found["classes"] == ["2", "2"] and found["a class"] == ["400 to 600", "20 to 30"]
    assert found["formats"] == ["JPEG 980, PNG 20"] * 2 and found["left out"] == [".gif 12, .jfif 3"]
    assert found["width"] == ["320 to 1,024, median 500"] * 2 and found["aspect"] == ["0.750 to 1.78, median 1.33"] * 2


def test_a_single_split_has_lines():
    found = facts(report(splits=[split(width=Spread(224, 224, 224, 224, 224), skipped=((".gif", 1),))]))
    assert (found["files"], found["width"], found["height"]) == ("1,000", "224", "240 to 768, median 375")
    assert (found["modes"], found["left out"]) == ("RGB 1,000", ".gif 1")
    assert facts(report(splits=[split(skipped=(("", 2), (".gif", 1)))]))["left out"] == "without suffix 2, .gif 1"


def test_splits_stand_below_one_another_where_there_is_no_room():
    text = as_text(replace(FEW, splits=tuple(split(name) for name in ("train", "val", "test"))), 60)
    assert text.count("320 to 1,024, median 500") == 3 and all(f"\n{name}\n" in text for name in ("train", "val", "test"))


def test_the_line_to_paste_is_python_and_says_what_it_is():
    lines = as_text(report(), 80).splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("Normalize("))
    given = eval(lines[place], {"Normalize": dict})
    assert given == {"mean": [0.4851, 0.4561, 0.4065], "std": [0.2291, 0.2244, 0.2250]}
    below = " ".join(lines[place + 1 : place + 4])
    assert "1,000 pictures" in below and "each pixel the same weight" in below and "[0.2000, 0.2100, 0.2200]" in below
    grey = Colours(70, (0.13066,) * 3, (0.30810,) * 3, (0.3, 0.3, 0.3), 4)
    told = as_text(report(splits=[split(colours=grey)]))
    assert "of one channel: Normalize(mean=[0.1307], std=[0.3081])" in told and "large ones were reduced before: 4" in told
    assert "Normalize" not in as_text(report(splits=[split(colours=None)]))


def test_the_line_to_paste_is_of_the_first_split():
    other = Colours(9, (0.9, 0.9, 0.8), (0.1, 0.1, 0.1), (0.1, 0.1, 0.1), 0)
    text = as_text(report(splits=[split("train"), split("val", colours=other)]))
    assert "mean=[0.4851, 0.4561, 0.4065]" in text and "1,000 pictures of train" in text and "0.9000" not in text


def test_classes_have_index_count_and_share():
    found = cells(as_text(report()), "class  ")
    assert found["class"] == ["index", "count", "share"]
    assert found["cat"] == ["0", "600", "60.0 %", "█" * 20] and found["dog"] == ["1", "400", "40.0 %", "█" * 13]


def test_indices_that_differ_stand_beside_each_other():
    found = cells(as_text(FEW), "class  ")
    assert found["class"][:4] == ["train index", "train", "val index", "val"]
    assert found["cat"][:4] == ["0", "600", "1", "20"] and found["dog"][:4] == ["1", "400", "0", "30"]
    same = cells(as_text(report(splits=[split("train"), split("val", classes=classes(7, names=("cat",)))])), "class  ")
    assert same["class"][:3] == ["index", "train", "val"] and same["dog"][:3] == ["1", "400", "–"]


def test_of_many_classes_a_terminal_shows_the_largest_and_the_smallest():
    found = cells(as_text(MANY, 100).replace("the largest", "\nthe largest"), "class  ")
    names = [name for name in found if name != "class"]
    assert names == [f"class{place}" for place in [*range(10), *range(990, 1000)]] and len(names) == MOST_ROWS
    assert "980 classes more in a pipe and in --format json" in as_text(MANY, 100)
    assert len(cells(as_text(MANY), "class  ")) == 1001
    assert "| `class49` " in as_markdown(MANY) and "900 classes more in --format json" in as_markdown(MANY)


def test_loaders_have_fields_and_a_pace():
    found = facts(loaders())
    table_of = cells(as_text(loaders()), "field  ")
    assert table_of["0"] == ["64,3,224,224", "float32", "-2.12", "2.64", "0.0100 -0.0200 0.0300", "1.01 0.990 1.00"]
    assert table_of["1"] == ["64", "int64", "0", "9"]
    assert found["samples"] == "50,000" and "decoded" not in found and "size" not in found
    assert found["loader"] == "DataLoader · 50,000 samples · 10,000 read in 157 batches · batches of 64"
    assert found["pace"].startswith(
        "412 samples/s with 4 workers, 9.10 ms a sample, first batch after 1.25 s; wanted 2,470/s (--target-rate)"
    )
    assert "which takes 23 workers" in found["pace"] and found["memory"] == "+3.00 MiB an epoch"
    none = loader(pace=Pace(5000, 1e-4, 0, 9, 0.1, 200.0, "resnet50", 0), memory_per_epoch=-2048, samples=None, batch_size=None)
    other = facts(loaders(loaders=(none,)))
    assert "takes no worker beside the main process" in other["pace"] and other["memory"] == "-2.00 KiB an epoch"
    assert other["loader"].startswith("DataLoader · of unknown length · 10,000 read")


def test_numbers_that_are_not_finite_are_shown():
    odd = loader(fields=(field("x", (2,), low=float("-inf"), high=float("nan")), field("y", (2,), low=None, high=None)))
    assert cells(as_text(loaders(loaders=(odd,))), "field")["x"] == ["2", "float32", "-inf", "nan"]


def test_several_loaders_are_told_apart():
    text = as_text(loaders(loaders=(loader("train_loader"), loader("val_loader"))))
    assert "loader        field" in text and "pace     val_loader: 412 samples/s" in text


@pytest.mark.parametrize("found", [FEW, MANY, loaders(), report(), report(many("blank", 3)), report(splits=())])
@pytest.mark.parametrize("width", [80, 60])
def test_nothing_is_wider_than_the_terminal(found, width):
    assert max(cell_len(line) for line in as_text(found, width, title="./data").splitlines()) <= width


def test_what_is_hidden_is_named():
    assert "hidden to fit 60 columns" in as_text(loaders(), 60) and "hidden" not in as_text(loaders())


def test_what_was_not_seen_is_said():
    assert "INTERRUPTED after 12 files" in as_text(report(interrupted=12)) and "INTERRUPTED after 12 files" in as_markdown(
        report(interrupted=12)
    )
    assert "INTERRUPTED" not in as_text(report())
    assert "cropped copies" in facts(report())["unknown"] and facts(loaders())["unknown"] == UNKNOWN[False]


def test_notes_and_pictures_are_listed():
    text = as_text(report(notes=("train and val were found in it",), pictures=("a.png", "b.png", "c.png")))
    assert "note      train and val were found in it" in text and "pictures  3, the first a.png" in text


def test_markdown_has_the_answer_first_and_the_same_numbers():
    lines = as_markdown(FEW, title="./data").splitlines()
    assert lines[0] == "### ./data · 1,050 files · 2 splits · 2 classes" and lines[2].startswith("**fit to train on?")
    assert any(re.match(r"\| files +\| 1,000 +\| 50 +\|", line) for line in lines)
    assert any(re.match(r"\| `cat` \| +0 \| +600 \| +1 \| +20 \|", line) for line in lines)
    assert "`Normalize(mean=[0.4851, 0.4561, 0.4065], std=[0.2291, 0.2244, 0.2250])`" in as_markdown(FEW)


def test_the_answer_is_coloured_and_last():
    drawn = table(report(many("file-empty", 2)), 80)
    stream = io.StringIO()
    Console(file=stream, width=80, force_terminal=True, color_system="standard").print(drawn[-1])
    assert "\x1b[1;31m" in stream.getvalue() and "fit to train on? no: 2 of 1,000 files are empty" in stream.getvalue()
    assert verdict(report())[1] is Severity.INFO


@pytest.mark.parametrize("width", [None, 80])
def test_hostile_names_steer_nothing(width):
    hostile = split(ESCAPE, root=ESCAPE, classes=classes(5, 0, names=(ESCAPE, "x" * 500)), formats=((ESCAPE, 3),), skipped=((ESCAPE, 1),))
    found = report(splits=[hostile, split("val")], notes=(ESCAPE,), loaders=(loader(ESCAPE, fields=(field(ESCAPE, (1,), ESCAPE),)),))
    for text in (as_text(found, width, title=ESCAPE), as_markdown(found, title=ESCAPE)):
        assert "\x1b" not in text and "\u202e" not in text and "[red]cat" in text.replace("\\", "")
        assert not re.search(r"(?m)^\s*::error::", text)
    for rows in re.findall(r"(?m)(?:^\|.*\n)+", as_markdown(found, title=ESCAPE)):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows.splitlines()}) == 1, "a name must not open a column"
