"""`netlens featuremaps` as a careless user types it: what it answers, what it writes, and how its mistakes end."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from netlens.cli.app import run
from netlens.errors import NetlensError

REPOSITORY = Path(__file__).parents[2]
SICK = REPOSITORY / "sample_models" / "sick.py"
SCENES = sorted((REPOSITORY / "sample_models" / "scenes").glob("*.png"))

MODELS = """
import sys
import torch
from torch import nn

class Wide(nn.Module):
    def __init__(self, first=5):
        super().__init__()
        self.conv, self.head = nn.Conv2d(first, 2, 1), nn.Linear(2, 3)
    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))

def rgb(): return Wide(3)
def grey(): return Wide(1)

class Raises(Wide):
    def forward(self, x):
        super().forward(x)
        raise ValueError("first line\\nsecond line")

class Exits(Wide):
    def forward(self, x):
        sys.exit(0)

class Prints(Wide):
    def forward(self, x):
        print("hello")
        return super().forward(x)

class Nothing(Wide):
    def forward(self, x):
        super().forward(x)

class Hungry(Wide):
    largest = 3
    def forward(self, x):
        if len(x) > self.largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return super().forward(x)

class Numbers(torch.utils.data.Dataset):
    def __len__(self): return 6
    def __getitem__(self, i): return torch.full((5, 2, 2), float(i)), i

class Lost(Numbers):
    def __getitem__(self, i):
        if i == 4: raise KeyError("lost")
        return super().__getitem__(i)
"""

Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "fm_models.py").write_text(MODELS)
    torch.manual_seed(0)
    torch.save(torch.randn(4, 5, 3, 4), tmp_path / "x.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run one command line in this process; NetlensErrors are raised."""

    def ask(line: str, *more: str) -> tuple[int, str]:
        arguments: Sequence[str] = ["featuremaps", *line.split(), *more]
        monkeypatch.setattr(sys, "argv", ["netlens", *arguments])
        capfd.readouterr()
        code = run(arguments)
        return code, capfd.readouterr().out

    return ask


def document(cli: Cli, line: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli(f"{line} --format json")[1])
    return found


def test_statistics_are_numpys_on_the_saved_tensors(cli, folder):
    report = document(cli, "fm_models.py:Wide --input x.pt --no-pictures --seed 3")["report"]
    torch.manual_seed(3)
    conv, head = nn.Conv2d(5, 2, 1), nn.Linear(2, 3)  # as the constructor does, in its order
    weight, bias = (tensor.detach().double().numpy() for tensor in (conv.weight[:, :, 0, 0], conv.bias))
    x = torch.load(folder / "x.pt").double().numpy()
    y = np.einsum("oc,nchw->nohw", weight, x) + bias[:, None, None]
    rows = {row["name"]: row for row in report["layers"]}
    for name, values in (("conv", y), (":relu", y.clip(0))):
        row = rows[name]
        found = [row[key] for key in ("mean", "std", "rms", "least", "greatest")]
        expected = [values.mean(), values.std(), math.sqrt((values**2).mean()), values.min(), values.max()]
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-7)
        assert row["percentiles"] == pytest.approx(np.percentile(values, (1, 5, 25, 50, 75, 95, 99)), rel=1e-4, abs=1e-6)
        assert row["samples"] == 4 and row["elements"] == values.size
        assert row["zeros"] == pytest.approx((values == 0).mean())
    scores = y.clip(0).mean((2, 3)) @ head.weight.detach().double().numpy().T + head.bias.detach().double().numpy()
    likely = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    output = report["output"]
    assert output["top_probability"] == pytest.approx(likely.max(1).mean(), rel=1e-5)
    assert output["entropy"] == pytest.approx(-(likely * np.log(likely)).sum(1).mean() / math.log(3), rel=1e-5)
    assert output["predicted"] == len(set(scores.argmax(1)))
    assert output["between"] == pytest.approx(scores.var(0).mean() / (scores**2).mean(), rel=1e-4)


def test_a_pixel_of_a_written_map_inverts_to_the_activation(cli, folder):
    torch.save(torch.load("x.pt")[:1], "one.pt")
    code, _ = cli("fm_models.py:Wide --input one.pt --layer conv --out maps")
    with Image.open(folder / "maps" / "featuremaps-Wide-conv.png") as image:
        pixels, facts = np.array(image), image.info
    torch.manual_seed(0)
    with torch.no_grad():
        values = nn.Conv2d(5, 2, 1)(torch.load("one.pt"))[0].double().numpy()  # (2, 3, 4)
    levels = np.rint(values / np.abs(values).max() * 119) + 119  # blue is negative, white zero, red positive: 119 steps each
    assert code == 0 and all(found(pixels, each) for each in levels) and not found(pixels, levels[0][::-1])
    assert facts["Layer"] == "conv" and facts["Model"] == "fm_models.py:Wide" and facts["Method"] == "maps"
    assert facts["Software"].startswith("netlens ") and "--layer conv" in facts["Command"]
    assert facts["Scale"] == f"±{np.abs(values).max():.3g}, common"


def found(pixels: np.ndarray, levels: np.ndarray) -> bool:
    """Tell whether these numbers stand somewhere in a picture, each as a square of equal pixels."""
    rows, columns = levels.shape
    for zoom in range(1, 200):
        height, width = pixels.shape[0] - rows * zoom + 1, pixels.shape[1] - columns * zoom + 1
        if min(height, width) <= 0:
            return False
        here = np.ones((height, width), bool)
        for row in range(rows):
            for column in range(columns):
                for edge in (0, zoom - 1):
                    y, x = row * zoom + edge, column * zoom + edge
                    here &= pixels[y : y + height, x : x + width] == levels[row, column]
        if here.any():
            return zoom > 1
    return False


def test_the_same_question_gives_the_same_bytes_and_another_seed_others(cli, folder):
    lines = [f"fm_models.py:rgb --image {SCENES[0]} --size 16 --seed {seed} --format json" for seed in (0, 0, 1)]
    answers = []
    for line in lines:
        _, out = cli(line)
        answers.append((out, {path.name: path.read_bytes() for path in (folder / "netlens-out").iterdir()}))
    assert answers[0] == answers[1] and answers[0][1]
    assert answers[0][0] != answers[2][0]


@pytest.mark.parametrize(
    ("options", "source"),
    [
        ("fm_models.py:rgb --size 20,30", "--size, assumed: ImageNet's mean and std: covering 20 x 30"),
        ("fm_models.py:rgb --size 16 --mean 0.5 --std 0.25", "mean 0.5, 0.5, 0.5; std 0.25, 0.25, 0.25"),
        ("squeezenet1_1 --layer 0", "SqueezeNet1_1_Weights.IMAGENET1K_V1: shorter side to 256, middle 224 x 224"),
        (
            f"{REPOSITORY / 'sample_models' / 'shapes.py'}:ShapeNet --checkpoint {REPOSITORY}/sample_models/weights/shapenet.safetensors",
            "metadata of shapenet.safetensors",
        ),
        ("fm_models.py:grey --size 8", "mean"),
    ],
)
def test_the_report_says_where_the_preprocessing_comes_from(cli, options, source):
    run_ = document(cli, f"{options} --image {SCENES[0]} --no-pictures --fail-on never")["report"]["run"]
    assert source in run_["preprocessing"] and run_["samples"] == 1 and not run_["random_inputs"]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "P", "1", "I;16"])
def test_pictures_of_every_mode_go_in(cli, folder, mode):
    name = "p.jpg" if mode == "CMYK" else "p.png"
    wide = Image.fromarray(np.full((9, 7), 30000, np.uint16)) if mode == "I;16" else Image.new("RGB", (7, 9), (200, 100, 50)).convert(mode)
    wide.save(folder / name)
    assert document(cli, f"fm_models.py:rgb --image {name} --size 8 --no-pictures")["report"]["inputs"] == name


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("fm_models.py:rgb --image none.png", "none.png"),
        ("fm_models.py:rgb --image empty", "holds no picture"),
        ("fm_models.py:rgb --image text.png --size 8", "is a text, not a picture"),
        ("fm_models.py:rgb --image cut.png --size 8", "damaged or truncated"),
        ("fm_models.py:Wide --image cut.png --size 8", "takes pictures of 5 channels"),
        ("fm_models.py:Wide --input pickle.pt", "holds no tensor"),
        ("fm_models.py:Wide --input objects.npy", "could run code"),
        ("fm_models.py:Wide --input zero.pt", "holds no samples"),
        ("fm_models.py:Wide --input 4,3,8,8", r"layer `conv` Conv2d expects \(N, 5, H, W\), got \(4, 3, 8, 8\)"),
        ("fm_models.py:Wide --input x.pt --input 4,5,8,8", "both a file and a shape"),
        ("fm_models.py:Wide --input x.pt --data empty", "both say what goes in"),
        ("fm_models.py:Wide --input x.pt --samples 2", "--samples limits --data"),
        ("fm_models.py:Wide --input x.pt --channels 9:", "no layer has so many"),
        ("fm_models.py:Wide --input x.pt --layer nope", "no layer named 'nope'"),
        ("fm_models.py:Wide --input x.pt --device meta", "computes nothing"),
        ("fm_models.py:Wide --input x.pt --query 1,2,3", "neither a patch nor a token"),
        ("fm_models.py:Wide --input 9999999,5,9999,9999", "more than any machine holds"),
        ("fm_models.py:Wide --data fm_models.py:Lost", r"sample 4 of .* raised KeyError: 'lost'"),
        ("fm_models.py:Raises --input x.pt", "the forward of Raises raised: ValueError: first line second line"),
        ("weights.pt", "holds weights, not a program"),
        ("script.pt", "--trust-checkpoint|is a program"),
    ],
)
def test_a_mistake_ends_in_an_error_that_names_it(cli, folder, line, error):
    (folder / "empty").mkdir()
    (folder / "text.png").write_text("no picture")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save("whole.png")
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:900])
    torch.save(Evil(), "pickle.pt")
    np.save("objects.npy", np.array([{}], object), allow_pickle=True)
    torch.save(torch.empty(0, 5, 2, 2), "zero.pt")
    torch.save(nn.Linear(2, 2).state_dict(), "weights.pt")
    torch.jit.script(nn.Linear(2, 2)).save("script.pt")
    with pytest.raises(NetlensError, match=error) as raised:
        cli(line)
    assert raised.value.hint and not (folder / "ran").exists() and not (folder / "netlens-out").exists()


class Evil:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path("ran").touch, ()


@pytest.mark.parametrize("line", ["fm_models.py:Exits --input 2,5,2,2", "fm_models.py:Raises --input 2,5,2,2"])
def test_mistakes_are_two_lines_in_a_shell(netlens, folder, line):
    done = netlens("featuremaps", *line.split(), cwd=folder)
    first, second = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "") and first.startswith("error: ") and second.startswith("hint: ")


def test_what_the_model_prints_is_not_in_the_report(cli):
    json.loads(cli("fm_models.py:Prints --input x.pt --no-pictures --format json")[1])


def test_a_model_without_an_output_is_measured_inside(cli):
    report = document(cli, "fm_models.py:Nothing --input x.pt")["report"]
    assert report["output"] is None and [row["name"] for row in report["layers"]] == ["conv", ":relu", "head"]


def test_a_data_set_is_run_in_one_pass_and_limited_evenly(cli):
    report = document(cli, "fm_models.py:Wide --data fm_models.py:Numbers --samples 3 --batch-size 2 --no-pictures")["report"]
    assert report["run"]["samples"] == 3
    assert report["run"]["input_rms"] == pytest.approx(math.sqrt((0 + 4 + 16) / 3))  # samples 0, 2 and 4


def test_auto_batch_halves_until_it_fits_and_says_so(cli):
    line = "fm_models.py:Hungry --input 8,5,2,2 --no-pictures"
    report = document(cli, f"{line} --auto-batch")["report"]
    assert report["run"]["samples"] == 8 and any("run with --batch-size 2" in note for note in report["notes"])
    with pytest.raises(NetlensError, match="out of memory"):
        cli(line)


def test_attention_of_a_model_without_any_is_a_note(cli):
    report = document(cli, "fm_models.py:Wide --input x.pt --attention --no-pictures")["report"]
    assert report["attention"] == [] and any("attention" in note for note in report["notes"])


def test_an_input_with_nan_is_drawn_and_found(cli, folder):
    x = torch.randn(2, 3, 4, 4)
    x[1, 0, 0, 0] = torch.nan
    torch.save(x, "nan.pt")
    code, out = cli("fm_models.py:rgb --input nan.pt --format json")
    assert code == 1 and json.loads(out)["report"]["layers"][0]["nan"] == 2  # the pixel in both channels
    assert (folder / "netlens-out" / "featuremaps-rgb-conv.png").exists()


@pytest.mark.parametrize(
    ("twin", "code", "least"),
    [("healthy", None, 0), ("nan_weight", "act-nonfinite", 1), ("dead_relu", "dead-relu", 0), ("constant_output", "input-ignored", 1)],
)
def test_a_sick_twin_has_its_finding_and_its_exit_code(cli, twin, code, least):
    status, out = cli(f"{SICK}:{twin} --image {SCENES[0].parent} --size 64 --no-pictures --format json")
    findings = json.loads(out)["findings"]
    errors = [finding for finding in findings if finding["severity"] == "error"]
    assert status == bool(errors) and status >= least
    assert (code is None and not errors) or code in {finding["code"] for finding in findings}


def test_layers_are_taken_by_name_index_glob_type_and_function(cli):
    for pattern, names in {"conv": ["conv"], "0": ["conv"], "Linear": ["head"], ":relu": [":relu"], "h*": ["head"], "-1": ["head"]}.items():
        report = document(cli, f"fm_models.py:Wide --input x.pt --no-pictures --layer {pattern}")["report"]
        assert [row["name"] for row in report["layers"]] == names, pattern


@pytest.mark.parametrize("options", ["--dtype bf16", "--autocast bf16", "--channels-last", "--dtype fp64"])
def test_the_report_says_how_numbers_were_computed(cli, options):
    run_ = document(cli, f"fm_models.py:Wide --input x.pt --no-pictures {options}")["report"]["run"]
    expected = {
        "--dtype bf16": ("bfloat16", None, False),
        "--dtype fp64": ("float64", None, False),
        "--autocast bf16": ("float32", "bf16", False),
    }
    assert (run_["dtype"], run_["autocast"], run_["channels_last"]) == expected.get(options, ("float32", None, True))


def test_defaults_of_the_repository_are_taken_and_the_command_line_overrides_them(cli, folder):
    table = '[tool.netlens]\ndtype = "bf16"\nautocast = "bf16"\nchannels-last = true\nbatch-size = 2\nauto-batch = true\ndevice = "meta"'
    (folder / ".git").mkdir()
    (folder / "pyproject.toml").write_text(table)
    line = "fm_models.py:Hungry --input 4,5,2,2 --no-pictures"  # it takes 3 samples at once

    def how(options: str) -> tuple[str, str | None, bool]:
        run_ = document(cli, f"{line} {options}")["report"]["run"]
        return run_["dtype"], run_["autocast"], run_["channels_last"]

    assert how("") == ("bfloat16", "bf16", True)
    assert how("--dtype fp32 --autocast off --no-channels-last") == ("float32", None, False)
    assert any("--batch-size 2" in note for note in document(cli, f"{line} --batch-size 4")["report"]["notes"])
    with pytest.raises(NetlensError, match="out of memory"):
        cli(f"{line} --batch-size 4 --no-auto-batch")


def test_every_picture_says_where_it_comes_from(cli, folder):
    line = f"fm_models.py:rgb --image {SCENES[0]} --size 16 --mean 0.5 --std 0.25 --seed 3"
    cli(line)
    files = list((folder / "netlens-out").iterdir())
    assert len(files) > 3
    for file in files:
        with Image.open(file) as image:
            texts = image.info
        assert texts["Command"] == f"netlens featuremaps {line}" and texts["Software"].startswith("netlens ")
        assert (texts["Model"], texts["Seed"], texts["Inputs"]) == ("fm_models.py:rgb", "3", SCENES[0].name)
        assert texts["Weights"] == "as initialised with seed 3: nothing has been learned yet"
        assert "mean 0.5, 0.5, 0.5; std 0.25, 0.25, 0.25" in texts["Preprocessing"] and "Method" in texts
        assert texts["Dtype"] == "float32" and "Autocast" not in texts


def test_without_pictures_no_folder_is_needed_and_none_are_shown(cli, folder):
    (folder / "netlens-out").write_text("a file")
    assert cli("fm_models.py:Wide --input x.pt --no-pictures --fail-on never")[0] == 0
    with pytest.raises(NetlensError, match="--no-pictures makes none"):
        cli("fm_models.py:Wide --input x.pt --no-pictures --show")
