"""Causes are known here because the tests planted them: models saved with other arguments, of other classes, in other ways."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from netlens.errors import CheckpointDoesNotFit
from netlens.loading.checkpoints.archive import Archive, TensorGroup
from netlens.loading.checkpoints.causes import checked_fit
from netlens.loading.checkpoints.identify import architectures
from netlens.loading.models import find_model
from netlens.loading.specs import parse_model_args, parse_model_spec
from netlens.probing.building import built_on_meta
from tests.checkpoints import fingerprints
from tests.checkpoints.by_hand import archive, group, named, saved, tensor

torchvision = pytest.importorskip("torchvision")


class Net(nn.Module):
    """No argument of it is named as any convention would have it."""

    def __init__(self, colours: int = 3, breadth: int = 32, answers: int = 10, storeys: int = 2, odd: bool = True, word: str = "a"):
        super().__init__()
        self.stem = nn.Conv2d(colours, breadth, 3)
        self.rest = nn.ModuleList([nn.Conv2d(breadth, breadth, 3) for _ in range(storeys)])
        self.norm = nn.BatchNorm2d(breadth * 2)
        self.out = nn.Linear(breadth * 2, answers)


def wide(**kwargs) -> nn.Module:
    """Hide the arguments of the class behind `**kwargs`, as torchvision does."""
    return Net(breadth=64, **{"answers": 5, **kwargs})


def refusal(build, found: Archive, **args) -> CheckpointDoesNotFit:
    def again(changed):
        return named(build, **changed)

    with pytest.raises(CheckpointDoesNotFit) as caught:
        checked_fit(again(args), found, again)
    return caught.value


@pytest.mark.parametrize(
    "planted",
    [
        {"answers": 37},
        {"answers": 1},
        {"colours": 1},
        {"breadth": 16},
        {"breadth": 48},
        {"storeys": 5},
        {"storeys": 1},
        {"answers": 37, "colours": 1},
        {"breadth": 24, "storeys": 4},
        {"answers": 7, "colours": 4, "breadth": 8},
    ],
    ids=str,
)
def test_the_arguments_that_were_planted_are_found(planted):
    error = refusal(Net, archive(saved(Net(**planted))))
    assert error.hint.startswith("try ")
    options = error.hint.removeprefix("try ").split("--model-arg ")[1:]
    assert parse_model_args(option.strip() for option in options) == planted


def test_arguments_that_the_user_gave_are_changed_too():
    assert refusal(Net, archive(saved(Net(answers=37))), answers=12, word="b").hint == "try --model-arg answers=37"


def test_arguments_behind_kwargs_are_found():
    assert refusal(wide, archive(saved(wide(colours=1)))).hint == "try --model-arg colours=1"


def test_arguments_are_found_below_a_prefix_and_a_key():
    error = refusal(Net, archive(saved(Net(answers=37), prefix="module.", key="state_dict")))
    assert error.hint == "try --model-arg answers=37"
    assert error.message.endswith("fit Net · key `state_dict` · prefix `module.` stripped")


def test_nothing_is_suggested_that_does_not_fit_completely():
    """Another size of kernel is no argument: no integer gives it."""
    other = Net(answers=37)
    other.stem = nn.Conv2d(3, 32, 5)
    error = refusal(Net, archive(saved(other)))
    assert "--model-arg" not in error.hint and not any("--model-arg" in cause for cause in error.causes)


def test_a_constructor_that_prints_and_raises_is_tried_quietly(capfd):
    class Loud(Net):
        def __init__(self, answers: int = 10):
            print("built")
            if answers % 2:
                raise ValueError("odd")
            super().__init__(answers=answers)

    assert refusal(Loud, archive(saved(Net(answers=38)))).hint == "try --model-arg answers=38"
    assert capfd.readouterr().out.count("built") <= 1  # the model's own first building


def test_a_file_that_claims_absurd_sizes_costs_nothing():
    huge = archive(
        group({**{name: tuple(t.shape) for name, t in Net().state_dict().items()}, "out.weight": (2**40, 64), "out.bias": (2**40,)})
    )
    assert "--model-arg" not in refusal(Net, huge).hint


@pytest.mark.parametrize(
    ("name", "planted", "hint"),
    [
        ("resnet18", {"num_classes": 37}, "try --model-arg num_classes=37"),
        ("resnet50", {"num_classes": 37, "width_per_group": 128}, "try --model-arg width_per_group=128 --model-arg num_classes=37"),
        ("vit_b_16", {"num_classes": 12}, "try --model-arg num_classes=12"),
        ("mobilenet_v3_small", {"num_classes": 12}, "try --model-arg num_classes=12"),
        pytest.param(
            "fasterrcnn_mobilenet_v3_large_fpn",
            {"num_classes": 4, "weights": None, "weights_backbone": None},
            "try --model-arg num_classes=4",
            marks=pytest.mark.sweep,
        ),
    ],
)
def test_arguments_of_torchvisions_models(name, planted, hint):
    with built_on_meta():
        found = archive(saved(torchvision.models.get_model(name, **planted)))
    assert torchvision_refusal(name, found).hint == hint


def torchvision_refusal(name: str, found: Archive) -> CheckpointDoesNotFit:
    def again(args):
        return find_model(parse_model_spec(name), args)

    with pytest.raises(CheckpointDoesNotFit) as caught:
        checked_fit(again({}), found, again)
    return caught.value


def test_arguments_of_timms_models():
    timm = pytest.importorskip("timm")
    with built_on_meta():
        found = archive(saved(timm.create_model("vit_tiny_patch16_224", num_classes=7, in_chans=1, depth=6)))
    hint = torchvision_refusal("timm:vit_tiny_patch16_224", found).hint
    assert sorted(hint.removeprefix("try ").split("--model-arg ")[1:]) == ["depth=6 ", "in_chans=1", "num_classes=7 "]


# --- Other causes


def test_another_architecture_is_named():
    with built_on_meta():
        found = archive(saved(torchvision.models.resnet34(num_classes=5), prefix="module."))
    error = torchvision_refusal("resnet18", found)
    assert error.causes[0].startswith("the tensors are those of torchvision's resnet34, not of resnet18")
    assert error.hint == "try netlens summary resnet34 --checkpoint weights.pth"


def test_names_of_nothing_in_common_are_another_model():
    assert any("saved from another model" in cause for cause in refusal(Net, archive(group({f"x.{i}": (2,) for i in range(20)}))).causes)


def test_an_adapter_is_no_model():
    names = {f"layers.{i}.q.lora_{part}.weight": (4, 32) for i in range(3) for part in "AB"}
    error = refusal(Net, archive(group(names)))
    assert "only an adapter (LoRA)" in error.causes[0] and "base model" in error.hint


def test_quantised_weights_are_told():
    tensors = tuple(tensor(name, tuple(value.shape), "int8") for name, value in Net().state_dict().items())
    assert "quantised weights (int8)" in refusal(Net, archive(TensorGroup("", "weights", tensors))).causes[0]


def test_averaged_weights_that_fit_are_pointed_at_and_not_taken():
    error = refusal(Net, archive(group({"other.weight": (3, 3)}, key="model"), saved(Net(), key="ema", role="ema")))
    assert error.hint == "try --key ema"


def test_what_stands_outside_the_prefix_can_be_left_out():
    inside, outside = saved(Net(), prefix="model."), tensor("loss.weight", (10,))
    error = refusal(Net, archive(TensorGroup("state_dict", "weights", (*inside.tensors, outside))))
    assert error.hint == "try --strip-prefix model."


def test_weights_of_a_part_are_told():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = Net(), nn.Linear(10, 2)

    assert any("below `backbone` of the model" in cause for cause in refusal(Whole, archive(saved(Net()))).causes)


def test_there_are_at_most_three_causes():
    with built_on_meta():
        found = archive(saved(torchvision.models.wide_resnet50_2(num_classes=5)))
    assert len(torchvision_refusal("resnet50", found).causes) <= 3


def test_without_strictness_what_fits_is_enough_but_nothing_is_too_little():
    def again(changed):
        return named(Net, **changed)

    part = checked_fit(again({}), archive(saved(Net(answers=37))), again, strict=False)
    assert (part.fitting, part.total, part.complete) == (11, 13, False)
    with pytest.raises(CheckpointDoesNotFit):
        checked_fit(again({}), archive(group({"x": (1,)})), again, strict=False)


def test_looking_for_causes_leaves_the_users_own_model_alone():
    model = Net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    own = type(named(Net))("nets.py:net", "python", "", "net", lambda: model, is_instance=True)
    with pytest.raises(CheckpointDoesNotFit):
        checked_fit(own, archive(saved(Net(answers=37))), lambda args: own)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# --- Old names, through the model's own code


def test_published_vision_transformers_have_names_that_the_model_itself_renames():
    """vit_b_16's weights of 2022 have `mlp.linear_1`, and MLPBlock._load_from_state_dict makes `mlp.0` of it."""
    with built_on_meta():
        now = saved(torchvision.models.vit_b_16())
    old = tuple(tensor(t.name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."), t.shape, t.dtype) for t in now.tensors)

    def again(args):
        return find_model(parse_model_spec("vit_b_16"), args)

    found = checked_fit(again({}), archive(TensorGroup("", "weights", old)), again)
    assert found.complete and {pair.name: pair.tensor.name for pair in found.pairs if "layer_0.mlp" in pair.name} == {
        f"encoder.layers.encoder_layer_0.mlp.{new}.{kind}": f"encoder.layers.encoder_layer_0.mlp.{was}.{kind}"
        for new, was in (("0", "linear_1"), ("3", "linear_2"))
        for kind in ("weight", "bias")
    }


# --- Fingerprints


@pytest.mark.parametrize("name", ["resnet50", "vgg11_bn", "vit_b_16", "swin_t", "densenet121"])
def test_a_fingerprint_does_not_depend_on_the_head_nor_on_a_prefix(name):
    with built_on_meta():
        model = torchvision.models.get_model(name, num_classes=13)
    entries = [(f"module._orig_mod.{key}", tuple(value.shape)) for key, value in reversed(model.state_dict().items())]
    assert architectures(entries) == (name,)


def test_models_that_cannot_be_told_apart_are_all_named():
    both = ("fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_mobilenet_v3_large_fpn")  # they differ in the size of their input
    assert all(architectures(fingerprints.entries_of(name)) == both for name in both)


def test_an_unknown_model_has_no_name():
    assert architectures((name, tuple(value.shape)) for name, value in Net().state_dict().items()) == ()


@pytest.mark.sweep
def test_the_table_is_that_of_the_installed_torchvision():
    from netlens.loading.checkpoints.architectures import BODIES, WHOLE

    assert fingerprints.tables() == (WHOLE, BODIES)
