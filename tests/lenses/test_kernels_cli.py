"""`netlens kernels` end to end: what a user types, what is printed, what is written, and what is left alone."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.utils import parametrizations

import netlens as api
from netlens import __version__
from netlens.cli.app import run as run_here
from netlens.errors import NetlensError
from netlens.lenses.kernels import figures
from tests import schemas
from tests.conftest import REPOSITORY, Result, Shell
from tests.test_cli import on_a_terminal
from tests.test_untouched import differences, state_of, state_of_the_process

SAMPLES = REPOSITORY / "sample_models"
NETS = """
from pathlib import Path

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 5)
        self.norm = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6)
        self.mix = nn.Conv2d(6, 8, 1)
        self.head = nn.Linear(8, 4)


def loaded():
    net = Net()
    net.load_state_dict(torch.load(Path(__file__).parent / "net.pt"), assign=True)
    return net


def sick():
    net = Net()
    net.mix.weight.data[2, 1] = float("nan")
    return net
"""


def net() -> nn.Module:
    """The same as in NETS."""
    model = nn.Module()
    model.stem, model.norm = nn.Conv2d(3, 6, 5), nn.BatchNorm2d(6)
    model.depthwise, model.mix, model.head = nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 8, 1), nn.Linear(8, 4)
    return model


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, torch.Tensor]]:
    """Two state dicts, as of one training; `mix` did not move."""
    torch.manual_seed(3)
    one = net().state_dict()
    other = {name: value + 0.1 * torch.randn(value.shape) if value.is_floating_point() else value for name, value in one.items()}
    return {"net": one, "moved": {**other, "mix.weight": one["mix.weight"]}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, states: dict[str, dict[str, torch.Tensor]]) -> Path:
    """A folder with `nets.py` and checkpoints of it."""
    found = tmp_path_factory.mktemp("kernels")
    (found / "nets.py").write_text(NETS)
    (found / "run2").mkdir()
    for name, state in states.items():
        torch.save(state, found / f"{name}.pt")
    one = states["net"]
    torch.save(states["moved"], found / "run2" / "net.pt")
    torch.save({name: value for name, value in one.items() if not name.startswith("mix")}, found / "partly.pt")
    torch.save({name: torch.zeros(*value.shape, 2) for name, value in one.items()}, found / "reshaped.pt")
    model = net()
    model.load_state_dict(one)
    optimizer = torch.optim.Adam(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    torch.save({"model": one, "ema": states["moved"], "optimizer": optimizer.state_dict()}, found / "all.pt")
    return found


@pytest.fixture
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a command line in this process, with torch at hand; pictures go to an empty folder."""

    def run(*arguments: str) -> Result:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["netlens", "kernels", *arguments])
        out = () if "--out" in arguments or "--no-pictures" in arguments else ("--out", str(tmp_path / "out"))
        capfd.readouterr()
        code = run_here(["kernels", *arguments, *out])
        return Result(code, *capfd.readouterr(), frozenset())

    return run


def document(done: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout, parse_constant=pytest.fail)
    return found


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {layer["name"]: layer for layer in found["report"]["layers"]}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- pictures of a checkpoint alone


@pytest.fixture(scope="module")
def drawn(netlens: Shell, folder: Path) -> tuple[Result, dict[str, Path]]:
    """Draw a checkpoint, as a user's shell does."""
    done = netlens("kernels", "net.pt", "--format", "json", "--out", "drawn", "--fft", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done, {path.name: path for path in (folder / "drawn").iterdir()}


def test_the_report_lists_the_files_that_are_there_and_stderr_tells_them(drawn, folder):
    done, files = drawn
    listed = {Path(picture["file"]).name: picture for picture in document(done)["report"]["pictures"]}
    assert set(listed) == set(files) and len(files) == 6  # three convolutions, a spectrum, the sheet and the histograms
    assert done.stderr == "".join(f"wrote {picture['file']}\n" for picture in document(done)["report"]["pictures"])
    for name, picture in listed.items():
        assert Image.open(files[name]).size == (picture["width"], picture["height"])


def test_every_picture_says_where_it_comes_from(drawn):
    done, files = drawn
    for picture in document(done)["report"]["pictures"]:
        texts = Image.open(files[Path(picture["file"]).name]).text
        assert texts["Software"] == f"netlens {__version__}"
        assert texts["Command"] == "netlens kernels net.pt --format json --out drawn --fft"
        assert (texts["Model"], texts["Seed"], texts["Weights"]) == ("net.pt", "0", "net.pt")
        assert (texts["Method"], texts["Scale"]) == (picture["shows"], picture["scale"])
        assert texts.get("Layer") == (picture["layers"][0] if len(picture["layers"]) == 1 else None)


@pytest.mark.parametrize("name", ["stem", "depthwise", "mix"])
def test_a_pixel_inverts_to_the_weight_that_it_shows(drawn, states, name):
    """Each tile is found in the file by the weights alone: nothing here knows where tiles are or how large."""
    done, files = drawn
    weight = states["net"][f"{name}.weight"].double().numpy()
    (picture,) = (p for p in document(done)["report"]["pictures"] if p["layers"] == [name] and p["shows"] == "filters")
    image = Image.open(files[Path(picture["file"]).name])
    limit = float(re.fullmatch(r"±(\S+), common", image.text["Scale"])[1])
    assert limit == pytest.approx(np.abs(weight).max(), rel=0.005)  # written with three digits

    pixels = np.asarray(image).astype(float)
    if name == "stem":  # red, green and blue in 1..255, 128 is 0
        values, tiles = (pixels - 128) / 127 * limit, np.moveaxis(weight, 1, -1)
    else:  # a palette of 239 colours, the middle one is 0; what is above are greys
        values = np.where(pixels > 238, np.nan, (pixels - 119) / 119 * limit)[..., None]
        tiles = weight.reshape(1, 8, 6, 1) if name == "mix" else weight.reshape(6, 3, 3, 1)
    step = limit / 119 / 2 + 0.005 * limit  # half a colour, and what the text of the limit leaves out
    for tile in tiles:
        zoom, places = found_in(values, tile, step)
        assert zoom >= 5 and len(places) == 1, (zoom, places)


def found_in(values: np.ndarray, tile: np.ndarray, step: float) -> tuple[int, list[tuple[int, int]]]:
    """Return how far the tile is enlarged and where it stands; every enlarged pixel is looked at."""
    for zoom in range(48, 2, -1):
        wanted = tile.repeat(zoom, 0).repeat(zoom, 1)
        rows, columns = (values.shape[axis] - wanted.shape[axis] + 1 for axis in (0, 1))
        if min(rows, columns) < 1:
            continue
        may = np.ones((rows, columns), bool)
        for y in range(0, wanted.shape[0], zoom):
            for x in range(0, wanted.shape[1], zoom):
                may &= (np.abs(values[y : y + rows, x : x + columns] - wanted[y, x]) <= step).all(-1)
        places = [
            (y, x)
            for y, x in zip(*np.nonzero(may), strict=True)
            if (np.abs(values[y : y + wanted.shape[0], x : x + wanted.shape[1]] - wanted) <= step).all()
        ]
        if places:
            return zoom, places
    return 0, []


def test_the_same_command_line_gives_the_same_bytes(drawn, netlens, folder):
    before = contents(folder / "drawn")
    again = netlens("kernels", "net.pt", "--format", "json", "--out", "drawn", "--fft", cwd=folder, env={"PYTHONHASHSEED": "7"})
    assert again.stdout == drawn[0].stdout
    assert contents(folder / "drawn") == before


def test_the_document_with_pictures_and_changes_follows_the_schema(drawn, here):
    jsonschema = pytest.importorskip("jsonschema", reason="in the dev extra")
    schema = json.loads(schemas.path("kernels").read_text(encoding="utf-8"))
    for done in (drawn[0], here("net.pt", "--against", "moved.pt", "--format", "json"), here("nets.py:sick", "--format", "json")):
        found = document(done)
        assert found["schema"] == "netlens.kernels/1" and found["report"]["pictures"]
        jsonschema.validate(found["report"], schema)


def test_statistics_of_a_checkpoint_alone_are_those_of_the_weights(drawn, states):
    layers = by_name(document(drawn[0]))
    assert list(layers) == ["stem", "depthwise", "mix", "head"]
    for name, layer in layers.items():
        weight = states["net"][f"{name}.weight"].double().numpy()
        rows = weight.reshape(len(weight), -1)
        sigma = np.linalg.svd(rows, compute_uv=False)
        wanted = {
            "mean": weight.mean(),
            "std": weight.std(),
            "norm": np.sqrt((weight**2).sum()),
            "gain": np.sqrt((weight**2).mean() * rows.shape[1]),
            **({} if name == "depthwise" else {"stable_rank": (sigma**2).sum() / sigma[0] ** 2}),  # depthwise: groups of one filter
        }
        assert {key: layer[key] for key in wanted} == pytest.approx(wanted, rel=1e-5), name
        assert (layer["shape"], layer["filters"], layer["groups"]) == (list(weight.shape), len(weight), 6 if name == "depthwise" else 1)


# A fresh model knows its own initialisation, a file only torch's default; and what is trainable is the test below.
UNLIKE = ("initial_std", "initial_source", "trainable")


def test_a_checkpoint_alone_is_measured_as_the_model_with_it(drawn, netlens, folder):
    done = netlens("kernels", "nets.py:Net", "--checkpoint", "net.pt", "--no-pictures", "--format", "json", cwd=folder)
    alone, model = by_name(document(drawn[0])), by_name(document(done))
    assert (done.returncode, document(done)["report"]["source"], list(alone)) == (0, "net.pt", list(model))
    compared = 0
    for name, layer in alone.items():
        for key, value in layer.items():
            known = value not in (None, "") and model[name][key] not in (None, "")
            if known and key not in UNLIKE:
                assert value == model[name][key], (name, key)
                compared += 1
    assert compared > 4 * 20


def test_a_state_dict_does_not_say_what_is_trainable(drawn):
    assert {layer["trainable"] for layer in by_name(document(drawn[0])).values()} == {None}


# --- files of others


def test_a_strangers_file_stops_it_before_anything_is_written(here, folder, tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    stranger = out / f"kernels-{folder.name}-net.pt-sheet.png"  # the last but one that would be written
    Image.new("RGB", (4, 4)).save(stranger)
    before = contents(out)

    with pytest.raises(NetlensError) as refused:
        here(f"{folder}/net.pt", "--out", str(out))
    assert str(stranger) in refused.value.message and "--overwrite" in refused.value.hint
    assert contents(out) == before

    assert here(f"{folder}/net.pt", "--out", str(out), "--overwrite").returncode == 0
    assert contents(out)["notes.txt"] == b"mine" and Image.open(stranger).text["Method"] == "sheet"


def test_ctrl_c_leaves_whole_pictures_only(here, tmp_path, monkeypatch):
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(figures, "sheet", interrupted)
    with pytest.raises(KeyboardInterrupt):
        here("net.pt", "--out", str(tmp_path / "out"))
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".png"] * 3
    for path in (tmp_path / "out").iterdir():
        Image.open(path).load()


def test_without_pictures_no_folder_is_needed(here, folder):
    before = contents(folder)
    done = here("net.pt", "--no-pictures", "--out", "nets.py")
    assert (done.returncode, done.stderr, contents(folder)) == (0, "", before)


def test_out_may_be_in_the_home_folder(here, tmp_path, monkeypatch):
    """`--out=~/pictures` reaches netlens as it is written, and so does a path in pyproject.toml."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert here("net.pt", "--out", "~/pictures").returncode == 0
    assert len(list((tmp_path / "pictures").iterdir())) == 5
    assert not Path("~").exists()


# --- mistakes


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("net.pt --against reshaped.pt", "net.pt and reshaped.pt have no weight of the same name and shape"),
        ("all.pt --key optimizer", "'optimizer' of all.pt is the state of an optimizer"),
        ("all.pt --key elsewhere", "all.pt has no tensors under the key 'elsewhere'"),
        ("net.pt --show --no-pictures", "--show draws pictures, and --no-pictures makes none"),
        ("net.pt --layer convolution", "no layer named 'convolution'"),
        ("net.pt --layer 4", "no layer has the index 4"),
        ("net.pt --model-arg width=3", "--model-arg needs a model, and 'net.pt' is a checkpoint"),
        ("net.pt --reduce median", "--reduce 'median' is not one of mean, largest, pc1"),
        ("net.pt --max-filters 0", "--max-filters '0' is neither a number of filters nor all"),
        ("nets.py:Net --against partly.pt", "partly.pt does not fit: 11 of 13 tensors fit Net"),
        ("nets.py:Net --no-strict", "--no-strict says how to read a checkpoint, and none is given"),
        ("nets.py:Net --weights DEFAULT --checkpoint net.pt", "--weights and --checkpoint both give values"),
    ],
)
def test_mistakes_are_told_in_one_sentence_and_a_hint(here, tmp_path, line, words):
    with pytest.raises(NetlensError) as told:
        here(*line.split())
    assert words in told.value.message, told.value.message
    assert told.value.hint and "\n" not in told.value.message + told.value.hint
    assert not (tmp_path / "out").exists()


# --- which layers, which values


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["conv2d"], ["stem", "depthwise", "mix"]),  # as the table of a checkpoint calls the type
        (["-1"], ["head"]),
        (["1:3"], ["depthwise", "mix"]),
        (["*m*"], ["stem", "mix"]),
        (["head", "stem"], ["stem", "head"]),
    ],
)
def test_layers_are_chosen_and_only_they_are_drawn(here, patterns, names):
    found = document(here("net.pt", "--format", "json", *(word for pattern in patterns for word in ("--layer", pattern))))
    assert list(by_name(found)) == names
    assert [picture["layers"][0] for picture in found["report"]["pictures"] if picture["shows"] == "filters"] == names


def test_an_averaged_copy_is_shown_where_it_is_asked_for(here, states):
    found = by_name(document(here("all.pt", "--key", "ema", "--no-pictures", "--format", "json")))
    assert found["stem"]["mean"] == pytest.approx(float(states["moved"]["stem.weight"].double().mean()), rel=1e-5)


def test_seed_and_defaults_come_from_the_configuration_file(netlens, folder, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.netlens]\nseed = 5\nformat = "json"\nout = "here"\nfail-on = "never"\n')
    done = netlens("kernels", f"{folder / 'nets.py'}:sick", cwd=tmp_path)
    torch.manual_seed(5)
    weight = net().stem.weight.detach()
    assert done.returncode == 0 and document(done)["report"]["source"].startswith("as initialised with seed 5")
    assert by_name(document(done))["stem"]["mean"] == pytest.approx(float(weight.double().mean()), rel=1e-5)
    assert len(list((tmp_path / "here").iterdir())) == 5 and not (tmp_path / "netlens-out").exists()


def test_published_weights_are_read_from_torchs_cache(here, tmp_path, monkeypatch):
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.manual_seed(11)
    state = {name: torch.randn(value.shape) for name, value in squeezenet1_1().state_dict().items()}
    torch.save(state, cache / "new.pth")
    digits = hashlib.sha256((cache / "new.pth").read_bytes()).hexdigest()[:8]
    (cache / "new.pth").rename(cache / f"squeezenet-{digits}.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(SqueezeNet1_1_Weights.DEFAULT.value, "url", f"https://download.invalid/squeezenet-{digits}.pth")

    found = document(here("squeezenet1_1", "--weights", "DEFAULT", "--no-pictures", "--format", "json", "--fail-on", "never"))

    assert found["report"]["source"] == "SqueezeNet1_1_Weights.IMAGENET1K_V1"
    assert len(by_name(found)) == 26
    for name, layer in by_name(found).items():
        wanted = state[f"{name}.weight"].double()
        assert (layer["mean"], layer["std"]) == pytest.approx((float(wanted.mean()), float(wanted.std(correction=0))), rel=1e-4)


# --- comparing


@pytest.mark.parametrize("model", [["net.pt"], ["nets.py:loaded"], ["nets.py:Net", "--checkpoint", "net.pt"]], ids=" ".join)
def test_how_far_weights_moved_is_what_numpy_says(here, states, model):
    done = here(*model, "--against", "moved.pt", "--format", "json")
    layers = by_name(document(done))
    assert (done.returncode, document(done)["report"]["against"]) == (0, "moved.pt")
    for name, layer in layers.items():
        one, other = (states[key][f"{name}.weight"].double().numpy().ravel() for key in ("net", "moved"))
        moved = {
            "relative": np.linalg.norm(one - other) / np.linalg.norm(other),
            "cosine": one @ other / np.linalg.norm(one) / np.linalg.norm(other),
            "largest": np.abs(one - other).max(),
        }
        assert layer["change"] == pytest.approx(moved, rel=1e-5, abs=1e-12), name
    assert layers["mix"]["change"]["relative"] == 0 < layers["stem"]["change"]["relative"]
    (finding,) = document(done)["findings"]
    assert (finding["code"], finding["where"]) == ("weights-unchanged", "mix")
    shown = [picture["shows"] for picture in document(done)["report"]["pictures"]]
    assert shown == ["difference"] * 3 + ["sheet", "histograms"]


def test_what_the_other_checkpoint_leaves_as_built_is_not_compared(here):
    done = here("nets.py:loaded", "--against", "partly.pt", "--no-strict", "--no-pictures", "--format", "json")
    layers = by_name(document(done))
    assert [name for name, layer in layers.items() if layer["change"] is None] == ["mix"]
    assert {layer["change"]["relative"] for layer in layers.values() if layer["change"]} == {0}
    assert any("left as built: mix" in note for note in document(done)["report"]["notes"])


def test_two_files_of_one_name_are_told_apart(here):
    found = document(here("net.pt", "--against", "run2/net.pt", "--no-pictures", "--format", "json"))
    assert found["report"]["against"] == "run2/net.pt"


# --- findings


@pytest.mark.parametrize(
    ("twin", "code", "codes"),
    [
        ("healthy", 0, []),
        ("nan_weight", 1, ["weight-nonfinite"]),
        ("duplicate_filters", 1, ["duplicate-filters"]),
        ("exploding_init", 1, ["init-scale"]),
        ("vanishing_init", 1, ["init-scale"]),
        ("constant_output", 0, ["weight-all-zero"]),
        ("wrong_normalisation", 0, ["bn-stats-stale"]),
        ("frozen_body", 0, ["untrained-filters"]),
        ("dead_relu", 0, []),  # weights do not show it
        ("unused_layer", 0, []),
    ],
)
def test_a_sick_twin_raises_its_own_finding(here, twin, code, codes):
    done = here(f"{SAMPLES / 'sick.py'}:{twin}", "--no-pictures", "--format", "json")
    assert (done.returncode, [finding["code"] for finding in document(done)["findings"]]) == (code, codes)


@pytest.mark.parametrize("name", ["shapenet.safetensors", "shapevit.safetensors", "shapenet-epoch01.ckpt", "shapenet-epoch14.ckpt"])
def test_trained_samples_are_healthy_and_their_untrained_twin_is_known(here, name):
    assert document(here(str(SAMPLES / "weights" / name), "--no-pictures", "--format", "json"))["findings"] == []
    untrained = here(str(SAMPLES / "weights" / "untrained.safetensors"), "--no-pictures", "--format", "json", "--fail-on", "warning")
    assert (untrained.returncode, [finding["code"] for finding in document(untrained)["findings"]]) == (1, ["untrained-filters"])


@pytest.mark.parametrize(("level", "code"), [("error", 1), ("warning", 1), ("never", 0)])
def test_fail_on_decides_about_the_exit_code(here, level, code):
    done = here("nets.py:sick", "--no-pictures", "--fail-on", level)
    assert done.returncode == code
    assert "mix: 1 of 48 weights is not finite [weight-nonfinite]" in done.stdout


# --- in a terminal


def test_show_in_a_pipe_is_one_sentence(here, tmp_path):
    done = here("net.pt", "--show")
    assert done.stderr.splitlines()[-1] == f"--show needs a terminal; the pictures are in {tmp_path / 'out'}/"
    assert "\x1b" not in done.stdout + done.stderr and "▀" not in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_show_draws_in_a_terminal(netlens, folder, tmp_path):
    line = ["kernels", str(folder / "net.pt"), "--show", "--out", str(tmp_path)]
    seen = on_a_terminal(netlens, line, columns=90, env={"TERM": "xterm-256color", "COLORTERM": "truecolor"})
    titles = [line for line in seen.splitlines() if line.startswith(f"{tmp_path}{os.sep}kernels-")]
    assert 1 <= len(titles) <= 4 and titles[0].endswith("-stem.png")
    assert "\x1b[38;2;" in seen and "▀" in seen
    assert "\x1b[6n" not in seen and "\x1b[c" not in seen  # a terminal is never asked: the answer would be typed into the shell
    drawn = re.sub(r"\x1b\[[0-9;]*m", "", seen)
    assert max(len(line) for line in drawn.splitlines() if "▀" in line) <= 90


@pytest.mark.parametrize("columns", [60, 100])
def test_a_table_in_columns_is_no_wider(netlens, folder, columns):
    done = netlens("kernels", "net.pt", "--against", "moved.pt", "--no-pictures", cwd=folder, env={"COLUMNS": str(columns)})
    assert max(map(len, done.stdout.splitlines())) <= columns
    assert ("hidden to fit" in done.stdout) is (columns == 60) and done.stderr == ""


def test_a_closed_pipe_is_no_failure(netlens, folder):
    command, environment = netlens.prepare("kernels", "net.pt", "--no-pictures")
    child = subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    child.stdout.close()  # type: ignore[union-attr]
    assert (child.stderr.read(), child.wait()) == (b"", 0)  # type: ignore[union-attr]


# --- from Python


def zoo() -> Iterator[nn.Module]:
    """Models that reading can change: tied, hooked, with mixed flags, and parametrised: in training a spectral norm iterates when read."""
    torch.manual_seed(0)
    model = net()
    model.norm.eval()
    model.stem.register_forward_hook(lambda *_: None)
    model.head.weight.requires_grad_(False)
    model.mix.weight.grad = torch.ones_like(model.mix.weight)
    parametrizations.weight_norm(model.depthwise)
    parametrizations.spectral_norm(model.mix)
    model.again = model.stem
    yield model
    yield nn.utils.spectral_norm(nn.Conv2d(3, 8, 3))
    yield nn.DataParallel(net())
    yield nn.LSTM(4, 3)


def test_a_model_leaves_as_it_came():
    for model in zoo():
        before, process = state_of(model), state_of_the_process()
        report = api.kernels(model, against=model)
        assert differences(before, state_of(model)) == []
        assert differences(process, state_of_the_process()) == []
        assert {layer.change.relative for layer in report.layers if layer.change} == {0.0}


def test_python_gives_the_numbers_of_the_command_line(here, states):
    model = net()
    model.load_state_dict(states["net"])
    report = api.kernels(model, against=states["moved"])
    found = by_name(document(here("nets.py:loaded", "--against", "moved.pt", "--no-pictures", "--format", "json")))
    assert [layer.name for layer in report.layers] == list(found)
    for layer in report.layers:
        for key in ("mean", "std", "rms", "norm", "least", "greatest", "gain", "largest_cosine", "stable_rank", "smoothness", "outlier"):
            value = getattr(layer, key)
            assert found[layer.name][key] == (value if value is None else pytest.approx(value, rel=1e-12)), (layer.name, key)
        assert found[layer.name]["change"] == {
            "relative": layer.change.relative,
            "cosine": layer.change.cosine,
            "largest": layer.change.largest,
        }


def test_python_draws_nothing_and_prints_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    report = api.kernels(net(), layer="stem")
    assert (report.pictures, [layer.name for layer in report.layers]) == ((), ["stem"])
    assert (list(tmp_path.iterdir()), *capfd.readouterr()) == ([], "", "")
