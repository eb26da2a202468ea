"""`netlens gradcam` as a careless user types it: what it answers, what it writes, and how its mistakes end.

Most models here are light meters: the Grad-CAM of "bright" is the brightness of each cell, so that every number can be derived by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from netlens.cli.app import run
from netlens.errors import NetlensError

REPOSITORY = Path(__file__).parents[2]
SAMPLES = REPOSITORY / "sample_models"
SCENES, SHAPENET = SAMPLES / "scenes", f"{SAMPLES}/shapes.py:ShapeNet --checkpoint {SAMPLES}/weights/shapenet.safetensors"
SHAPES = ["circle", "square", "triangle", "star", "cross", "ring"]
NEAR = {"rel": 1e-5, "abs": 1e-7}
HALVES = "--mean 0.5 --std 0.5"  # pictures become -1..1

MODELS = """
import sys
import torch
from torch import nn

class Meter(nn.Module):
    "Cells of 8 x 8 pixels; class 0 is bright, class 1 is dark, class 2 nothing speaks for."
    def __init__(self, first=3, grid=2):
        super().__init__()
        kernel = (8, 8) if grid == 2 else (1, 8, 8)
        self.cells = (nn.Conv2d, nn.Conv3d)[grid - 2](first, 2, kernel, kernel, bias=False)
        self.act = nn.ReLU()
        self.head = nn.Linear(2, 3)
        with torch.no_grad():
            self.cells.weight[0], self.cells.weight[1] = 1 / (first * 64), -1 / (first * 64)
            self.head.weight.copy_(torch.tensor([[2.0, 0], [0, 2.0], [-1, -1]]))
            self.head.bias.zero_()
    def features(self, x):
        return self.act(self.cells(x)).flatten(2).mean(2)
    def forward(self, x):
        return self.head(self.features(x))

def grey(): return Meter(1)
def four(): return Meter(4)
def film(): return Meter(3, grid=3)

class Embeds(Meter):
    def forward(self, x): return self.features(x)

class Segments(Meter):
    def forward(self, x):
        a = self.act(self.cells(x))
        return {"out": torch.stack([a[:, 0], a[:, 1] - 0.25], 1).repeat_interleave(8, 2).repeat_interleave(8, 3)}

class Detects(Meter):
    def forward(self, images):
        found = []
        for scores, light in zip(self.head(self.features(images)).sigmoid(), images.mean((1, 2, 3))):
            keep = slice(0, int(light > -0.9))
            found.append({"boxes": torch.tensor([[0.0, 0, 8, 8]])[keep], "scores": scores[:1][keep], "labels": torch.tensor([1])[keep]})
        return found

class Raises(Meter):
    def forward(self, x): raise ValueError("first line\\nsecond line")

class Single(Meter):
    def forward(self, x):
        if len(x) > 1: raise ValueError("one picture at a time")
        return super().forward(x)

class Exits(Meter):
    def forward(self, x): sys.exit(0)

class Prints(Meter):
    def forward(self, x):
        print("hello")
        return super().forward(x)

class Hungry(Meter):
    def forward(self, x):
        if len(x) > 2: raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return super().forward(x)

class Starving(Meter):
    def forward(self, x): raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

class Broken(Meter):
    def forward(self, x): return super().forward(x) * float("nan")

class Text(Meter):
    def forward(self, x): return f"bright {super().forward(x)}"

class Fresh(nn.Sequential):
    def __init__(self): super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
    def forward(self, x): return self.fc(x)
"""

Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "cam_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    for name, left, top in (("a.png", 40, 16), ("b.png", 0, 56)):
        spot(name, (64, 64), (left, top))
    return tmp_path


@pytest.fixture
def cli(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run one command line in this process; NetlensErrors are raised."""

    def ask(line: str, *more: str) -> tuple[int, str]:
        arguments: Sequence[str] = ["gradcam", *line.split(), *more]
        monkeypatch.setattr(sys, "argv", ["netlens", *arguments])
        capfd.readouterr()
        code = run(arguments)
        return code, capfd.readouterr().out

    return ask


def spot(name: str, size: tuple[int, int], at: tuple[int, int], side: int = 8, mode: str = "RGB", turned: int = 0) -> None:
    """Save a black picture, (width, height), with a white square; `turned` is how a camera says that it was held: 6 is a quarter."""
    image = Image.new("L", size, 0)
    image.paste(255, (at[0], at[1], at[0] + side, at[1] + side))
    image = image.convert(mode)
    exif = Image.Exif()
    if turned:
        exif[0x0112] = turned
        image = image.transpose(Image.Transpose.ROTATE_90)  # what is stored; to be turned back by a quarter clockwise
    image.save(name, exif=exif)


def document(cli: Cli, line: str, *more: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli(f"{line} --format json", *more)[1])
    return found


def report_of(cli: Cli, line: str, *more: str) -> dict[str, Any]:
    found: dict[str, Any] = document(cli, f"{line} --no-pictures", *more)["report"]
    return found


# -- numbers ------------------------------------------------------------------------------------------------------------------------------


def test_numbers_are_those_that_follow_from_the_picture(cli, folder):
    """One of 64 cells is white, +1, the others black, -1: mean(A) is 1/64 of it, and the weight of bright is 2/64 at each place."""
    report = report_of(cli, f"cam_models.py:Meter --image a.png --size 64 {HALVES} --target 0 --target 1 --target 2 --layer act")
    bright, dark, nothing = report["maps"]
    assert (bright["least"], bright["greatest"], bright["positive"]) == pytest.approx((0, 2 / 64, 1 / 64), **NEAR)
    assert (dark["least"], dark["greatest"], dark["positive"]) == pytest.approx((0, 2 / 64, 63 / 64), **NEAR)
    assert (nothing["least"], nothing["greatest"], nothing["peak"]) == (
        pytest.approx(-1 / 64, **NEAR),
        pytest.approx(-1 / 64, **NEAR),
        None,
    )
    assert bright["peak"] == [44, 20] and bright["shape"] == [8, 8] and bright["gradient"] == pytest.approx(2 / 64, **NEAR)
    scores = np.array([2 / 64, 126 / 64, -1.0])
    likely = np.exp(scores) / np.exp(scores).sum()
    assert [(one["index"], one["score"], one["probability"]) for one in report["shots"][0]["top"]] == [
        (index, pytest.approx(scores[index], **NEAR), pytest.approx(likely[index], **NEAR)) for index in (1, 0, 2)
    ]
    assert report["shots"][0]["size"] == [64, 64] and report["run"]["output"] == "class scores"


@pytest.mark.parametrize("turned", [0, 6])
def test_the_peak_is_told_in_pixels_of_the_upright_photo(cli, folder, turned):
    """A photo of 120 x 80: the middle 80 x 80 are seen as 64 x 64, so that a cell is 10 pixels wide."""
    spot("photo.jpg", (120, 80), (80, 20), side=10, turned=turned)
    (heat,) = report_of(cli, f"cam_models.py:Meter --image photo.jpg --size 64 {HALVES} --target 0 --layer act")["maps"]
    assert heat["peak"] == [85, 25]


@pytest.mark.parametrize(("model", "mode"), [("grey", "L"), ("four", "RGBA"), ("Meter", "P")])
def test_models_of_other_channels(cli, folder, model, mode):
    spot("p.png", (64, 64), (40, 16), mode=mode)
    stated = "--mean 0.5 --std 0.5"
    code, out = cli(f"cam_models.py:{model} --image p.png --size 64 {stated} --target 0 --layer act --format json --fail-on never")
    (heat,) = json.loads(out)["report"]["maps"]
    assert code == 0 and heat["peak"] == [44, 20] and len(list((folder / "netlens-out").iterdir())) == 1


def test_saved_tensors_and_random_numbers(cli, folder):
    x = torch.full((2, 3, 16, 24), -1.0)
    x[0, :, 8:16, 16:24] = 1
    torch.save(x, "x.pt")
    first, second = report_of(cli, "cam_models.py:Meter --input x.pt --target 0 --layer act")["maps"]
    assert first["peak"] == [20, 12] and second["peak"] is None and first["greatest"] == pytest.approx(2 / 6, **NEAR)
    report = report_of(cli, "cam_models.py:Meter --input 2,3,16,24")
    assert report["run"]["random_inputs"] and len(report["maps"]) == 2


def test_raw_files_are_the_numbers_of_the_report(cli, folder):
    Path("names.txt").write_text("bright\ndark\nnothing\n")
    line = f"cam_models.py:Meter --image a.png --image b.png --size 64 {HALVES} --method gradcam,hirescam --names names.txt --raw"
    report = document(cli, f"{line} -t bright -t 2")["report"]
    assert len(report["maps"]) == 8 and len({row["file"] for row in report["maps"]}) == 8
    for row in report["maps"]:
        values = np.load(row["file"], allow_pickle=False)
        least = max(row["least"], 0) if row["method"] == "gradcam" else row["least"]  # Grad-CAM takes the positive part
        greatest = max(row["greatest"], 0) if row["method"] == "gradcam" else row["greatest"]
        assert values.dtype == np.dtype("<f4") and list(values.shape) == row["shape"]
        assert (values.min(), values.max()) == pytest.approx((least, greatest), abs=1e-9)
    assert report["maps"][0]["target"]["name"] == "bright" and report["maps"][0]["asked"] == "bright"


def test_pictures_of_a_folder_and_their_sheet(cli, folder):
    code, _ = cli(f"cam_models.py:Meter --image a.png --image b.png --size 64 {HALVES} --target 0 --layer act --fail-on never")
    names = sorted(path.name for path in (folder / "netlens-out").iterdir())
    assert code == 0 and names == ["gradcam-Meter-a.png", "gradcam-Meter-b.png", "gradcam-Meter-sheet.png"]
    with Image.open(folder / "netlens-out" / names[0]) as image:
        facts = image.info
    assert facts["Model"] == "cam_models.py:Meter" and facts["Layer"] == "act" and facts["Method"] == "Grad-CAM" and facts["Seed"] == "0"
    assert "--target 0" in facts["Command"] and facts["Software"].startswith("netlens ")


def test_the_same_question_gives_the_same_bytes(cli, folder):
    answers = []
    for _ in range(2):
        _, out = cli(f"cam_models.py:Meter --image a.png --size 64 {HALVES} --method all --raw --format json")
        answers.append((out, {path.name: path.read_bytes() for path in (folder / "netlens-out").iterdir()}))
    assert answers[0] == answers[1] and len(answers[0][1]) > 5


# -- sample scenes ------------------------------------------------------------------------------------------------------------------------


def test_maps_of_the_sample_network_lie_in_the_boxes(cli, folder):
    """pointing is counted again from the raw maps and boxes.json; of two objects each is asked for where it is."""
    (folder / "classes.txt").write_text("\n".join(SHAPES))
    line = f"{SHAPENET} --image {SCENES} --names classes.txt --boxes {SCENES}/boxes.json --method gradcam,eigencam --raw --fail-on never"
    report = report_of(cli, line)
    truth = json.loads((SCENES / "boxes.json").read_text())
    hits: dict[str, list[float]] = {"gradcam": [], "eigencam": []}
    for row in report["maps"]:
        name = report["shots"][row["sample"]]["name"]
        boxes = [one["box"] for one in truth[name] if one["label"] == row["target"]["name"]]
        if boxes:
            column, line_ = row["peak"]
            near = min(max(left - column, column - right, top - line_, line_ - bottom) for left, top, right, bottom in boxes)
            hits[row["method"]].append(row["worth"]["pointing"])
            assert abs(near) <= 4 or bool(row["worth"]["pointing"]) == (near < 0)  # the middle of the cell, which is 8 pixels wide
            assert 0 < row["worth"]["energy"] <= 1 and row["worth"]["deletion"] is None
        else:
            assert row["worth"]["pointing"] is None
    assert len(hits["gradcam"]) >= 10 and np.mean(hits["gradcam"]) >= 0.9
    assert {row["method"]: row["worth"]["pointing"] for row in report["methods"]} == {
        method: pytest.approx(np.mean(found)) for method, found in hits.items()
    }


def test_classes_are_named_by_the_checkpoint_and_asked_for_by_name(cli, folder):
    report = report_of(cli, f"{SHAPENET} --image {SCENES}/09-star-circle.png --target star --target circle")
    peaks = {row["target"]["name"]: row["peak"] for row in report["maps"]}
    for one in json.loads((SCENES / "boxes.json").read_text())["09-star-circle.png"]:
        left, top, right, bottom = one["box"]
        column, row = peaks[one["label"]]
        assert left <= column < right and top <= row < bottom
    assert report["run"]["preprocessing"].startswith("metadata of shapenet.safetensors")


def test_scores_and_the_sanity_check_tell_which_map_to_believe(cli, folder):
    line = f"{SHAPENET} --image {SCENES}/01-square.png --method gradcam,eigencam --score --sanity --fail-on never"
    report = report_of(cli, line)
    methods = {row["method"]: row["worth"] for row in report["methods"]}
    for worth in methods.values():
        assert 0 <= worth["deletion"] <= 1 and 0 <= worth["insertion"] <= 1 and worth["pointing"] is None
    assert methods["gradcam"]["deletion"] < methods["gradcam"]["insertion"] and methods["gradcam"]["road"] > 0
    assert [row["method"] for row in report["sanity"]] == ["gradcam", "eigencam"]
    for row in report["sanity"]:
        assert row["steps"][0] == "head" and len(row["steps"]) == len(row["similarity"])


# -- other models -------------------------------------------------------------------------------------------------------------------------


def test_layers_are_listed_and_nothing_is_written(cli, folder):
    report = document(cli, "cam_models.py:Meter --input 1,3,16,24 --list-layers")["report"]
    assert [(row["index"], row["name"], row["grid"], row["chosen"]) for row in report["layers"]] == [
        (0, "cells", [2, 3], False),
        (1, "act", [2, 3], True),
    ]
    assert not report["maps"] and not (folder / "netlens-out").exists()
    code, out = cli("cam_models.py:Meter --image a.png --size 64 --list-layers")
    assert code == 0 and "cells" in out and "act" in out


@pytest.mark.parametrize("layer", ["act", "1", "-1", "ReLU", "a*"])
def test_a_layer_is_named_in_many_ways(cli, layer):
    assert [row["name"] for row in report_of(cli, f"cam_models.py:Meter --input 1,3,16,24 --layer {layer}")["layers"]] == ["act"]


def test_a_film_is_all_pictures_as_its_frames(cli, folder):
    line = f"cam_models.py:film --image a.png --image b.png --size 64 {HALVES} --target 0 --layer act --fail-on never"
    report = document(cli, line)["report"]
    (heat,) = report["maps"]
    assert (
        heat["shape"] == [2, 8, 8] and report["shots"][0]["name"] == "a.png to b.png" and heat["greatest"] == pytest.approx(2 / 128, **NEAR)
    )
    assert len(list((folder / "netlens-out").iterdir())) == 1


def test_likeness_to_another_picture(cli, folder):
    """A is mean light and mean darkness; likeness to a bright picture grows with light alone."""
    Image.new("RGB", (64, 64), "white").save("white.png")
    report = report_of(cli, f"cam_models.py:Embeds --image a.png --image white.png --size 64 {HALVES} --against white.png --layer act")
    first, second = report["maps"]
    light, dark = 1 / 64, 63 / 64
    assert first["target"]["score"] == pytest.approx(light / np.hypot(light, dark), rel=1e-5) and first["peak"] == [44, 20]
    assert second["target"]["score"] == pytest.approx(1, **NEAR) and report["run"]["output"] == "embedding"
    with pytest.raises(NetlensError, match="explains likeness"):
        cli(f"cam_models.py:Embeds --image a.png --size 64 {HALVES} --against white.png --target 0")


def test_a_place_of_a_segmentation(cli, folder):
    """At a black place class 1 has the score A_1 - 1/4 of its own cell: the weight is 1/64 of 64 pixels' one gradient."""
    line = f"cam_models.py:Segments --image a.png --size 64 {HALVES} --layer act"
    (heat,) = report_of(cli, f"{line} --target 0 --point 44,20")["maps"]
    assert heat["asked"] == "0, point 44,20" and heat["peak"] == [44, 20] and heat["greatest"] == pytest.approx(1 / 64, **NEAR)
    (region,) = report_of(cli, f"{line} --target 0")["maps"]
    assert region["target"]["score"] == pytest.approx(64, **NEAR) and region["greatest"] == pytest.approx(1, **NEAR)
    with pytest.raises(NetlensError, match="does not see the point 99,20"):
        cli(f"{line} --point 99,20")


def test_a_detector_that_finds_nothing_in_one_picture(cli, folder):
    for name in ("dark.png", "night.png"):
        Image.new("RGB", (64, 64), "black").save(name)
    spot("a.png", (64, 64), (32, 16), side=32)
    line = f"cam_models.py:Detects --size 64 {HALVES} --layer act --fail-on never"
    report = document(cli, f"{line} --image dark.png --image a.png --image night.png")["report"]
    assert [(row["sample"], row["target"]["index"]) for row in report["maps"]] == [(1, 1)]
    assert [shot["name"] for shot in report["shots"]] == ["dark.png", "a.png", "night.png"]
    assert any("dark.png" in note and "detects nothing" in note for note in report["notes"])
    with pytest.raises(NetlensError, match="detects nothing"):
        cli(f"{line} --image dark.png")


def test_pictures_of_mixed_sizes_go_into_a_detector(cli, folder):
    for name, width, height in (("wide.png", 96, 64), ("tall.png", 48, 96), ("again.png", 96, 64)):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)).save(name)
    options = " ".join(f"--model-arg {each}" for each in ("box_score_thresh=0.0", "num_classes=4", "min_size=64", "max_size=96"))
    line = (
        f"fasterrcnn_mobilenet_v3_large_320_fpn {options} --image wide.png --image tall.png --image again.png --target #1 --fail-on never"
    )
    report = report_of(cli, line)
    assert [shot["size"] for shot in report["shots"]] == [[64, 96], [96, 48], [64, 96]] and len(report["maps"]) == 3
    wide, tall, again = report["maps"]
    assert wide["shape"] == again["shape"] != tall["shape"] and wide["greatest"] == pytest.approx(again["greatest"], rel=1e-3)


def test_all_methods_that_a_network_allows_and_why_the_others_are_left_out(cli, folder):
    report = report_of(cli, f"cam_models.py:Meter --image a.png --size 64 {HALVES} --target 0 --method all --layer act")
    assert {row["method"] for row in report["maps"]} == {
        *("cam", "gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "finercam", "eigencam", "scorecam", "ablationcam")
    }
    notes = " ".join(report["notes"])
    assert "LeGrad is left out" in notes and "FullGrad is left out" in notes
    equal = {row["method"]: row["equals"] for row in report["maps"]}
    assert equal["gradcam"] == "cam" and equal["hirescam"] == "cam"


def test_all_methods_of_a_transformer(cli, folder):
    line = f"{SAMPLES}/shapes.py:ShapeViT --checkpoint {SAMPLES}/weights/shapevit.safetensors --image {SCENES}/00-circle.png --method all"
    report = report_of(cli, f"{line} --fail-on never")
    methods = [row["method"] for row in report["maps"]]
    assert {"legrad", "fullgrad", "gradcam", "scorecam", "ablationcam"} <= set(methods) and "cam" not in methods
    assert any(note.startswith("CAM is left out") for note in report["notes"])


@pytest.mark.parametrize("options", ["--dtype bf16", "--dtype fp16", "--autocast bf16", "--channels-last", "--batch-size 1"])
def test_how_it_is_computed_moves_no_peak(cli, folder, options):
    line = f"cam_models.py:Meter --image a.png --image b.png --size 64 {HALVES} --target 0 --layer act --method gradcam,scorecam,layercam"
    report = report_of(cli, f"{line} {options}")
    assert [row["peak"] for row in report["maps"]] == [[44, 20]] * 3 + [[4, 60]] * 3
    assert all(row["nonfinite"] == 0 for row in report["maps"])


def test_a_batch_that_does_not_fit_is_halved_and_that_is_said(cli, folder):
    """Unasked, for the maps are the same; one sample that does not fit is told."""
    torch.save(torch.rand(8, 3, 16, 16), "x.pt")
    report = report_of(cli, "cam_models.py:Hungry --input x.pt --target 0")
    assert len(report["shots"]) == 8 and any("run with --batch-size 2" in note for note in report["notes"])
    alone = report_of(cli, "cam_models.py:Meter --input x.pt --target 0")
    assert [row["greatest"] for row in report["maps"]] == pytest.approx([row["greatest"] for row in alone["maps"]], **NEAR)
    with pytest.raises(NetlensError, match="out of memory"):
        cli("cam_models.py:Starving --input x.pt --no-pictures")


def test_what_the_model_prints_is_not_in_the_report(cli):
    json.loads(cli("cam_models.py:Prints --input 1,3,16,16 --no-pictures --format json")[1])


# -- findings and exit codes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code", "finding"),
    [
        (f"{SAMPLES}/sick.py:nan_weight --image {SCENES}/00-circle.png --size 64 --method all", 1, "output-nonfinite"),
        ("cam_models.py:Broken --input 1,3,16,16", 1, "output-nonfinite"),
        ("cam_models.py:Fresh --input 1,3,16,16", 0, "untrained"),
        ("cam_models.py:Fresh --input 1,3,16,16 --fail-on warning", 1, "untrained"),
        ("cam_models.py:Meter --input 1,3,16,16 --target 2 --layer act", 0, "negative-evidence"),
        ("cam_models.py:Meter --input 1,3,16,16 --method eigencam --target 0", 0, "class-blind"),
        (f"{SAMPLES}/sick.py:nan_weight --image {SCENES}/00-circle.png --size 64", 1, "output-nonfinite"),
        (f"{SAMPLES}/sick.py:healthy --image {SCENES}/00-circle.png --size 64", 0, None),
    ],
)
def test_findings_and_exit_codes(cli, line, code, finding):
    status, out = cli(f"{line} --no-pictures --format json")
    findings = json.loads(out)["findings"]
    assert status == code and (finding is None or finding in {found["code"] for found in findings})
    assert status == any(found["severity"] == "error" for found in findings) or "--fail-on" in line


@pytest.mark.parametrize("form", ["markdown", "github", "table"])
def test_other_formats(cli, form):
    code, out = cli(f"cam_models.py:Meter --input 1,3,16,16 --method gradcam,layercam --no-pictures --format {form}")
    assert code == 0 and ("Grad-CAM" in out or form == "github") and out


# -- mistakes -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("cam_models.py:Meter", "nothing to look at"),
        ("cam_models.py:Meter --image none.png", "none.png"),
        ("cam_models.py:Meter --image a.png --input 1,3,8,8", "both say what goes in"),
        ("cam_models.py:Meter --image a.png --method gradcat", "gradcat"),
        ("cam_models.py:Meter --image a.png --method gradcam,", None),
        ("cam_models.py:Meter --image a.png --size 64 --layer nope", "no layer named 'nope'"),
        ("cam_models.py:Meter --image a.png --size 64 --layer head", "no grid"),
        ("cam_models.py:Meter --image a.png --size 64 --layer 7", "7"),
        ("cam_models.py:Meter --image a.png --size 64 --target 3", "3"),
        ("cam_models.py:Meter --image a.png --size 64 --target cat", "names of the classes are not known"),
        ("cam_models.py:Meter --image a.png --size 64 --names two.txt --target cat", "names|cat"),
        ("cam_models.py:Meter --image a.png --size 64 --names none.txt", "none.txt"),
        ("cam_models.py:Meter --image a.png --size 64 --boxes two.txt", "two.txt"),
        ("cam_models.py:Meter --image a.png --size 64 --boxes none.json", "none.json"),
        ("cam_models.py:Meter --input 1,3,16,16 --boxes none.json", "none.json|about pictures"),
        ("cam_models.py:Meter --input 1,3,16,16 --against a.png", "about pictures"),
        ("cam_models.py:Meter --image a.png --size 64 --against none.png", "none.png"),
        ("cam_models.py:Meter --image a.png --size 64 --point 3", "is no place"),
        ("cam_models.py:Meter --image a.png --size 64 --point -1,5", "lies on no photo"),
        ("cam_models.py:Meter --image a.png --size 64 --point 1,5", "leave --point out|nothing about single places"),
        ("cam_models.py:Meter --image a.png --size 64 --output logits", "logits"),
        ("cam_models.py:Meter --image a.png --size 64 --scale huge", "huge"),
        ("cam_models.py:Meter --image a.png --size 64 --method legrad", "attention"),
        ("cam_models.py:Meter --image a.png --size 64 --method cam --layer cells", "CAM needs"),
        ("cam_models.py:Meter --input 1,4,16,16", "cells"),
        ("cam_models.py:Meter --input x.pt", "holds no samples"),
        ("cam_models.py:Raises --input 1,3,16,16", "raised: ValueError: first line second line"),
        ("cam_models.py:Single --image a.png --size 64 --method scorecam", "raised: ValueError: one picture at a time"),
        ("cam_models.py:Single --image a.png --size 64 --score", "raised: ValueError: one picture at a time"),
        ("cam_models.py:Text --input 1,3,16,16", "no floating numbers"),
        ("cam_models.py:Tokens --input 1,4", "on a grid"),
        ("cam_models.py:Meter --input 1,3,16,16 --device cuda:99", "cuda"),
        ("cam_models.py:Meter --input 1,3,16,16 --show --no-pictures", "--no-pictures makes none"),
        ("cam_models.py:Meter --image a.png --size 64 --out cam_models.py", "folder"),
        ("cam_models.py:Meter --image a.png --size 64 --out foreign", "was not written by netlens"),
        ("cam_models.py:Meter --image a.png --size 64 --out numbers --raw", "was not written by netlens"),
    ],
)
def test_a_mistake_ends_in_an_error_that_names_it(cli, folder, line, error):
    Path("two.txt").write_text("dog\nbird\n")
    torch.save(torch.empty(0, 3, 16, 16), "x.pt")
    for name, file in (("foreign", "gradcam-Meter-a.png"), ("numbers", "gradcam-Meter-a-0-gradcam.npy")):
        Path(name).mkdir()
        Image.new("RGB", (3, 3)).save(Path(name, file), format="PNG")
        Image.new("RGB", (3, 3)).save(Path(name, file.replace("-0-", "-1-")), format="PNG")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if error is None:
        assert cli(f"{line} --size 64 --no-pictures")[0] == 0
    else:
        with pytest.raises(NetlensError, match=error) as raised:
            cli(line)
        assert raised.value.hint and "\n" not in raised.value.message + raised.value.hint
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts} == before


@pytest.mark.parametrize("line", ["cam_models.py:Exits --input 1,3,16,16", "cam_models.py:Meter --input 1,3,16,16 --target 9"])
def test_mistakes_are_two_lines_in_a_shell(netlens, folder, line):
    done = netlens("gradcam", *line.split(), cwd=folder)
    first, second = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "") and first.startswith("error: ") and second.startswith("hint: ")
    assert not (folder / "netlens-out").exists()


def test_nothing_but_notes_on_stderr(netlens, folder):
    """No warnings of torch: what the user did not do he need not read."""
    done = netlens("gradcam", *f"cam_models.py:Meter --image a.png --size 64 {HALVES} --method all --score --sanity".split(), cwd=folder)
    told = [line for line in done.stderr.splitlines() if line]
    assert done.returncode == 0 and all(line.startswith(("wrote ", "note: ")) or " seconds" in line or "Score-CAM" in line for line in told)
