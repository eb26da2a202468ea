"""Options of `netlens gradflow` that cannot do what they ask for: each says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netlens.cli.app import run
from netlens.errors import NetlensError, UsageError

MODELS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
    def forward(self, x):
        return self.head(x.mean((2, 3)))

class Empty(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))

def frozen():
    return Net().requires_grad_(False)

X = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))

def tensors():
    return [(x, index % 2) for index, x in enumerate(X)]

def broken():
    return [(x * float("nan") if index == 5 else x, index % 2) for index, x in enumerate(X)]

def bytes_():
    return [((255 * x).to(torch.uint8), index % 2) for index, x in enumerate(X)]
"""

Ask = Callable[[str], dict[str, Any]]


@pytest.fixture
def ask(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Run one command line in this process and return its report; NetlensErrors are raised."""
    (tmp_path / "nets.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)

    def asked(line: str) -> dict[str, Any]:
        capfd.readouterr()
        run(["gradflow", *line.split(), "--no-pictures", "--format", "json", "--fail-on", "never"])
        found: dict[str, Any] = json.loads(capfd.readouterr().out)["report"]
        return found

    return asked


def about(found: dict[str, Any], word: str) -> list[str]:
    return [note for note in found["notes"] if note.startswith(word)]


def test_one_batch_has_no_noise(ask):
    with pytest.raises(UsageError, match="--noise 1: one batch") as error:
        ask("nets.py:Net --data nets.py:tensors --noise 1")
    assert "at least 2" in str(error.value.hint)


@pytest.mark.parametrize(("asked", "compared"), [(2, 2), (3, 3), (20, 3)])
def test_fewer_batches_than_asked_for_are_told(ask, asked, compared):
    """24 samples are three batches of 8."""
    found = ask(f"nets.py:Net --data nets.py:tensors --noise {asked}")
    assert found["noise"]["batches"] == compared
    expected = ["--noise 20: 3 batches are compared, the data has no more of one size"] if asked > compared else []
    assert about(found, "--noise") == expected
    assert not about(ask("nets.py:Net --data nets.py:tensors"), "--noise")  # nobody asked


def test_a_batch_with_a_broken_sample_is_counted(ask):
    """One of 24 samples is NaN, so one of three batches: unless it is the first, only the noise meets it."""
    for seed in range(5):
        found = ask(f"nets.py:Net --data nets.py:broken --noise 3 --seed {seed}")
        if found["first_nonfinite"] is None:
            assert (found["noise"]["batches"], found["noise"]["nonfinite"]) == (3, 1)
            assert found["noise"]["scale"] is not None or found["noise"]["signal"] is None
            return
    pytest.fail("the broken sample was always in the first batch")


def test_a_model_without_parameters_is_not_told_to_unfreeze_them(ask):
    with pytest.raises(UsageError, match="no parameters: nothing") as error:
        ask("nets.py:Empty --data nets.py:tensors")
    assert "unfreeze" not in str(error.value.hint)
    with pytest.raises(UsageError, match="not frozen") as error:
        ask("nets.py:frozen --data nets.py:tensors")
    assert "unfreeze" in str(error.value.hint)


def test_a_hint_names_only_options_that_there_are(ask):
    with pytest.raises(NetlensError, match="--size is about pictures") as error:
        ask("nets.py:Net --size 64")
    assert error.value.hint == "add --data FOLDER"


def test_options_for_pictures_that_change_nothing_are_told(ask):
    said = about(ask("nets.py:Net --data nets.py:tensors --size 4 --mean 0,0,0"), "--size")
    assert said == ["--size, --mean: not used, for the data set prepares its samples itself"]
    assert not about(ask("nets.py:Net --data nets.py:bytes_ --size 4"), "--size")
    assert not about(ask("nets.py:Net --data nets.py:tensors"), "--size")
