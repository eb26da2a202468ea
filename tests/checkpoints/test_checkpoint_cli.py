"""`netlens summary MODEL --checkpoint FILE` and `netlens summary PROGRAM --trust-checkpoint`, as a user's shell runs them."""

from __future__ import annotations

import importlib.util
import json
import re
import warnings
from functools import cache
from pathlib import Path

import pytest
import torch

from netlens.errors import UsageError
from netlens.loading.checkpoints.ask import program_of
from netlens.loading.specs import parse_model_spec
from tests.conftest import Shell

NETS = """
from torch import nn

class Net(nn.Module):
    def __init__(self, answers=10, breadth=8):
        super().__init__()
        self.conv = nn.Conv2d(3, breadth, 3)
        self.norm = nn.BatchNorm2d(breadth)
        self.head = nn.Linear(breadth, answers)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).mean((2, 3)))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Write `nets.py` and checkpoints of its model."""
    folder = tmp_path_factory.mktemp("checkpoints")
    (folder / "nets.py").write_text(NETS)
    spec = importlib.util.spec_from_file_location("checkpoint_nets", folder / "nets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net = module.Net
    good, other = net().state_dict(), net(answers=37).state_dict()
    torch.save(good, folder / "good.pth")
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in good.items()}}, folder / "wrapped.pth")
    torch.save(other, folder / "other.pth")
    copy = {name: value.clone() for name, value in good.items()}
    torch.save({"state_dict": good, "state_dict_ema": copy}, folder / "ema.pth")
    evil = {name: value for name, value in good.items() if name != "head.bias"}
    evil["\x1b[31mred\x07\n[bold]markup[/bold]\u202e"] = torch.zeros(1)
    evil |= {f"layer{index}.weight": torch.zeros(1) for index in range(40)}
    torch.save(evil, folder / "evil.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = net().eval()
        torch.export.save(torch.export.export(model, (torch.rand(2, 3, 8, 8),)), folder / "program.pt2")
        torch.jit.script(model).save(str(folder / "program.pt"))
    return folder


@pytest.fixture(scope="module")
def run(netlens: Shell, folder: Path):
    """Run a command line, the same one only once."""
    return cache(lambda line, **env: netlens(*line.split(), cwd=folder, env=env))


def test_a_checkpoint_that_fits_is_noted(run):
    done = run("summary nets.py:Net --input 1,3,8,8 --checkpoint wrapped.pth --format json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["report"]["notes"] == ["wrapped.pth: 9 of 9 tensors fit Net · key `state_dict` · prefix `module.` stripped"]
    assert document["subject"]["checkpoint"] == "wrapped.pth"


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_checkpoint_that_does_not_fit_is_tables_causes_and_two_lines(run, form):
    done = run(f"summary nets.py:Net --input 1,3,8,8 --checkpoint other.pth --format {form}")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert lines[0] == "2 in both, but not the same"
    assert [line.split() for line in lines[3:5]] == [["head.weight", "37,8", "10,8", "axis", "0"], ["head.bias", "37", "10", "axis", "0"]]
    assert lines[-4:-3] == ["1.  built with answers=37, Net takes every tensor of the file: try --model-arg answers=37"]
    assert lines[-2:] == ["error: other.pth does not fit: 7 of 9 tensors fit Net", "hint: try --model-arg answers=37"]


def test_the_hint_works(run):
    assert run("summary nets.py:Net --input 1,3,8,8 --checkpoint other.pth --model-arg answers=37").returncode == 0


def test_without_strictness_the_rest_is_told(run):
    done = run("summary nets.py:Net --input 1,3,8,8 --checkpoint other.pth --no-strict")
    assert done.returncode == 0
    assert "7 of 9 tensors fit Net" in done.stdout and "left as built: head.* (2)" in done.stdout


def test_names_from_the_file_are_shown_harmlessly_and_tables_are_cut(run):
    done = run("summary nets.py:Net --input 1,3,8,8 --checkpoint evil.pth", FORCE_COLOR="1", TERM="xterm-256color")
    assert done.returncode == 2
    assert r"\x1b[31mred\x07\n[bold]markup[/bold]\u202e" in done.stderr
    assert "\x07" not in done.stderr and "\x1b[31m" not in done.stderr and "\u202e" not in done.stderr
    lines = done.stderr.splitlines()
    start = lines.index("41 unexpected in the checkpoint")
    assert lines[start + 13] == "… and 31 more" and lines[start + 12].startswith("layer8.weight")


def test_averaged_weights_are_mentioned_and_taken_by_name(run):
    line = "summary nets.py:Net --input 1,3,8,8 --checkpoint ema.pth"
    assert "also holds averaged weights (EMA): --key state_dict_ema" in run(line).stdout
    assert "key `state_dict_ema`" in run(f"{line} --key state_dict_ema").stdout


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("summary nets.py:Net --checkpoint nowhere.pth", "nowhere.pth"),
        ("summary nets.py:Net --checkpoint nets.py", "nets.py"),
        ("summary nets.py:Net --checkpoint good.pth --key model", "has no keys"),
        ("summary nets.py:Net --checkpoint ema.pth --key state_dct", "no tensors under the key 'state_dct'"),
        ("summary nets.py:Net --strip-prefix module.", "--strip-prefix"),
        ("summary nets.py:Net --no-strict", "--no-strict"),
        ("summary nets.py:Net --trust-checkpoint", "--trust-checkpoint"),
        ("summary good.pth --trust-checkpoint", "holds weights, not a program"),
        ("summary good.pth --trust-checkpoint", "netlens summary MODEL --checkpoint good.pth"),
        ("featuremaps good.pth", "netlens featuremaps MODEL --checkpoint good.pth"),
    ],
)
def test_mistakes_are_two_lines_told_before_torch_is_imported(run, line, words):
    done = run(line)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: .+\nhint: .+\n", done.stderr) and words in done.stderr, done.stderr
    assert "torch" not in done.modules


@pytest.mark.parametrize(
    ("name", "classes", "words"),
    [
        ("resnet18", 1000, "resnet18"),
        ("resnet18", 37, "resnet18 --model-arg num_classes=37"),
        ("squeezenet1_1", 5, "squeezenet1_1 --model-arg num_classes=5"),  # its head is a convolution
        ("vgg11", 7, "vgg11 --model-arg num_classes=7"),  # a head of three layers
        ("googlenet", 5, "googlenet --model-arg num_classes=5"),  # with auxiliary heads
        ("fasterrcnn_mobilenet_v3_large_320_fpn", 91, "fasterrcnn_mobilenet_v3_large_320_fpn"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module.", "net.backbone."])
def test_weights_in_place_of_their_model_are_recognised(folder, name, classes, words, prefix):
    from torchvision.models import get_model

    arguments = {"weights_backbone": None} if "rcnn" in name else {"init_weights": False} if name == "googlenet" else {}
    with torch.device("meta"):
        state = get_model(name, num_classes=classes, **arguments).state_dict()
    file = folder / "re cognised.pth"
    torch.save(
        {"state_dict": {f"{prefix}{key}": torch.empty_strided(v.shape, v.stride(), device="meta") for key, v in state.items()}}, file
    )
    with pytest.raises(UsageError, match="holds weights, not a program") as caught:
        program_of(parse_model_spec(str(file)), trust=False, lens="gradcam")
    assert caught.value.hint == f"they are those of torchvision's {name}: netlens gradcam {words} --checkpoint '{file}'"


def test_the_command_for_recognised_weights_works(run, folder):
    from torchvision.models import get_model

    torch.save(get_model("squeezenet1_1", num_classes=5).state_dict(), folder / "five.pth")
    hint = run("featuremaps five.pth").stderr.splitlines()[1]
    command = hint.rpartition(": netlens ")[2]
    assert command.startswith("featuremaps squeezenet1_1")
    done = run(f"{command} --input 2,3,32,32 --no-pictures")
    assert done.returncode == 0 and "five.pth" in done.stdout


@pytest.mark.parametrize("name", ["program.pt2", "program.pt"])
def test_a_trusted_program_is_a_model(run, name):
    document = json.loads(run(f"summary {name} --trust-checkpoint --input 2,3,8,8 --format json").stdout)
    totals = document["report"]["totals"]
    assert totals["parameters"] == (8 * 27 + 8) + (8 + 8) + (8 * 10 + 10)
    assert totals["macs"] == 2 * (6 * 6 * 8 * 27 + 8 * 10)
    assert document["findings"] == []
    assert any("TorchScript runs its layers out of sight" in note for note in document["report"]["notes"]) == (name == "program.pt")


def test_an_exported_program_brings_its_input_and_shows_its_layers(run):
    report = json.loads(run("summary program.pt2 --trust-checkpoint --format json").stdout)["report"]
    assert (report["inputs"][0]["shape"], report["input_source"]) == ([2, 3, 8, 8], "the program's example inputs")
    macs = {layer["path"]: layer["macs"] for layer in report["layers"]}
    assert (macs["conv"], macs["norm"], macs["head"]) == (2 * 6 * 6 * 8 * 3 * 3 * 3, 0, 2 * 8 * 10)


def test_consent_has_no_short_form_and_no_key_in_the_configuration(run, tmp_path, netlens):
    help_text = run("summary --help").stdout
    assert "--trust-checkpoint" in help_text and not re.search(r"-\w,? +--trust", help_text)
    (tmp_path / "pyproject.toml").write_text("[tool.netlens]\ntrust-checkpoint = true\n")
    done = netlens("summary", "resnet18", cwd=tmp_path)
    assert done.returncode == 2 and "no key 'trust-checkpoint'" in done.stderr
