"""Models that do what they should not, or what nobody expects: the numbers stay honest."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import netlens
from netlens.errors import ModelNotBuilt
from netlens.findings import Severity
from netlens.lenses.summary.expectations import check, parse_expectations
from netlens.lenses.summary.rules import diagnose
from tests.conftest import Shell


class Linear(nn.Module):
    """One layer of 4 x 4 weights and 4 biases: 16 MACs for a row."""

    def __init__(self):
        super().__init__()
        self.l = nn.Linear(4, 4)


class InAThread(Linear):
    def forward(self, x):
        found = []
        thread = threading.Thread(target=lambda: found.append(self.l(x)))
        thread.start()
        thread.join()
        return found[0]


class Forces(Linear):
    """Energies and forces, as models of molecules return them."""

    def forward(self, places):
        places = places.requires_grad_(True)
        energy = self.l(places).sum()
        return energy, -torch.autograd.grad(energy, places)[0]


class ItsOwnChild(Linear):
    def __init__(self):
        super().__init__()
        self.me = self

    def forward(self, x):
        return x


def test_work_in_other_threads_is_a_lower_bound_and_not_unused():
    report = netlens.summary(InAThread(), input_size=(1, 4))
    layer = next(layer for layer in report.layers if layer.path == "l")
    assert layer.times == 1 and layer.calls[0].outputs[0].shape == (1, 4)
    assert [finding.code for finding in diagnose(report)] == ["uncounted-operators"]
    assert diagnose(report)[0].severity is Severity.WARNING
    assert [finding.code for finding in check(report, parse_expectations(max_macs="1M"))] == ["max-macs"]  # unknown, so not "ok"


def test_gradients_inside_forward_run():
    """The layer itself 16, and 16 for the gradient of its input: ones (1, 4) @ weight (4, 4)."""
    report = netlens.summary(Forces(), input_size=(1, 4))
    assert report.failure is None and report.totals.macs == 32
    assert [leaf.shape for leaf in report.outputs] == [(), (1, 4)]


@pytest.mark.parametrize("make", [torch.jit.script, lambda model: torch.jit.trace(model, torch.ones(1, 4))], ids=["script", "trace"])
def test_layers_inside_torchscript_are_not_called_unused(make):
    report = netlens.summary(make(nn.Sequential(nn.Linear(4, 4), nn.ReLU())), input_size=(1, 4))
    assert report.totals.macs == 16
    assert not diagnose(report)


def test_data_parallel_has_no_uncounted_operators():
    report = netlens.summary(nn.DataParallel(nn.Linear(4, 4)), input_size=(1, 4))
    assert report.totals.macs == 16 and not report.uncounted


def test_a_module_that_contains_itself_is_named():
    with pytest.raises(ModelNotBuilt, match="contains itself"):
        netlens.summary(ItsOwnChild(), input_size=(1, 4))


FILE = """
import sys
from torch import nn

class Forgets(nn.Module):
    def __init__(self):
        self.width = 3

class ForgetsLayers(nn.Module):
    def __init__(self):
        self.fc = nn.Linear(4, 4)

class Leaves(nn.Linear):
    def forward(self, x):
        sys.exit(3)

leaves = Leaves(4, 4)
"""


@pytest.mark.parametrize(
    ("name", "error", "hint"),
    [
        ("Forgets", "does not call super().__init__()", "begin __init__ with super().__init__()"),
        ("ForgetsLayers", "cannot assign module before", "begin __init__ with super().__init__()"),
        ("leaves", "sys.exit(3)", "raise an exception"),
    ],
)
def test_mistakes_in_a_class_end_in_two_lines(netlens: Shell, tmp_path: Path, name: str, error: str, hint: str):
    (tmp_path / "nets.py").write_text(FILE)
    result = netlens("summary", "nets.py:" + name, "--input", "1,4", cwd=tmp_path)
    lines = result.stderr.splitlines()
    assert (result.returncode, len(lines)) == (2, 2)
    assert error in lines[0] and hint in lines[1]


def test_one_bad_model_does_not_keep_check_from_the_others(netlens: Shell, tmp_path: Path):
    (tmp_path / "nets.py").write_text(FILE)
    tables = {"a": "nets.py:leaves", "b": "torch.nn:Identity"}
    text = "".join(f'[tool.netlens.models.{name}]\nmodel = "{model}"\ninput = "1,4"\n' for name, model in tables.items())
    (tmp_path / "pyproject.toml").write_text(text)
    result = netlens("check", cwd=tmp_path)
    assert result.returncode == 2
    assert "ok" in next(line for line in result.stdout.splitlines() if line.startswith("b "))
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["error", "hint"]


def test_a_foreign_file_is_never_to_be_deleted(netlens: Shell, tmp_path: Path):
    (tmp_path / "precious.py").write_text("import this\n")
    result = netlens("summary", "torch.nn:Identity", "-i", "1,4", "--lock", "precious.py", "--update-lock", cwd=tmp_path)
    assert result.returncode == 2 and "delete" not in result.stderr
    assert (tmp_path / "precious.py").read_text() == "import this\n"
