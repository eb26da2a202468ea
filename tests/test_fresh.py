"""Whether a model's values are drawn at random or loaded: decided by building it, not by reading its code."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from netlens.errors import ModelNotBuilt
from netlens.loading.fresh import is_random
from netlens.loading.models import NamedModel, find_model
from netlens.loading.specs import parse_model_spec

NETS = """
import random
import numpy as np
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.fc = nn.Linear(4, 3)

class Talking(Net):
    def __init__(self):
        super().__init__()
        print("PRINTED")

class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.LazyLinear(3)

def loaded():
    net = Net()
    net.load_state_dict(torch.load(FILE, weights_only=True))
    return net

def seeded_and_loaded():
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    return loaded()

def partly_loaded():
    return nn.Sequential(loaded(), nn.Linear(3, 2))

def loaded_with_lazy_head():
    return nn.Sequential(loaded().fc, nn.LazyLinear(2))

def seeds_itself():
    torch.manual_seed(0)
    return Net()

def seeds_in_a_fork():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()

def own_generator():
    net = Net()
    nn.init.normal_(net.fc.weight, generator=torch.Generator().manual_seed(0))
    return net

def out_of_place():
    torch.manual_seed(0)
    net = Net()
    net.fc.weight = nn.Parameter(torch.randn(3, 4))
    return net

def from_numpy():
    net = Net()
    net.fc.weight.data = torch.from_numpy(np.random.randn(3, 4))
    return net

def of_another_width():
    return nn.Linear(4, random.randint(1, 10**6))

def constant():
    net = Net()
    nn.init.eye_(net.fc.weight)
    return net

def one_last_value():
    net = nn.Linear(1000, 1000, bias=False)
    with torch.no_grad():
        keep = net.weight[-1, -1].clone()
        net.weight.zero_()
        net.weight[-1, -1] = keep
    return net

def not_a_number():
    net = Net()
    nn.init.constant_(net.fc.weight, float("nan"))
    return net

def half():
    return Net().bfloat16()

def transposed():
    net = loaded()
    net.fc.weight = nn.Parameter(net.fc.weight.detach().t())
    return net

def nothing_to_compare():
    return nn.Sequential(nn.BatchNorm1d(4), nn.ReLU())

def empty():
    return nn.Linear(0, 3)

def without_data():
    return nn.Linear(4, 3, device="meta")

CALLS = []
def only_once():
    CALLS.append(1)
    if len(CALLS) > 1:
        raise RuntimeError("already there")
    return Net()

CACHED = []
def the_same_again():
    CACHED.append(Net())
    return CACHED[0]

def broken():
    raise ValueError("no")

instance = Net()
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with user code and a file of weights; what it adds to sys.path goes with it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    net = nn.Sequential()
    net.norm, net.fc = nn.BatchNorm1d(4), nn.Linear(4, 3)
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    (tmp_path / "nets.py").write_text(f"FILE = {str(tmp_path / 'weights.pt')!r}\n{NETS}")
    return tmp_path


def add(project: Path, code: str) -> None:
    (project / "nets.py").write_text((project / "nets.py").read_text() + code)


def named(project: Path, attribute: str) -> NamedModel:
    return find_model(parse_model_spec(f"{project / 'nets.py'}:{attribute}"), {})


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("Net", True),
        ("Talking", True),
        ("loaded", False),
        ("seeded_and_loaded", False),
        ("transposed", False),
        ("constant", False),
        ("not_a_number", False),  # though nan != nan
        ("partly_loaded", None),
        ("loaded_with_lazy_head", True),
        ("Lazy", True),
        ("seeds_itself", True),  # the same values each time, and drawn at random all the same
        ("seeds_in_a_fork", True),
        ("own_generator", True),
        ("out_of_place", True),
        ("from_numpy", True),
        ("of_another_width", True),
        ("one_last_value", True),
        ("half", True),
        ("instance", None),
        ("nothing_to_compare", None),
        ("empty", None),
        ("without_data", None),
        ("only_once", None),
        ("the_same_again", None),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_user_code(attribute, expected, project):
    assert is_random(named(project, attribute)) is expected


@pytest.mark.filterwarnings("ignore:Complex modules")
def test_a_loaded_model_stays_loaded_in_every_dtype(project):
    (project / "nets.py").open("a").write(
        "\ndef double(): return loaded().double()\ndef complexes(): return loaded().to(torch.complex64)\n"
    )
    assert is_random(named(project, "double")) is False
    assert is_random(named(project, "complexes")) is False


def test_a_constructor_that_raises_is_told(project):
    with pytest.raises(ModelNotBuilt, match="ValueError: no"):
        is_random(named(project, "broken"))


def test_nothing_is_printed(project, capfd):
    is_random(named(project, "Talking"))
    assert capfd.readouterr() == ("", "")


def test_the_generators_are_as_they_were(project):
    model = named(project, "seeded_and_loaded")
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    is_random(model)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), np.random.get_state()[1].tolist())


def test_registries_are_random_and_nothing_is_built(monkeypatch):
    for spec, weights in (("resnet18", None), ("resnet18", "DEFAULT"), ("timm:resnet18", None)):
        model = find_model(parse_model_spec(spec), {}, weights)
        object.__setattr__(model, "build", lambda: pytest.fail("it was built"))
        assert is_random(model) is True


def test_published_values_are_not_random():
    model = NamedModel("resnet18", "torchvision", "", "resnet18", nn.Identity, loaded=("ResNet18_Weights.IMAGENET1K_V1: ...",))
    assert is_random(model) is False


def test_one_copy_of_the_model_is_in_memory_at_a_time(project):
    """A large model may fit once only: when the second is built, the first must be gone."""
    add(
        project,
        """
import weakref
ALIVE = weakref.WeakSet()
MOST = []
def counted():
    MOST.append(len(ALIVE))
    net = Net()
    ALIVE.add(net)
    return net
""",
    )
    model = named(project, "counted")
    assert is_random(model) is True
    assert sys.modules[model.target.__module__].MOST == [0, 0]
