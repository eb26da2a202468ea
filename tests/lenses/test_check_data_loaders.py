"""`netlens check-data` on Datasets and DataLoaders as a careless user writes them: where it writes, how mistakes end, what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from netlens.cli.app import run
from netlens.errors import ForwardFailed, InputError
from netlens.lenses.check_data import sheets
from netlens.lenses.check_data.show import as_text
from netlens.loaders.appetite import appetite
from tests.lenses.check_data_case import field, loader, loaders

USER = """
import os, sys
import torch
from torch.utils.data import DataLoader, TensorDataset

def loader():
    x = torch.randn(40, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(x, torch.arange(40) % 4), batch_size=8, shuffle=True)

def elsewhere():
    os.makedirs("cached", exist_ok=True)
    os.chdir("cached")
    return loader()

def leaves():
    sys.exit("no data")

class Leaves:
    def __init__(self):
        sys.exit(0)

def several():
    return [loader(), loader()]
"""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user, who is in it."""
    (tmp_path / "user.py").write_text(USER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pictures_are_written_where_the_user_is_wherever_the_code_goes(user: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check-data", "user.py:elsewhere", "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)["report"]
    assert Path.cwd() == user and len(report["pictures"]) == 2
    assert all((user / file).is_file() for file in report["pictures"]) and not [*(user / "cached").iterdir()]


@pytest.mark.parametrize(("name", "said"), [("leaves", "sys.exit('no data')"), ("Leaves", "sys.exit(0)")])
@pytest.mark.usefixtures("user")
def test_a_factory_that_ends_the_program_is_named(name: str, said: str) -> None:
    with pytest.raises(InputError) as ended:
        run(["check-data", f"user.py:{name}", "--no-pictures"])
    assert ended.value.message == f"user.py:{name}() ended with {said}" and "return" in ended.value.hint


@pytest.mark.usefixtures("user")
def test_several_loaders_in_a_list_are_no_samples() -> None:
    with pytest.raises(InputError, match=r"user\.py:several holds 2 data sets or loaders"):
        run(["check-data", "user.py:several", "--no-pictures"])


def test_a_model_that_does_not_take_the_samples_has_a_hint_that_this_command_knows() -> None:
    with pytest.raises(ForwardFailed) as failed:
        appetite(nn.Sequential(nn.Conv2d(3, 4, 3)), (torch.zeros(4, 20), torch.zeros(4)), "cpu")
    assert "Conv2d" in failed.value.message and "--target-rate" in failed.value.hint and "--input" not in failed.value.hint


def test_words_and_columns_are_there_where_they_say_something() -> None:
    without = as_text(loaders(loaders=(loader(fields=(field("ids", (64, 12), "int64"),), batches=1),)))
    assert "read in 1 batch ·" in without and "of each channel" not in without
    with_means = as_text(loaders(loaders=(loader(batches=2),)))
    assert "read in 2 batches ·" in with_means and "of each channel" in with_means


@pytest.mark.parametrize(("labels", "words"), [(["cat", ""], "2 samples with their labels"), (["", ""], "2 samples")])
def test_a_grid_says_what_it_shows(labels: list[str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []
    monkeypatch.setattr("netlens.lenses.check_data.sheets.gallery", lambda captions, *_, **__: written.append(captions))
    sheets.tensor_grid("data", [np.zeros((3, 8, 8)), np.ones((3, 8, 8))], labels)
    assert written[0].subtitle == words
