"""Reading what names a model: no torch, no import of the user's code, and one clear error for each slip."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from netlens.errors import FileProblem, ModelNotBuilt, ModelNotFound, NetlensError, UsageError
from netlens.loading.specs import ModelSpec, parse_model_args, parse_model_spec


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with user code that leaves a trace when it runs."""
    (tmp_path / "nets.py").write_text("open('ran', 'w')\nclass Net(nn.Module): pass\nclass Big(Net): pass\nclass Config: pass\n")
    (tmp_path / "broken.py").write_text("import torch\nclass Net(nn.Module:\n")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "deep.py").write_text("def build(): ...\ndef _helper(): ...\n")
    (tmp_path / "weights.pth").write_bytes(b"")
    (tmp_path / "resnet18").write_bytes(b"")
    (tmp_path / "model.bin.index.json").write_bytes(b"")
    (tmp_path / "last.weights").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("resnet18", ModelSpec("resnet18", "torchvision", name="resnet18")),  # although a file of that name is there
        (" resnet18 ", ModelSpec("resnet18", "torchvision", name="resnet18")),
        ("tv:resnet18", ModelSpec("tv:resnet18", "torchvision", name="resnet18")),
        ("timm:resnet18.a1_in1k", ModelSpec("timm:resnet18.a1_in1k", "timm", name="resnet18.a1_in1k")),
        ("hf:org/name", ModelSpec("hf:org/name", "transformers", name="org/name")),
        ("hf:./folder", ModelSpec("hf:./folder", "transformers", name="./folder")),
        ("nets:Net", ModelSpec("nets:Net", "python", module="nets", attribute="Net")),
        ("lib.deep:build", ModelSpec("lib.deep:build", "python", module="lib.deep", attribute="build")),
        ("nets:presets.small", ModelSpec("nets:presets.small", "python", module="nets", attribute="presets.small")),
        ("lib.deep.build", ModelSpec("lib.deep:build", "python", module="lib.deep", attribute="build")),  # the colon form is shown
        ("nets.py:Net", ModelSpec("nets.py:Net", "python", path=Path("nets.py"), attribute="Net")),
        ("./lib/deep.py:build", ModelSpec("./lib/deep.py:build", "python", path=Path("lib/deep.py"), attribute="build")),
        ("nets.py::Net", ModelSpec("nets.py::Net", "python", path=Path("nets.py"), attribute="Net")),  # as pytest writes it
        ("no_such_thing.a1", ModelSpec("no_such_thing.a1", "torchvision", name="no_such_thing.a1")),  # nothing importable: a name
        ("weights.pth", ModelSpec("weights.pth", "checkpoint", path=Path("weights.pth"))),
        ("./lib", ModelSpec("./lib", "checkpoint", path=Path("lib"))),
        ("./resnet18", ModelSpec("./resnet18", "checkpoint", path=Path("resnet18"))),  # and not the name
        ("model.bin.index.json", ModelSpec("model.bin.index.json", "checkpoint", path=Path("model.bin.index.json"))),
        ("last.weights", ModelSpec("last.weights", "checkpoint", path=Path("last.weights"))),  # a file of any other suffix
    ],
)
def test_what_a_spec_means(text: str, spec: ModelSpec):
    assert parse_model_spec(text) == spec


@pytest.mark.parametrize(
    ("text", "error", "message", "hint"),
    [
        ("", UsageError, "no model is named", "resnet18"),
        ("timm:", UsageError, "'timm:' names no model", "timm:NAME"),
        ("nets:", UsageError, "'nets:' does not name a model in nets", "nets:Net"),
        ("my-nets:Net", UsageError, "'my-nets' is not the name of a Python module", "package.module:Net"),
        ("nest:Net", ModelNotFound, "no module named 'nest', so 'nest:Net' leads nowhere", "did you mean 'nets:Net'?"),
        ("timn:resnet18", ModelNotFound, "no module named 'timn'", "did you mean 'timm:resnet18'?"),
        ("zebra.quagga:Net", ModelNotFound, "no module named 'zebra'", "in the current folder"),
        ("net.py:Net", FileProblem, "no file 'net.py'", "did you mean 'nets.py'?"),
        ("no/nets.py:Net", FileProblem, "no folder 'no'", "start at the current folder"),
        ("nets.py", UsageError, "it defines Net, Big", "nets.py:Net or nets.py:Big"),  # and not Config, which is no module
        ("nets.py:", UsageError, "it defines Net, Big", "nets.py:Net"),
        ("lib/deep.py", UsageError, "it defines build", "lib/deep.py:build"),
        ("broken.py:Net", ModelNotBuilt, "broken.py:2 is not valid Python", "mend the file"),
        ("missing.safetensors", FileProblem, "no file 'missing.safetensors'", "current folder"),
    ],
)
def test_each_slip_has_its_own_error(text: str, error: type[NetlensError], message: str, hint: str):
    with pytest.raises(error) as caught:
        parse_model_spec(text)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_folder_with_a_config_is_for_transformers(project: Path):
    (project / "lib" / "config.json").write_text("{}")
    with pytest.raises(UsageError) as caught:
        parse_model_spec("./lib")
    assert "hf:lib" in caught.value.hint


def test_a_folder_with_a_config_and_weights_is_a_checkpoint(project: Path):
    (project / "lib" / "config.json").write_text("{}")
    (project / "lib" / "model.safetensors").write_bytes(b"")
    assert parse_model_spec("./lib").source == "checkpoint"


def test_a_package_is_not_a_checkpoint(project: Path):
    (project / "lib" / "__init__.py").write_text("")
    with pytest.raises(UsageError, match="is a Python package"):
        parse_model_spec("./lib")


def test_the_users_file_is_read_but_not_run(project: Path):
    parse_model_spec("nets.py:Net")
    with pytest.raises(UsageError):
        parse_model_spec("nets.py")
    assert not (project / "ran").exists()


@pytest.mark.parametrize("text", ["a b\x1b[31m:Net", "nets.py:\x1b", "no\nsuch/file.py:Net", "x\n:Net", "nets:\x07", "zebra\u202e:Net"])
def test_messages_are_one_printable_line(text: str):
    with pytest.raises(NetlensError) as caught:
        parse_model_spec(text)
    assert caught.value.message.isprintable() and caught.value.hint.isprintable()


def test_model_args_are_python_literals_and_else_text():
    texts = ["n=10", "p=0.5", "flag=True", "none=None", "sizes=(2, 3)", "act=gelu", "url=a=b", "quoted='3'", "unit=3px", "neg = -1", "e="]
    assert parse_model_args(texts) == {
        "n": 10,
        "p": 0.5,
        "flag": True,
        "none": None,
        "sizes": (2, 3),
        "act": "gelu",
        "url": "a=b",
        "quoted": "3",
        "unit": "3px",
        "neg": -1,
        "e": "",
    }


@pytest.mark.parametrize(
    ("texts", "message", "hint"),
    [
        (["10"], "'10' is not NAME=VALUE", "num_classes=10"),
        (["num-classes=10"], "is not NAME=VALUE", "num_classes=10"),
        (["=10"], "is not NAME=VALUE", "num_classes=10"),
        (["n=1", "n=2"], "n is given twice", "once"),
        (["pretrained=false"], "any text counts as true", "write pretrained=False"),
        (["flag=TRUE"], "any text counts as true", "write flag=True"),
    ],
)
def test_model_args_that_cannot_be_meant(texts: list[str], message: str, hint: str):
    with pytest.raises(UsageError) as caught:
        parse_model_args(texts)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_reading_specs_and_inputs_does_not_import_torch():
    code = (
        "import sys; from netlens.loading.specs import parse_model_spec; from netlens.loading.inputs import parse_input_spec;"
        "parse_model_spec('nets.py:Net'); parse_input_spec('1,3:float32');"
        "print(sorted({'torch', 'numpy', 'torchvision', 'PIL'} & set(sys.modules)))"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(root)})
    assert done.stdout.strip() == "[]"
