"""`netlens gradflow` on a training step, and in two processes: the command as a user types it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest
import torch

from tests.conftest import REPOSITORY

TRAIN = """
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
x = torch.arange(12.0).view(3, 4) / 10
y = torch.tensor([0, 1, 1])


def step():
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def late(count):
    return step()


def number():
    return 0.5


def make():
    print("a model is made")
    return nn.Linear(4, 2)


class Net(nn.Linear):
    def __init__(self):
        super().__init__(4, 2)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train.py").write_text(TRAIN)
    return tmp_path


def gradflow(folder, *line, launcher=()):
    """Run the command in a process of its own."""
    command = [sys.executable, *launcher, "-m", "netlens", "gradflow", *line, "--no-pictures", "--format", "json"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=environment())


def environment():
    import os

    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "MASTER_ADDR": "127.0.0.1"}


def test_a_step_is_measured_as_it_trains(folder):
    """Loss, gradient and update of the first and last call, by hand: the same model, loss and SGD in plain PyTorch."""
    done = gradflow(folder, "train.py:step", "--steps", "2")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["report"]
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    losses, x, y = [], torch.arange(12.0).view(3, 4) / 10, torch.tensor([0, 1, 1])
    for _ in range(2):
        loss = torch.nn.functional.cross_entropy(model(x), y)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        before = [parameter.detach().clone() for parameter in model.parameters()]
        losses.append(float(loss.detach()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= 0.5 * gradient
    assert [step["loss"] for step in report["steps"]] == pytest.approx(losses, rel=1e-5)
    assert report["run"]["kind"] == "step function" and report["run"]["optimizer"] == "the step function's own SGD(lr=0.5)"
    for row, gradient, weight in zip(report["parameters"], gradients, before, strict=True):
        assert row["norm"] == pytest.approx(float(gradient.norm()), rel=1e-5)
        assert row["update"] == pytest.approx(0.5 * float(gradient.norm() / weight.norm()), rel=1e-5)


@pytest.mark.parametrize(("name", "said"), [("train.py:late", "late"), ("train.py:number", "float"), ("train.py:missing", "missing")])
def test_what_is_no_step_is_said_in_two_lines(folder, name, said):
    done = gradflow(folder, name)
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert lines[-2].startswith("error: ") and said in lines[-2] and lines[-1].startswith("hint: ")


def test_a_function_that_makes_a_model_is_a_model(folder):
    done = gradflow(folder, "train.py:make")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["report"]["model"] == "Linear"


def test_two_processes_see_what_one_sees_that_accumulates(folder):
    """Each takes every second batch: their mean gradient is that of one process with two batches in a step."""
    torch.save({"x": torch.randn(16, 4, generator=torch.Generator().manual_seed(1)), "labels": torch.arange(16) % 2}, folder / "data.pt")
    line = ("train.py:Net", "--input", "data.pt", "--batch-size", "4", "--eval")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", str(port))
    both = gradflow(folder, *line, launcher=launcher)
    alone = gradflow(folder, *line, "--accumulate", "2")
    assert (both.returncode, alone.returncode) == (0, 0), both.stderr + alone.stderr
    together, one = (json.loads(done.stdout)["report"] for done in (both, alone))
    assert together["run"]["processes"] == 2 and len(together["ranks"]) == 2
    assert together["steps"][0]["loss"] == pytest.approx(one["steps"][0]["loss"], rel=1e-5)
    for mine, theirs in zip(together["parameters"], one["parameters"], strict=True):
        assert mine["norm"] == pytest.approx(theirs["norm"], rel=1e-5)
    assert len({rank["parameters_hash"] for rank in together["ranks"]}) == 1


@pytest.mark.parametrize("options", [("--lr", "3"), ("--loss", "mse_loss", "--lr", "3")])
def test_options_of_models_do_not_apply_to_a_training_step(folder, options):
    done = gradflow(folder, "train.py:step", *options)
    names = ", ".join(option for option in options if option.startswith("--"))
    said, hint = done.stderr.strip().splitlines()[-2:]
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{names} do{'' if ',' in names else 'es'} not apply to a training step" in said and f"leave {names} out" in hint
