"""Optimizers by name: the class of torch that is meant, with the options that were written, or two lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from netlens.errors import NetlensError, UsageError
from netlens.loading.calls import parse_call
from netlens.loading.optimizers import NAMES, described, make_optimizer, parse_optimizer
from tests.conftest import REPOSITORY


def weights() -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 4.0]]))]


def made(text: str, lr: float | None = None) -> torch.optim.Optimizer:
    call = parse_optimizer(text, lr)
    return make_optimizer(call.name, weights(), **call.options)


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(torch.optim, name)])
def test_every_class_of_torch_is_found_in_any_case(name):
    for text in (name, name.lower(), name.upper(), f"torch.optim.{name}"):
        assert type(made(text)) is getattr(torch.optim, name)


def test_a_step_is_the_one_of_torch():
    """By hand: AdamW's first step is w (1 - lr decay) - lr sign(g), but for eps."""
    call = parse_optimizer("adamw:weight_decay=0.1,eps=0.0", 0.01)
    (weight,) = parameters = weights()
    optimizer = make_optimizer(call.name, parameters, **call.options)
    before, gradient = weight.detach().clone(), torch.tensor([[3.0, -1.0], [0.2, -7.0]])
    weight.grad = gradient
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before * (1 - 0.01 * 0.1) - 0.01 * gradient.sign())


def test_rates_are_the_class_s_own_but_for_sgd():
    assert made("sgd").param_groups[0]["lr"] == 0.1 and made("adam").param_groups[0]["lr"] == 1e-3
    assert made("sgd", 0.5).param_groups[0]["lr"] == 0.5 and made("sgd:lr=2").param_groups[0]["lr"] == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sgd", "SGD(lr=0.1)"),
        ("SGD:momentum=0.9,nesterov=True", "SGD(lr=0.1, momentum=0.9, nesterov=True)"),
        ("adam:betas=(0.8, 0.99)", "Adam(lr=0.001, betas=(0.8, 0.99))"),
        ("adamw", "AdamW(lr=0.001)"),
    ],
)
def test_an_optimizer_is_described_by_its_rate_and_what_is_unusual(text, words):
    assert described(made(text)) == words


def test_options_are_python_s_literals_or_words():
    call = parse_call("--loss", "file.py:fn:gamma=2,weights=[1, 2.5],mode=sum,text='a,b'")
    assert (call.name, call.options) == ("file.py:fn", {"gamma": 2, "weights": [1, 2.5], "mode": "sum", "text": "a,b"})
    assert parse_call("--loss", "pkg.mod:fn").options == {}


WRONG = {
    "sgdd": ("there is no optimizer 'sgdd'", "did you mean 'SGD'?"),
    "": ("there is no optimizer ''", "write it like"),
    "lbfgs": ("LBFGS computes the loss many times", "take --optimizer sgd"),
    "adamw:0.1": ("'0.1' is not NAME=VALUE", "write it like adamw:weight_decay=0.1"),
    "adamw:decay": ("'decay' is not NAME=VALUE", "write it like"),
    "sgd:nesterov=true": ("cannot be read as NAME=VALUE", "True and not true"),
    "sgd:momentum=": ("is not NAME=VALUE", "weight_decay"),
    "sgd:momentum=0.9,momentum=0.8": ("cannot be read", "write it like"),
    "sgd:momentum=0.9,0.8": ("cannot be read", "write it like"),
    "sgd:lr=-1": ("the learning rate -1 is no number of 0 or more", "--lr 0.1"),
    "sgd:lr=fast": ("the learning rate fast", "--lr 0.1"),
    "missing.py:Lion": ("no file 'missing.py'", ""),
    "no_such_package:Lion": ("no module named 'no_such_package'", ""),
    "netlens/errors.py": ("does not say what of the file is meant", "name it: netlens/errors.py:NAME"),
}


@pytest.mark.parametrize(("text", "expected"), WRONG.items(), ids=WRONG)
def test_what_cannot_be_is_told_before_torch_is_imported(text, expected):
    with pytest.raises(NetlensError) as error:
        parse_optimizer(text)
    assert expected[0] in error.value.message and expected[1] in error.value.hint
    assert "\n" not in error.value.message + error.value.hint


def test_two_rates_are_refused():
    with pytest.raises(UsageError, match="--lr and --optimizer both"):
        parse_optimizer("sgd:lr=0.1", 0.2)


@pytest.mark.parametrize(
    ("name", "options", "message", "hint"),
    [
        ("SGD", {"momentun": 0.9}, "SGD has no option 'momentun'", "did you mean 'momentum'?"),
        ("SGD", {"momentum": -1}, "SGD cannot be made: ValueError: Invalid momentum value", "change its options"),
        ("SGD", {"momentum": "much"}, "SGD cannot be made: TypeError", "change its options"),
        ("lion", {}, "there is no optimizer 'lion'", ""),
    ],
)
def test_what_torch_refuses_is_two_lines(name, options, message, hint):
    with pytest.raises(UsageError) as error:
        make_optimizer(name, weights(), **options)
    assert message in error.value.message and hint in error.value.hint


def test_nothing_to_train_is_two_lines():
    with pytest.raises(UsageError, match="empty parameter list") as error:
        make_optimizer("sgd", [])
    assert error.value.hint == "unfreeze some parameters"


def test_an_optimizer_of_ones_own_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("import torch\nclass Mine(torch.optim.SGD): pass\nvalue = 3\ndef nothing(parameters): pass\n")
    optimizer = made("mine.py:Mine:momentum=0.5", 0.25)
    assert described(optimizer) == "Mine(lr=0.25, momentum=0.5)" and isinstance(optimizer, torch.optim.SGD)
    for name, message in (("value", "is of the type int"), ("nothing", "object of type NoneType, and no optimizer")):
        with pytest.raises(UsageError, match=message):
            made(f"mine.py:{name}")


def test_reading_names_needs_no_torch():
    code = (
        "import sys; from netlens.loading.optimizers import parse_optimizer as p; from netlens.loading.loss_names import parse_loss as q;"
        "p('adamw:weight_decay=0.1', 0.1); q('cross_entropy:ignore_index=255'); q('json:loads'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
