"""A third of the wait for a summary is torch's compiler, unless nobody imports it; and what uses the compiler works all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Shell

COMPILER = {"torch._dynamo", "torch._inductor", "sympy"}
CLASSIFIERS = (
    "resnet18",
    "densenet121",
    "mobilenet_v3_small",
    "googlenet",
    "regnet_y_400mf",
    "convnext_tiny",
    "swin_v2_t",
    "vit_b_16",
    "maxvit_t",
    "mvit_v2_s",
)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_compiler_stays_out(name: str, netlens: Shell):
    result = netlens("summary", name, "--depth", "1")

    assert result.returncode == 0
    assert not COMPILER & result.modules


# Whoever runs for real (see test_sweeps.py) needs parts of the compiler: `roi_align` asks it for a helper, boolean indexing imports sympy.
NEEDS_THE_COMPILER = {
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
}
# Imports torchvision as the command does, then forks for every model: each starts without the compiler, and none imports torch again.
EVERY_MODEL = """
import json, os, sys
from netlens.cli.lean import import_torch
import_torch()
import torchvision.models
import netlens.lenses.summary.measure
from netlens.__main__ import main

compiler, skipped = json.loads(sys.argv[1])
assert not set(compiler) & set(sys.modules)
found = {}
for name in sorted(set(torchvision.models.list_models()) - set(skipped)):
    sys.argv = ["netlens", "summary", name, "--depth", "1"]
    reader, writer = os.pipe()
    if os.fork() == 0:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        code = main()
        os.write(writer, json.dumps([code, sorted(set(compiler) & set(sys.modules))]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        found[name] = json.loads(pipe.read())
    os.wait()
print(json.dumps(found))
"""


@pytest.mark.sweep
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process for each model")
def test_the_compiler_stays_out_of_every_model_but_detectors(tmp_path: Path):
    arguments = json.dumps([sorted(COMPILER), sorted(NEEDS_THE_COMPILER)])
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", EVERY_MODEL, arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )

    found = json.loads(done.stdout)
    assert len(found) >= 100
    assert {name: result for name, result in found.items() if result != [0, []]} == {}


# Linear 8 -> 5 and 5 -> 3 without a break: 8 x 5 + 5 + 5 x 3 + 3 = 63 parameters, and 2 x (40 + 15) = 110 MACs for two rows.
NETS = """
import torch
from torch import nn


@torch.compile
def hidden(x, weight, bias):
    return (x @ weight + bias).relu()


class Function(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(8, 5)), nn.Parameter(torch.randn(5))
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(hidden(x, self.weight, self.bias))


def layers():
    return nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = layers()

    def forward(self, x):
        return self.net(x)


class Wrapped(Net):
    def __init__(self):
        super().__init__()
        self.net = torch.compile(layers())


class Inside(Net):
    def __init__(self):
        super().__init__()
        self.net.compile()


class Method(Net):
    @torch.compile
    def forward(self, x):
        return self.net(x)


def factory():
    return torch.compile(Net())


instance = torch.compile(Net())
in_place = Net()
in_place.compile()
"""
COMPILED = ("Function", "Wrapped", "Inside", "Method", "factory", "instance", "in_place")


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "compiled_nets.py").write_text(NETS)
    return folder


@pytest.mark.parametrize("name", ["Function", "Wrapped", "instance"])
def test_a_model_that_compiles_is_summarised(name: str, nets: Path, netlens: Shell):
    result = netlens("summary", f"compiled_nets.py:{name}", "--input", "2,8", "--format", "json", cwd=nets)

    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)["report"]
    assert report["run"]["on"] == "meta"
    assert (report["totals"]["parameters"], report["totals"]["macs"]) == (63, 110)


def test_torchvision_and_the_compiler_in_one_model(nets: Path, netlens: Shell):
    """torchvision is imported first and without the compiler, which must then be whole all the same."""
    (nets / "both.py").write_text("import torch\nfrom torchvision.models import resnet18\n\nmodel = torch.compile(resnet18())\n")

    result = netlens("summary", "both.py:model", "--input", "1,3,224,224", "--format", "json", cwd=nets)

    assert result.returncode == 0, result.stderr
    totals = json.loads(result.stdout)["report"]["totals"]
    assert (totals["parameters"], totals["macs"]) == (11_689_512, 1_814_073_344)  # published: 11689512, 1.814 G


# One process for all, because importing the compiler takes seconds. `backend="eager"` needs no C++ compiler to run a model for real.
IN_PYTHON = """
import functools, json, sys
import torch
torch.compile = functools.partial(torch.compile, backend="eager")
import compiled_nets
import netlens

found = {}
for name in sys.argv[1:]:
    model = getattr(compiled_nets, name)
    model = model if isinstance(model, torch.nn.Module) else model()
    x = torch.randn(2, 8)
    before = netlens.summary(model, x)
    out = model(x)
    after = netlens.summary(model, x)
    found[name] = [after.run.on, after.totals.parameters, after.totals.macs, before == after, list(out.shape), torch.equal(out, model(x))]
print(json.dumps(found))
"""


def test_compiled_models_in_python_before_and_after_they_were_compiled(nets: Path):
    """The second summary meets code that the compiler has cached, and the model still runs, compiled, with the same result."""
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{nets}"}
    done = subprocess.run(
        [sys.executable, "-c", IN_PYTHON, *COMPILED], cwd=nets, env=environment, capture_output=True, text=True, check=True
    )

    assert json.loads(done.stdout) == {name: ["meta", 63, 110, True, [2, 3], True] for name in COMPILED}
