"""The state dict of a pickled module, read without its class, equals what `state_dict()` gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from netlens.loading.checkpoints.read import read_archive
from tests.checkpoints.files_modules import MODULES
from tests.checkpoints.listing import same_values, values
from tests.checkpoints.nets import Net

pytestmark = pytest.mark.filterwarnings("ignore")

FEW_TORCHVISION = ("resnet18", "vit_b_16", "swin_t", "googlenet", "mobilenet_v3_small")
FEW_TIMM = ("resnetblur18", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224", "convnext_atto", "efficientnet_b0", "levit_128s")


def check(path: Path, model: nn.Module, legacy: bool = False) -> None:
    """Save a whole model, read the file, and compare with `state_dict()`."""
    torch.save(model, path, _use_new_zipfile_serialization=not legacy)
    archive = read_archive(path)
    assert archive.kind == "pickled module"
    (group,) = archive.groups
    truth = model.state_dict()
    assert [one.name for one in group.tensors] == list(truth)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for one, tensor in zip(group.tensors, truth.values(), strict=True):
        assert (one.shape, one.dtype, one.stride) == (tuple(tensor.shape), str(tensor.dtype)[6:], tuple(tensor.stride())), one.name
        assert one.kind == ("parameter" if one.name in parameters else "buffer"), one.name
        assert one.trainable == (parameters[one.name].requires_grad if one.name in parameters else None), one.name
        assert same_values(values(archive, one), tensor), one.name
    pairs = {(one.storage, tensor.untyped_storage().data_ptr()) for one, tensor in zip(group.tensors, truth.values(), strict=True)}
    assert len({storage for storage, _ in pairs}) == len(pairs) == len({address for _, address in pairs})
    path.unlink()


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_modules_of_all_forms(make: Callable[[], nn.Module], tmp_path: Path):
    """Tied, missing and unkept tensors, wrappers, old weight_norm, recurrent, compiled, traced by fx."""
    check(tmp_path / "module.pt", make())


def test_legacy_format(tmp_path: Path):
    """The five pickles hold the class's source text, too."""
    check(tmp_path / "module.pt", Net(), legacy=True)


def test_script_has_the_names_of_its_state_dict(files: dict[str, Path]):
    """Against torch.jit's own state_dict()."""
    for name in ("script", "trace"):
        path = files[f"programs/{name}.pt"]
        (group,) = [group for group in read_archive(path).groups if group.role == "weights"]
        truth = torch.jit.load(path).state_dict()
        assert [(one.name, one.shape, one.stride) for one in group.tensors] == [(k, tuple(v.shape), v.stride()) for k, v in truth.items()]
        archive = read_archive(path)
        assert all(same_values(values(archive, one), truth[one.name]) for one in group.tensors)


def test_exported_program_has_the_names_of_its_state_dict(files: dict[str, Path]):
    """Against torch.export.load."""
    archive = read_archive(files["programs/model.pt2"])
    truth = torch.export.load(files["programs/model.pt2"]).state_dict
    (group,) = archive.groups
    assert {one.name: one.shape for one in group.tensors} == {name: tuple(tensor.shape) for name, tensor in truth.items()}
    assert all(same_values(values(archive, one), truth[one.name].detach()) for one in group.tensors)
    parameters = {name for name, tensor in truth.items() if isinstance(tensor, nn.Parameter)}
    assert {one.name for one in group.tensors if one.kind == "parameter"} == parameters


def test_distributed_checkpoint_values(files: dict[str, Path]):
    """Tensors in one piece can be read: against torch's own loader."""
    import torch.distributed.checkpoint as dcp

    archive = read_archive(files["dcp/folder"])
    (group,) = archive.groups
    truth = {f"model.{one.name}": torch.zeros(one.shape, dtype=getattr(torch, one.dtype)) for one in group.tensors}
    dcp.load(truth, checkpoint_id=files["dcp/folder"], no_dist=True)
    assert all(same_values(values(archive, one), truth[f"model.{one.name}"]) for one in group.tensors)


def _torchvision(name: str) -> nn.Module:
    import inspect

    from torchvision.models import get_model, get_model_builder

    options: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(get_model_builder(name)).parameters:
        options["weights_backbone"] = None
    return get_model(name, **options)


@pytest.mark.parametrize("name", FEW_TORCHVISION)
def test_torchvision(name: str, tmp_path: Path):
    """Some of the registry."""
    check(tmp_path / "model.pt", _torchvision(name))


@pytest.mark.parametrize("name", FEW_TIMM)
def test_timm(name: str, tmp_path: Path):
    """Some of the registry, with buffers that are not kept among them."""
    timm = pytest.importorskip("timm")
    check(tmp_path / "model.pt", timm.create_model(name))


@pytest.mark.sweep
def test_every_torchvision_model(tmp_path: Path):
    """All that can be pickled, smaller than 400 MB."""
    from torchvision.models import list_models

    done = 0
    for name in list_models():
        with torch.device("meta"):
            size = 0 if "regnet" in name else sum(p.numel() for p in _torchvision(name).parameters())
        if size < 100_000_000 and not name.startswith("quantized_"):
            check(tmp_path / "model.pt", _torchvision(name))
            done += 1
    assert done > 90


@pytest.mark.sweep
def test_one_timm_model_of_each_family(tmp_path: Path):
    """The smallest name of each module of timm."""
    timm = pytest.importorskip("timm")
    done, skipped = 0, []
    for family in timm.list_modules():
        names = timm.list_models(module=family)
        try:
            with torch.device("meta"):
                sizes = {name: sum(p.numel() for p in timm.create_model(name).parameters()) for name in names[:3]}
        except (RuntimeError, NotImplementedError, ValueError, AssertionError, ImportError):
            sizes = {names[0]: 0} if names else {}
        name = min(sizes, key=lambda one: sizes[one], default="")
        if not name or sizes[name] > 60_000_000:
            continue
        try:
            model = timm.create_model(name)
            torch.save(model, tmp_path / "model.pt")
        except (AttributeError, TypeError, RuntimeError, ImportError) as error:  # lambdas and local classes cannot be pickled
            skipped.append(f"{name}: {error}")
            continue
        check(tmp_path / "model.pt", model)
        done += 1
    assert done > 50, skipped
