"""The tables of `netlens gradcam`: cells against the report, what gives way, and names that are hostile or long."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
from rich.cells import cell_len

from netlens.drawing.tables import render
from netlens.lenses.gradcam.report import Class, GradcamReport
from netlens.lenses.gradcam.show import as_markdown, as_text, table
from netlens.parts import Picture
from tests.lenses.gradcam_case import LAYER, LYNX, SHOT, TIGER, checked, heat, report, scored

HOUND = Class(275, "African hunting dog, hyena dog, Cape hunting dog, Lycaon pictus", 5.25, 0.0213)
HEADERS = (
    "#",
    "image",
    "class",
    "p",
    "score",
    "asked for",
    "predicted",
    "method",
    "layer",
    "peak x,y",
    "positive",
    "max",
    "|grad|",
    "note",
)
CUT = ("image", "class", "layer", "asked for", "predicted")  # names
METHODS = ("gradcam", "gradcam++", "hirescam", "eigencam", "scorecam")


def several() -> GradcamReport:
    """Methods, classes and layers, with scores and sanity."""
    maps = [
        heat(
            sample=sample,
            method=method,
            equals="gradcam" if method == "hirescam" else None,
            asked="hound",
            target=HOUND,
            layers=(f"layer{3 + sample}",),
        )
        for sample in range(2)
        for method in METHODS
    ]
    return report(
        *maps,
        methods=tuple(scored(method, road=0.1 * rank) for rank, method in enumerate(METHODS)),
        sanity=tuple(checked(method, (0.9, 0.5, 0.1)) for method in METHODS),
        notes=("a note",),
    )


def folder(count: int = 300) -> GradcamReport:
    """A folder of photos, of which number 299 has a blank map."""
    maps = [heat(sample=place, **({"least": 0.0, "greatest": 0.0, "gradient": 0.0} if place == 299 else {})) for place in range(count)]
    names = [f"val/n02123045/ILSVRC2012_val_{place:08d}.JPEG" for place in range(count)]
    return replace(report(*maps), shots=tuple(replace(SHOT, name=name) for name in names))


def rows(text: str, count: int, *headers: str) -> list[dict[str, str]]:
    """Read `count` rows of the table back whose header has these words, by where its columns stand."""
    lines = text.splitlines()
    heads = [place for place, line in enumerate(lines[1:]) if line and not line.strip("─-")]
    head = next(place for place in heads if set(headers) <= {*re.split(r"  +", lines[place].strip())})
    spans = [match.span() for match in re.finditer(r"\S+(?: \S+)*", lines[head])]
    found = []
    for line in lines[head + 2 : head + 2 + count]:
        cells = {}
        for match in re.finditer(r"\S+(?: \S+)*", line):
            column = max(spans, key=lambda span: min(span[1], match.end()) - max(span[0], match.start()))
            cells[lines[head][slice(*column)]] = match[0]
        found.append(cells)
    return found


def test_cells_are_the_numbers_of_the_report():
    other = heat(target=TIGER, asked="cat", least=-9.0, greatest=-0.125, positive=0.0, peak=None, gradient=1.5e-7)
    first, second = rows(as_text(report(heat(), other)), 2, "image", "p")
    assert first == {
        "#": "0",
        "image": "cat.png",
        "class": "tabby",
        "p": "0.612",
        "score": "9.25",
        "peak x,y": "320,210",
        "positive": "62.5 %",
        "max": "2.12",
        "|grad|": "0.0125",
    }
    assert second == {
        "#": "1",
        "image": "cat.png",
        "class": "tiger cat",
        "p": "0.225",
        "score": "8.25",
        "predicted": "tabby 0.612",
        "positive": "0 %",
        "max": "-0.125",
        "|grad|": "1.50e-7",
        "note": "blank: nothing for it",
    }


def test_columns_that_would_say_the_same_in_every_row_are_in_the_header():
    text = as_text(report(heat(), heat(sample=1)))
    (head, *_) = (line for line in text.splitlines() if "peak x,y" in line)
    assert not {"method", "layer", "predicted", "asked"} & set(head.split())
    assert re.search(r"layer +layer4 · Sequential · 512 × 7 × 7 · the latest output that the score depends on", text)
    assert re.search(r"method +Grad-CAM \(Selvaraju et al\. 2017, 1610\.02391\)", text)
    both = rows(as_text(several()), 10, "image", "method")
    assert {row["layer"] for row in both} == {"layer3", "layer4"} and both[2]["note"] == "= Grad-CAM"


def test_the_header_says_how_it_was_run():
    lines = as_text(
        report(heat(), run={"random_inputs": True, "dtype": "float16", "autocast": "fp16", "channels_last": True}), title="resnet18"
    ).splitlines()
    assert lines[0] == "resnet18 · ResNet · best.ckpt"
    assert re.match(r"input +cat\.png: noise", lines[1])
    assert re.search(r"\nrun +cpu · float16 · autocast fp16 · channels last · eval mode · class scores, 1,000 classes\n", "\n".join(lines))
    blind = as_text(report(heat(method="eigencam", gradient=None)))
    assert "2008.00299) · knows no class" in blind


def test_an_untrained_model_is_told_above_everything():
    assert as_text(report(heat(), initialised=True), 80, title="net").splitlines()[1].startswith("UNTRAINED")
    assert "**UNTRAINED: these maps mean nothing**" in as_markdown(report(heat(), initialised=True))
    assert "UNTRAINED" not in as_text(report(heat(), initialised=None))


def test_predictions_of_few_samples():
    dog = replace(SHOT, name="dog.png", top=(HOUND, replace(TIGER, probability=0.0002), replace(LYNX, probability=None)))
    found = rows(as_text(report(heat(), heat(sample=1), shots=(SHOT, dog))), 2, "predicted", "2nd")
    assert found[0] == {"image": "cat.png", "predicted": "tabby 0.612", "2nd": "tiger cat 0.225", "3rd": "lynx 0.039"}
    assert found[1]["predicted"].endswith("Lycaon pictus 0.021")
    assert (found[1]["2nd"], found[1]["3rd"]) == ("tiger cat <0.001", "lynx 6.50"), "of what has no probability the score"
    assert "2nd" not in as_text(folder(9)), "of many samples only the top one, in the table of maps"


def test_a_probability_stays_where_its_class_is_cut():
    long = replace(SHOT, top=(HOUND, replace(HOUND, probability=0.0198), replace(HOUND, probability=0.0101)))
    found = rows(as_text(report(heat(target=HOUND), shots=(long,)), 80), 1, "predicted", "2nd")
    assert [cell[-7:] for cell in found[0].values()][1:] == ["… 0.021", "… 0.020", "… 0.010"]


# -- width and length ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [72, 80, 100, 120, 200])
@pytest.mark.parametrize(("make", "count"), [(several, 10), (folder, 39)], ids=["several", "folder"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_it_fits_and_numbers_are_whole_or_hidden(make, count, width, encoding):
    text = render(table(make(), width, title="net"), width, encoding)
    assert all(cell_len(line) <= width for line in text.splitlines())
    assert text.isascii() or encoding == "utf-8"
    header = "|".join(map(re.escape, HEADERS))
    said = re.search(rf"((?:{header})(?:, (?:{header}))*) hidden to fit {width} columns", " ".join(text.split()))
    whole, cut = (rows(table, count, "image", "class") for table in (as_text(make()), text))
    headers, shown = ({header for row in found for header in row} for found in (whole, cut))
    assert headers - shown == set(said[1].split(", ") if said else ())
    for row, full in zip(cut, whole, strict=True):  # a number is whole or not there
        numbers = {header: cell for header, cell in row.items() if header not in CUT}
        assert numbers == {header: full[header] for header in numbers}


def test_in_a_pipe_nothing_is_hidden_or_cut():
    text = as_text(folder())
    assert rows(text, 300, "image", "p")[299]["note"] == "blank: no gradient" and "val/n02123045/ILSVRC2012_val_00000299.JPEG" in text
    assert "to fit" not in text and "…" not in text and "not shown" not in text


@pytest.mark.parametrize("text", [as_text(folder(), 80), as_markdown(folder())], ids=["terminal", "markdown"])
def test_of_a_long_folder_the_faults_and_the_first_maps_are_shown(text):
    assert text.count("tabby") == 40 and "260 of 300 maps are not shown" in " ".join(text.split())
    assert "blank: no gradient" in text and "00038.JPEG" in text and "00039.JPEG" not in text, "the blank map takes the last place"


def test_names_of_one_folder_stay_apart_where_they_are_cut():
    shown = [row["image"] for row in rows(as_text(folder(), 80), 40, "image", "p")]
    assert len(set(shown)) == 40 and shown[0].endswith("00000.JPEG")


def test_a_thousand_maps_are_fast():
    found = folder(1000)
    start = time.perf_counter()
    as_text(found, 80)
    as_markdown(found)
    assert time.perf_counter() - start < 2


# -- scores, sanity, layers ------------------------------------------------------------------------------------------------------------


def test_methods_stand_in_the_order_in_which_they_are_to_be_believed():
    text = as_text(several())
    found = rows(text, 5, "method", "ROAD")
    assert [row["method"] for row in found] == ["Score-CAM", "Eigen-CAM", "HiResCAM", "Grad-CAM++", "Grad-CAM"]
    assert found[0] == {
        "method": "Score-CAM",
        "maps": "20",
        "ROAD": "0.400",
        "pointing": "0.950",
        "energy": "0.600",
        "deletion": "0.120",
        "insertion": "0.550",
        "drop": "0.250",
        "increase": "0.300",
        "time/map": "50.0 ms",
    }
    assert found[1]["note"] == "knows no class"
    assert "\nbelieve Score-CAM: the best mean rank of 5 methods by ROAD, pointing and energy, on 20 maps\n" in text
    assert "**believe Score-CAM: the best mean rank of 5" in as_markdown(several())


def test_what_could_not_be_measured_has_no_column():
    text = as_text(report(heat(), methods=(scored("gradcam", pointing=None, energy=None),)))
    assert "pointing" not in text and "energy" not in text and "ROAD: least minus most" in text


def test_the_steps_of_the_sanity_check():
    mixed = (checked("gradcam", (0.876, 0.5, 0.0499)), checked("eigencam", (1.0, None, 0.95)))
    text = as_text(report(heat(), sanity=mixed))
    assert rows(text, 2, "method", "fc") == [
        {"method": "Grad-CAM", "fc": "0.876", "+1": "0.500", "all": "0.050"},
        {"method": "Eigen-CAM", "fc": "1.000", "+1": "blank", "all": "0.950", "note": "does not depend on the weights"},
    ]
    assert "drawn anew, one after the other: fc, then layer4.1.conv2, conv1" in text
    assert "\nEigen-CAM: 1.000 until its own layer" in text and "\nblank: the maps were the same everywhere" in text
    one = as_text(report(heat(), sanity=mixed[:1]))
    assert "Eigen-CAM" not in one and "blank:" not in one


@pytest.mark.parametrize(
    ("steps", "header"),
    [
        (("roi_heads.box_predictor.bbox_pred", "a", "b"), "bbox_pred"),
        (("classifier.6", "a", "b"), "classifier.6"),
        (("fc", "a", "b"), "fc"),
    ],
)
def test_the_first_step_of_the_sanity_check_has_the_name_of_its_layer(steps, header):
    text = as_text(report(heat(), sanity=(checked("gradcam", (0.3, 0.2, 0.1), steps),)))
    assert rows(text, 1, "method", "+1") == [{"method": "Grad-CAM", header: "0.300", "+1": "0.200", "all": "0.100"}]


def test_an_approximation_by_some_channels_is_told_with_its_method():
    few = {"top_channels": 16}
    (method,) = re.findall(r"\nmethod +(.*)", as_text(report(heat(method="scorecam", gradient=None), run=few)))
    assert method == "Score-CAM (Wang et al. 2020, 1910.01279) · approximated by at most 16 channels"
    (method,) = re.findall(r"\nmethod +(Grad.*)", as_text(report(heat(), heat(method="scorecam", gradient=None), run=few)))
    assert method == "Grad-CAM, Score-CAM · approximated by at most 16 channels"
    assert "approximated" not in as_text(report(heat(method="scorecam", gradient=None)))


def test_of_an_output_that_is_not_finite_no_number_and_no_class_is_told():
    lost = Class(0, None, float("nan"), float("nan"))
    bad = replace(SHOT, name="bad.png", top=(lost, lost), nonfinite=1)
    text = as_text(report(heat(), heat(sample=1, target=lost), heat(sample=1, target=TIGER, asked="tiger cat"), shots=(SHOT, bad)))
    assert rows(text, 2, "predicted", "2nd")[1] == {"image": "bad.png", "predicted": "output not finite"}
    good, top, asked = rows(text, 3, "image", "p")
    assert top == {"#": "1", "image": "bad.png", "note": "output not finite"}
    assert asked == top | {"#": "2", "class": "tiger cat"}, "what the user named"
    assert good["max"] == "2.12" and "nan" not in text


def listing() -> GradcamReport:
    chosen = replace(
        LAYER, index=41, name="encoder.layers.encoder_layer_11.ln_1", shape=(197, 768), layout="tokens", grid=(14, 14), channels=768
    )
    late = replace(chosen, index=42, name="encoder.layers.encoder_layer_11.mlp", chosen=False, reason="its gradient is 0 at every place")
    return replace(report(layers=(replace(LAYER, index=3, name="conv_proj", chosen=False, reason=""), chosen, late)), shots=())


def test_the_list_of_layers():
    found = rows(as_text(listing()), 3, "layer", "why")
    assert [row["#"] for row in found] == ["3", "41", "42"], "the numbers that --layer takes"
    assert found[0] == {
        "#": "3",
        "layer": "conv_proj",
        "type": "Sequential",
        "shape": "512,7,7",
        "layout": "channels first",
        "grid": "7 × 7",
        "channels": "512",
    }
    assert found[2]["why"] == "its gradient is 0 at every place" and "chosen" not in found[2].values()
    text = as_text(listing(), 80)
    assert "the latest output that the score depends on" in " ".join(text.split()), "why it was chosen is said in full"
    assert all(len(line) <= 80 for line in text.splitlines()) and "names shortened" in text
    assert "method" not in text


# -- names that are hostile, and what is below -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [None, 80])
def test_names_are_never_markup_or_commands(width):
    name = "x\x1b[2J[bold]\n::error::" + "y" * 300
    odd = Class(1, "[red]\x1b[31m|`<b>", 9.0, 0.9)
    hostile = replace(
        report(heat(target=odd), heat(sample=1, target=odd)),
        shots=(replace(SHOT, name=name, top=(odd,)), replace(SHOT, name="::error::a", top=(odd,))),
    )
    text = as_text(hostile, width, title="\x1b[2J::error::a")
    assert "\x1b" not in text and "[red]" in text
    assert not any(line.lstrip().startswith("::") for line in text.splitlines())
    lines = [line for line in as_markdown(hostile).splitlines() if line.startswith("|")]
    counts = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
    assert counts == [3] * 4 + [counts[-1]] * 4, "no cell breaks a table"


def test_what_was_written_is_said_below():
    pictures = tuple(Picture(f"out/gradcam-{place}.png", "maps", (), "", 10, 10) for place in range(3))
    text = as_text(report(heat(file="out/a.npy"), run={"peak_bytes": 3 << 20, "device": "cuda:0"}, pictures=pictures, notes=("a note",)))
    below = dict(re.split(r"  +", line, maxsplit=1) for line in text.strip().split("\n\n")[-1].splitlines())
    assert below == {
        "memory": "3.00 MiB at the peak on cuda:0",
        "raw maps": "1 in out · --format json lists them",
        "pictures": "3 in out · --format json lists them",
        "note": "a note",
    }
