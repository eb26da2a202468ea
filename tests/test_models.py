"""From a name to a model: every registry without the network, the user's own code, and every way in which it fails."""

from __future__ import annotations

import inspect
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import ResNet, get_model_weights, list_models  # noqa: TID253
from torchvision.models._api import WeightsEnum  # noqa: TID253

from netlens.errors import MissingExtra, ModelNotBuilt, ModelNotFound, NetlensError, UsageError
from netlens.loading.arguments import accepted_arguments
from netlens.loading.models import NamedModel, find_model
from netlens.loading.specs import parse_model_args, parse_model_spec

NETS = """
from torch import nn
print("noise")

def quiet(make):
    def wrapper(*args, **kwargs):
        return make(*args, **kwargs)
    return wrapper

class Net(nn.Module):
    def __init__(self, width, depth=3, bias: bool = True):
        super().__init__()
        if width % 2:
            raise ValueError("width must\\nbe \\x1b[1meven")
        self.fc = nn.Linear(width, depth, bias)

class Sub(Net):
    def __init__(self, extra=1, **kwargs):
        super().__init__(depth=extra, **kwargs)

class Registry:
    small = Net(2)

class Config: ...

def build(**kwargs):
    return Net(4, **kwargs)

def picked(**kwargs):
    return Net(kwargs.pop("wide", 8), depth=kwargs.get("deep", 2))

def opaque(**kwargs):
    options = dict(kwargs)
    return Net(**options)

def swallowing(**kwargs):
    return Net(2)

wrapped = quiet(Net)
def pair(): return Net(2), 1
def forgot(): Net(2)
def exits(): raise SystemExit("no GPU")
def deeper(): return Net()
instance = Net(2)
number = 3
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with user code; what it adds to sys.path and sys.modules goes with it."""
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "layers.py").write_text("from torch import nn\nclass Layer(nn.Linear): ...\n")
    (tmp_path / "pkg" / "models.py").write_text("from .layers import Layer\ndef net(n: int = 2): return Layer(n, n)\n")
    files = {
        "boom": "import torch\n\n\nraise ValueError('a\\nb')\n",
        "exits": "import sys\nsys.exit(3)\n",
        "needs": "import torch\nimport no_such_package\n",
        "syntax": "import torch\ndef f(:\n",
        "empty": "",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to reach the network is an error."""

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def find(text: str, *model_args: str, weights: str | None = None) -> NamedModel:
    return find_model(parse_model_spec(text), parse_model_args(model_args), weights)


def built(named: NamedModel) -> nn.Module:
    """Build without data where that works; a RegNet reads values while it is built."""
    try:
        with torch.device("meta"):
            return named.build()
    except ModelNotBuilt:
        return named.build()


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# --- torchvision


@pytest.mark.parametrize(("text", "name"), [("resnet18", "resnet18"), ("ResNet18", "resnet18"), ("tv:vit_b_16", "vit_b_16")])
def test_torchvision_names(text: str, name: str):
    named = find(text)
    assert (named.source, named.name, named.is_instance) == ("torchvision", name, False)
    assert named.origin.startswith("torchvision 0.")


def test_building_is_repeatable_and_happens_where_the_caller_wants():
    named = find("resnet18", "num_classes=7")
    with torch.device("meta"):
        hollow = named.build()
    real = named.build()
    assert {p.device.type for p in hollow.parameters()} == {"meta"}
    assert {p.device.type for p in real.parameters()} == {"cpu"}
    assert isinstance(real, ResNet) and real.fc.out_features == 7


@pytest.mark.parametrize("name", ["deeplabv3_resnet50", "lraspp_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large", "fcos_resnet50_fpn"])
def test_builders_that_fetch_a_backbone_do_not(name: str, offline: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_args, **_kwargs: pytest.fail("would download"))
    assert parameters(built(find(name))) > 1_000_000


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("resnet18", "DEFAULT"),
        ("resnet50", "IMAGENET1K_V1"),
        ("vit_h_14", "ViT_H_14_Weights.IMAGENET1K_SWAG_E2E_V1"),  # for 518 pixels: a longer position embedding
        ("googlenet", "DEFAULT"),  # without the auxiliary heads that a bare googlenet has
        ("inception_v3", "DEFAULT"),  # with them
        ("maskrcnn_resnet50_fpn", "DEFAULT"),  # frozen batch norms have no parameters
        ("keypointrcnn_resnet50_fpn", "COCO_LEGACY"),
        ("fcn_resnet50", "DEFAULT"),  # with an auxiliary head
        ("quantized_resnet18", "DEFAULT"),
        ("mvit_v2_s", "DEFAULT"),
        ("raft_small", "C_T_V2"),
        ("regnet_y_400mf", "DEFAULT"),
    ],
)
def test_weights_give_the_published_architecture(name: str, entry: str, offline: None):
    named = find(name, weights=entry)
    enum = get_model_weights(name)
    expected = enum[entry.rpartition(".")[2]] if entry != "DEFAULT" else enum.DEFAULT
    assert parameters(built(named)) == expected.meta["num_params"]
    if not name.startswith("quantized"):  # whose float form has entries of its own
        assert named.weights == str(expected)


def test_a_build_that_fails_leaves_torch_as_it_was():
    fetch, load = WeightsEnum.get_state_dict, nn.Module.load_state_dict
    with pytest.raises(ModelNotBuilt, match="num_classes"):  # published weights have 1000
        find("resnet18", "num_classes=7", weights="DEFAULT").build()
    assert WeightsEnum.get_state_dict is fetch
    assert nn.Module.load_state_dict is load


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "ssd300_vgg16", "quantized_googlenet", "swin3d_t", "raft_large"])
def test_no_builder_swallows_a_wrong_argument(name: str):
    with pytest.raises(UsageError, match="takes no argument 'num_clases_'"):
        find(name, "num_clases_=3")


def test_arguments_behind_kwargs_are_those_of_the_class():
    """`resnet18(*, weights, progress, **kwargs)` hands kwargs on to ResNet(block, layers, ...), and fills these two itself."""
    own = set(inspect.signature(ResNet).parameters) - {"block", "layers"}
    with pytest.raises(UsageError) as caught:
        find("resnet18", "num_clases=3")
    assert caught.value.hint.startswith("did you mean 'num_classes'?")
    listed = caught.value.hint.partition("it takes ")[2].split(", ")
    assert set(listed) == own


# --- the user's own code


@pytest.mark.parametrize(
    ("text", "args", "shape"),
    [
        ("nets:Net", ["width=4"], (3, 4)),
        ("nets.Net", ["width=4", "depth=5"], (5, 4)),
        ("nets.py:Net", ["width=4"], (3, 4)),
        ("nets.py:Sub", ["width=6"], (1, 6)),
        ("nets.py:Sub", ["width=6", "extra=9"], (9, 6)),
        ("nets.py:build", ["depth=7"], (7, 4)),
        ("nets.py:picked", ["wide=2", "deep=1"], (1, 2)),
        ("nets.py:opaque", ["width=2", "depth=1"], (1, 2)),
        ("nets.py:wrapped", ["width=2"], (3, 2)),
        ("nets.py:instance", [], (3, 2)),
        ("nets.py:Registry.small", [], (3, 2)),
    ],
)
def test_user_code(project: Path, capsys: pytest.CaptureFixture[str], text: str, args: list[str], shape: tuple[int, int]):
    named = find(text, *args)
    model: Any = named.build()
    assert tuple(model.fc.weight.shape) == shape
    assert named.source == "python"
    assert capsys.readouterr().out == ""  # the module prints, and stdout is for the report


def test_a_module_in_a_package(project: Path):
    model: Any = find("pkg.models:net", "n=5").build()
    assert tuple(model.weight.shape) == (5, 5)


def test_an_instance_stays_the_users_own_object(project: Path):
    named = find("nets:instance")
    assert named.is_instance
    assert named.build() is named.build() is sys.modules["nets"].instance


def test_a_file_is_imported_once_and_hides_no_module(project: Path):
    (project / "json.py").write_text("from torch import nn\nclass Net(nn.Linear):\n    def __init__(self): super().__init__(2, 2)\n")
    import json

    first = find("json.py:Net").target
    assert first is find("./json.py:Net").target
    assert sys.modules["json"] is json
    assert sum(Path(entry or ".").resolve() == project.resolve() for entry in sys.path) == 1


@pytest.mark.parametrize(
    ("text", "args", "error", "message", "hint"),
    [
        # nothing there
        ("resnt18", [], ModelNotFound, "torchvision has no model 'resnt18'", "did you mean 'resnet18'?"),
        ("nosuch.Net", [], ModelNotFound, "no module 'nosuch' either", "can be imported"),
        ("pkg", [], ModelNotFound, "torchvision has no model 'pkg'", "./pkg"),
        ("pkg.modelz:net", [], ModelNotFound, "no module named 'pkg.modelz'", "did you mean 'pkg.models:net'?"),
        ("pkg.models:nett", [], ModelNotFound, "pkg.models has no 'nett'", "did you mean 'net'?"),
        ("nets.py:Nett", [], ModelNotFound, "nets.py has no 'Nett'", "did you mean 'Net'?"),
        ("nets.py:Registry.tiny", [], ModelNotFound, "Registry has no 'tiny'", "it has small"),
        ("empty.py:Net", [], ModelNotFound, "empty.py has no 'Net'", "no class, function or instance"),
        # broken modules
        ("needs:Net", [], ModelNotBuilt, "needs needs the module 'no_such_package', which is not installed (needs.py:2)", "install it"),
        ("syntax:Net", [], ModelNotBuilt, "syntax.py:2 is not valid Python", "mend"),
        ("boom:Net", [], ModelNotBuilt, "boom cannot be imported: ValueError: a b (boom.py:4)", "mend"),
        ("boom.py:Net", [], ModelNotBuilt, "boom.py cannot be imported: ValueError: a b (boom.py:4)", "mend"),
        ("exits:Net", [], ModelNotBuilt, "exits ends the program when it is imported: SystemExit: 3 (exits.py:2)", "__main__"),
        ("pkg/models.py:net", [], ModelNotBuilt, "attempted relative import", "package.module:Net"),
        # not a model
        ("nets.py:number", [], ModelNotFound, "nets.py:number is of type int, not a model", "Net, Sub"),
        ("nets.py:Config", [], ModelNotFound, "nets.py:Config is a class, but not a torch.nn.Module", "Net, Sub"),
        ("pkg:models", [], ModelNotFound, "pkg.models is a module, not a model", "pkg.models:NAME"),
        ("nets.py:pair", [], ModelNotBuilt, "nets.py:pair returned a tuple of Net, int, not a model", "one torch.nn.Module"),
        ("nets.py:forgot", [], ModelNotBuilt, "nets.py:forgot returned None, not a model", "return model"),
        # arguments
        ("nets.py:Net", [], ModelNotBuilt, "Net needs the argument 'width'", "--model-arg width=..."),
        ("nets.py:Net", ["width=4", "widht=3"], UsageError, "Net takes no argument 'widht'", "did you mean 'width'?"),
        ("nets.py:Net", ["width=4", "bias=no"], UsageError, "bias=no is text, and bias is bool", "bias=True"),
        ("nets.py:Sub", ["width=4", "depth=3"], UsageError, "Sub takes no argument 'depth'", "it takes width, bias, extra"),  # Sub sets it
        ("nets.py:build", ["width=3"], UsageError, "build takes no argument 'width'", "it takes depth, bias"),  # build sets it
        ("nets.py:picked", ["width=3"], UsageError, "picked takes no argument 'width'", "wide, deep"),
        ("nets.py:swallowing", ["width=3"], UsageError, "swallowing takes no argument 'width'", "it takes no arguments"),
        ("nets.py:instance", ["width=3"], UsageError, "nets.py:instance is a model already", "leave --model-arg out"),
        ("resnet18", ["num_classes=ten"], UsageError, "num_classes=ten is text, and num_classes is int", "num_classes=10"),
        ("resnet18", ["weights=DEFAULT"], UsageError, "weights cannot be set with --model-arg", "--weights"),
        ("fcn_resnet50", ["weights_backbone=DEFAULT"], UsageError, "weights_backbone cannot be set", "--weights"),
        # constructors that raise
        (
            "nets.py:Net",
            ["width=3"],
            ModelNotBuilt,
            "ValueError: width must be \\x1b[1meven (nets.py:14)",
            "Net(width, depth=3, bias=True)",
        ),
        ("nets.py:exits", [], ModelNotBuilt, "nets.py:exits cannot be built: SystemExit: no GPU (nets.py:", "--model-arg"),
        ("nets.py:opaque", ["width=2", "dept=1"], ModelNotBuilt, "unexpected keyword argument 'dept'", "did you mean 'depth'?"),
        ("nets.py:deeper", [], ModelNotBuilt, "missing 1 required positional argument: 'width'", "--model-arg NAME=VALUE"),
    ],
)
def test_each_mistake_has_its_own_two_lines(project: Path, text: str, args: list[str], error: type[NetlensError], message: str, hint: str):
    with pytest.raises(error) as caught:
        find(text, *args).build()
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.message.isprintable() and caught.value.hint.isprintable()


def test_the_constructors_own_exception_is_kept(project: Path):
    with pytest.raises(ModelNotBuilt) as caught:
        find("nets.py:Net", "width=3").build()
    assert isinstance(caught.value.__cause__, ValueError)


def test_wrong_weights_name_those_that_exist():
    with pytest.raises(UsageError) as caught:
        find("resnet50", weights="IMAGENET1K_V3")
    assert "it has DEFAULT, IMAGENET1K_V1, IMAGENET1K_V2" in caught.value.message


@pytest.mark.parametrize("text", ["timm:resnet18", "hf:bert", "nets:Net"])
def test_weights_are_for_torchvision(project: Path, text: str):
    with pytest.raises(UsageError, match="--weights is for the models of torchvision"):
        find(text, weights="DEFAULT")


def test_torchvision_that_does_not_fit_its_torch(monkeypatch: pytest.MonkeyPatch):
    class Broken:
        @staticmethod
        def find_spec(name: str, *_args: object) -> None:
            if name == "torchvision.models":
                raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.delitem(sys.modules, "torchvision.models")
    monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])
    with pytest.raises(ModelNotBuilt) as caught:
        find("resnet18")
    assert "does not fit torch" in caught.value.message and "torchvision::nms" in caught.value.message
    assert "pip install --upgrade torch torchvision" in caught.value.hint


# --- timm and transformers


@pytest.mark.parametrize(("package", "text", "extra"), [("timm", "timm:resnet18", "timm"), ("transformers", "hf:bert", "hf")])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, package: str, text: str, extra: str):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra) as caught:
        find(text)
    assert caught.value.hint == f"pip install 'netlens[{extra}]'"


def test_timm(offline: None):
    pytest.importorskip("timm")
    model: Any = built(find("timm:resnet18.a1_in1k", "num_classes=3"))
    assert model.fc.out_features == 3
    for text, hint in [("timm:resnt18", "timm:resnet18"), ("timm:resnet18.a1in1k", "a1_in1k"), ("timm:zebra", "list_models")]:
        with pytest.raises(ModelNotFound) as caught:
            find(text)
        assert hint in caught.value.hint
    with pytest.raises(ModelNotBuilt) as unbuilt:
        find("timm:resnet18", "numclasses=3").build()
    assert "did you mean 'num_classes'?" in unbuilt.value.hint
    with pytest.raises(UsageError, match="pretrained cannot be set"):
        find("timm:resnet18", "pretrained=True")
    with pytest.raises(ModelNotFound) as elsewhere:
        find("vit_tiny_patch16_224")
    assert elsewhere.value.hint == "did you mean 'timm:vit_tiny_patch16_224'?"


SMALL = ["hidden_size=8", "num_hidden_layers=1", "num_attention_heads=2", "intermediate_size=4", "vocab_size=11"]


def test_transformers_by_type(offline: None):
    pytest.importorskip("transformers")
    named = find("hf:bert", *SMALL)
    model: Any = named.build()
    assert type(model).__name__ == "BertModel"
    assert tuple(model.embeddings.word_embeddings.weight.shape) == (11, 8)
    assert parameters(built(named)) == parameters(model)
    with pytest.raises(UsageError) as caught:
        find("hf:bert", "hidden_siz=8")  # a config itself takes any name
    assert caught.value.hint == "did you mean 'hidden_size'?"
    with pytest.raises(ModelNotBuilt, match="hf:bert cannot be built"):
        find("hf:bert", "hidden_size=7", "num_attention_heads=2").build()
    assert find("hf:bert", *SMALL, "num_labels=5").config.num_labels == 5  # type: ignore[attr-defined]
    with pytest.raises(ModelNotFound, match="no model type 'brt'"):
        find("hf:brt")


def test_transformers_by_folder(tmp_path: Path, offline: None):
    """The head is the one that the config names; code that a config brings along is never run."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(**parse_model_args(SMALL), architectures=["BertForMaskedLM"])
    config.save_pretrained(tmp_path / "bert")
    named = find(f"hf:{tmp_path}/bert", "num_hidden_layers=2")
    model: Any = named.build()
    assert type(model).__name__ == named.name == "BertForMaskedLM"
    assert len(model.bert.encoder.layer) == 2
    remote = tmp_path / "remote"
    remote.mkdir()
    (remote / "config.json").write_text('{"model_type": "mine", "auto_map": {"AutoConfig": "code.Config"}}')
    (remote / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ModelNotFound, match="no config for"):
        find(f"hf:{remote}")
    assert not (tmp_path / "ran").exists()


def test_a_backbone_of_transformers_is_not_fetched(monkeypatch: pytest.MonkeyPatch):
    """Stands for DETR in transformers 4, whose config asks for published weights, and whose backbone's config does, too."""
    transformers = pytest.importorskip("transformers")

    class Fetching(transformers.BertModel):  # type: ignore[misc, name-defined]
        def __init__(self, config: Any):
            assert config.use_pretrained_backbone is False and config.backbone_config.use_pretrained_backbone is False
            super().__init__(config)

    def config(inner: bool, outer: bool) -> Any:
        found = transformers.BertConfig(**parse_model_args(SMALL), architectures=["Fetching"])
        found.use_pretrained_backbone, found.backbone_config = outer, transformers.BertConfig(use_pretrained_backbone=inner)
        return found

    monkeypatch.setattr(transformers, "Fetching", Fetching, raising=False)
    for inner, outer in ((False, False), (True, False), (False, True), (True, True)):
        monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *_, found=(inner, outer), **__: config(*found))
        named = find("hf:org/name")
        assert isinstance(named.build(), Fetching)
        assert named.origin.endswith(", without the published weights of its backbone") == (inner or outer)


def test_a_stored_detr_is_built_without_the_network(tmp_path: Path, offline: None):
    pytest.importorskip("transformers")
    pytest.importorskip("timm")
    sizes = {f"{part}_{what}": 1 for part in ("encoder", "decoder") for what in ("layers", "attention_heads", "ffn_dim")}
    asks = {"backbone": "resnet18", "use_timm_backbone": True, "use_pretrained_backbone": True}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "detr", "d_model": 8, "num_queries": 2, **sizes, **asks}))
    assert "Detr" in type(find(f"hf:{tmp_path}").build()).__name__


def test_transformers_on_the_hub(monkeypatch: pytest.MonkeyPatch):
    transformers = pytest.importorskip("transformers")
    asked: dict[str, object] = {}

    def unreachable(name: str, **kwargs: object) -> None:
        asked.update(kwargs, name=name)
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(ModelNotFound) as caught:
        find("hf:org/name")
    assert asked == {"name": "org/name", "trust_remote_code": False}
    assert "OSError: We couldn't connect to the hub" in caught.value.message
    assert "the network" in caught.value.hint


# --- whole registries


@pytest.mark.sweep
@pytest.mark.parametrize("name", list_models())
def test_every_torchvision_name_and_entry(name: str, offline: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_args, **_kwargs: pytest.fail("would download"))
    named = find(name)
    assert parameters(built(named)) > 0
    with pytest.raises(UsageError):
        find(name, "no_such_argument=1")
    for entry in named.presets:
        published = entry.meta["num_params"]
        if name == "quantized_inception_v3":
            # Its builder, unlike inception_v3's, drops the auxiliary head: two convolutions, their batch norms, a linear layer.
            published -= 768 * 128 + 2 * 128 + 128 * 768 * 5 * 5 + 2 * 768 + (768 + 1) * 1000
        assert parameters(built(find(name, weights=entry.name))) == published, entry


def test_accepted_arguments_of_a_mixed_chain():
    """Names that a call fills itself are not free, wherever along the chain that happens."""

    class Base(nn.Module):
        def __init__(self, a, b=2, *, c=3):
            super().__init__()

    class Middle(Base):
        def __init__(self, *args, d=4, **kwargs):
            super().__init__(*args, c=d, **kwargs)

    def factory(e=5, **kwargs):
        return Middle(1, **kwargs)

    accepted = accepted_arguments(Middle)
    assert set(accepted.parameters) == {"a", "b", "d"} and not accepted.anything
    # `1` becomes Middle's first positional argument, which *args hands on: a stays in the list, and only Base can refuse it.
    assert set(accepted_arguments(factory).parameters) == {"a", "b", "d", "e"}
