"""Hold the sample models to what they promise: the truth of the scenes is true, training taught, every sick twin is sick."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sample_models import sick, train
from sample_models.scenes import CLASSES, MEAN, STD, TEXTURES, Scene, SceneDataset, scene
from sample_models.shapes import ShapeNet, ShapeViT
from tests.conftest import REPOSITORY

SAMPLES = REPOSITORY / "sample_models"
WEIGHTS = SAMPLES / "weights"
FRESH = 99  # a series of scenes that train.py neither trains nor measures on
FILES = sorted(file for folder in ("weights", "scenes") for file in (SAMPLES / folder).iterdir())


@pytest.fixture(scope="module")
def drawn() -> list[Scene]:
    return [scene(FRESH, index) for index in range(1200)]


@pytest.fixture(scope="module")
def fresh(drawn: list[Scene]) -> tuple[Tensor, Tensor]:
    """512 pictures, normalised by the definition in numpy, and their classes."""
    images = np.stack([one.image for one in drawn[:512]]).transpose(0, 3, 1, 2) / 255
    images = (images - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    return torch.from_numpy(images).float(), torch.tensor([one.labels[0] for one in drawn[:512]])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So small a model is slower with two, where other tests run beside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- Scenes


@pytest.mark.parametrize("objects", [1, 2])
def test_the_same_numbers_give_the_same_scene_and_others_another(objects):
    first, again, others = scene(3, 5, objects), scene(3, 5, objects), [scene(3, 6, objects), scene(4, 5, objects)]
    assert (first.image == again.image).all() and (first.masks == again.masks).all()
    assert (first.labels, first.boxes, first.textures, first.colours) == (again.labels, again.boxes, again.textures, again.colours)
    assert all((first.image != other.image).mean() > 0.5 for other in others)


@pytest.mark.parametrize("objects", [1, 2])
def test_a_box_is_the_smallest_that_holds_the_pixels_of_its_object(objects):
    for index in range(60):
        found = scene(FRESH, index, objects)
        assert found.image.shape == (64, 64, 3) and found.image.dtype == np.uint8 and found.masks.shape == (objects, 64, 64)
        for (left, top, right, bottom), mask in zip(found.boxes, found.masks, strict=True):
            pixels = [(x, y) for y in range(64) for x in range(64) if mask[y, x]]
            assert left == min(x for x, _ in pixels) and right == max(x for x, _ in pixels) + 1
            assert top == min(y for _, y in pixels) and bottom == max(y for _, y in pixels) + 1
            assert min(left, top) > 0 and max(right, bottom) < 64, "an object reaches the border"


def test_the_mask_is_where_the_object_was_painted():
    """The colour of a plain object fills its mask, up to the edge of antialiased pixels, and covers little outside."""
    plain = [one for one in (scene(FRESH, index) for index in range(60)) if TEXTURES[one.textures[0]] == "plain"]
    assert len(plain) > 5
    for one in plain:
        far = np.abs(one.image / 255 - np.array(one.colours[0])).max(axis=2)
        assert np.median(far[one.masks[0]]) < 0.1 < np.median(far[~one.masks[0]])


def area(label: str) -> float:
    """Return the area of a shape in a circle of radius 1."""
    corners = {"triangle": (3, 0.5), "star": (5, 0.42)}
    if label in corners:  # two triangles a point, between the origin, the tip and an inner corner
        points, inner = corners[label]
        return points * inner * math.sin(math.pi / points)
    bars = 2 * (2 * 0.95) * (2 * 0.28) - (2 * 0.28) ** 2
    return {"circle": math.pi * 0.88**2, "square": 1.4**2, "cross": bars, "ring": math.pi * (0.96**2 - 0.56**2)}[label]


def test_shapes_have_the_area_of_their_definition(drawn):
    """Radii are uniform in 10..18 pixels, so a mask has area(class) x (10^2 + 10 x 18 + 18^2) / 3 pixels in the mean."""
    for label, name in enumerate(CLASSES):
        pixels = np.array([one.masks[0].sum() for one in drawn if one.labels[0] == label])
        standard_error = pixels.std() / math.sqrt(len(pixels))
        assert abs(pixels.mean() - area(name) * (100 + 180 + 324) / 3) < 4 * standard_error, name


def test_the_class_says_nothing_about_place_texture_and_colour(drawn):
    """Chi-squared (texture) and F (the rest) of 1,200 scenes, below what chance exceeds once in 10,000 times."""
    labels = np.array([one.labels[0] for one in drawn])
    table = np.array([[sum((labels == label) & texture) for texture in textures_of(drawn)] for label in range(len(CLASSES))])
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    assert ((table - expected) ** 2 / expected).sum() < 44.3  # 15 degrees of freedom
    for values in (*places_of(drawn), *np.array([one.colours[0] for one in drawn]).T):
        groups = [values[labels == label] for label in range(len(CLASSES))]
        between = sum(len(group) * (group.mean() - values.mean()) ** 2 for group in groups) / (len(groups) - 1)
        within = sum(((group - group.mean()) ** 2).sum() for group in groups) / (len(values) - len(groups))
        assert between / within < 5.2  # F with 5 and 1,194 degrees of freedom


def textures_of(drawn: list[Scene]) -> list[np.ndarray]:
    return [np.array([one.textures[0] == texture for one in drawn]) for texture in range(len(TEXTURES))]


def places_of(drawn: list[Scene]) -> np.ndarray:
    return np.array([((left + right) / 2, (top + bottom) / 2) for left, top, right, bottom in (one.boxes[0] for one in drawn)]).T


def test_two_objects_differ_in_class_and_their_boxes_do_not_overlap():
    for index in range(150):
        found = scene(FRESH, index, objects=2)
        assert len(set(found.labels)) == 2
        (l1, t1, r1, b1), (l2, t2, r2, b2) = found.boxes
        assert r1 <= l2 or r2 <= l1 or b1 <= t2 or b2 <= t1


def test_the_data_set_gives_normalised_scenes():
    data = SceneDataset(length=3, seed=FRESH)
    pairs = list(data)
    assert (len(data), len(pairs), [label for _, label in pairs]) == (3, 3, [scene(FRESH, index).labels[0] for index in range(3)])
    image, pixel = pairs[2][0], scene(FRESH, 2).image[10, 20]  # row 10, column 20
    assert image.shape == (3, 64, 64) and image.dtype == torch.float32
    np.testing.assert_allclose(image[:, 10, 20], (pixel / 255 - MEAN) / STD, rtol=1e-5, atol=1e-6)


def test_mean_and_standard_deviation_are_those_of_the_scenes(drawn):
    values = np.stack([one.image for one in drawn]) / 255
    np.testing.assert_allclose(values.mean((0, 1, 2)), MEAN, atol=0.02)
    np.testing.assert_allclose(values.std((0, 1, 2)), STD, atol=0.02)


def test_the_examples_lie_there_with_their_boxes():
    boxes = json.loads((SAMPLES / "scenes" / "boxes.json").read_text(encoding="utf-8"))
    assert sorted(boxes) == sorted(file.name for file in (SAMPLES / "scenes").glob("*.png"))
    assert sorted(len(objects) for objects in boxes.values()) == [1] * 8 + [2] * 4
    for count in (1, 2):
        assert {each["label"] for objects in boxes.values() if len(objects) == count for each in objects} == set(CLASSES)
    for number, (name, objects) in enumerate(sorted(boxes.items())):
        again = scene(220, number, len(objects))
        assert [(CLASSES[label], list(box)) for label, box in zip(again.labels, again.boxes, strict=True)] == [
            (each["label"], each["box"]) for each in objects
        ]
        image = np.asarray(Image.open(SAMPLES / "scenes" / name)).astype(int)
        assert np.abs(image - again.image).mean() < 0.1  # of 255: another processor may round otherwise


# --- Weights


def metadata(file: Path) -> dict[str, str]:
    content = file.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]


@torch.no_grad()
def share_right(model: nn.Module, fresh: tuple[Tensor, Tensor]) -> float:
    images, labels = fresh
    return float(np.mean(model.eval()(images).numpy().argmax(1) == labels.numpy()))


def loaded(name: str, model: nn.Module) -> nn.Module:
    model.load_state_dict(sick.load_weights(name))
    return model


def four_errors(share: float, count: int) -> float:
    """Four standard errors of the difference between a share of `count` and one of the 2,500 that train.py counts."""
    return 4 * math.sqrt(share * (1 - share) * (1 / count + 1 / 2500))


@pytest.mark.parametrize(("name", "build"), [("shapenet", ShapeNet), ("shapevit", ShapeViT), ("untrained", ShapeNet)])
def test_the_weights_reach_the_accuracy_that_they_state(name, build, fresh):
    said = metadata(WEIGHTS / f"{name}.safetensors")
    stated = float(said["accuracy"])
    assert abs(share_right(loaded(name, build()), fresh) - stated) < four_errors(stated, 512)
    assert said["architecture"] == f"sample_models/shapes.py:{build.__name__}"
    assert (said["classes"], said["input_size"]) == (",".join(CLASSES), "3,64,64")
    assert (said["mean"], said["std"]) == (",".join(map(str, MEAN)), ",".join(map(str, STD)))


def test_the_trained_models_are_good_and_the_untrained_twin_guesses():
    stated = {name: float(metadata(WEIGHTS / f"{name}.safetensors")["accuracy"]) for name in ("shapenet", "shapevit", "untrained")}
    assert stated["shapenet"] > 0.97
    assert stated["shapevit"] > 0.97
    assert abs(stated["untrained"] - 1 / 6) < 0.05


def attention_from_class_token(model: ShapeViT, images: Tensor) -> np.ndarray:
    """Softmax of query times key in the last block, its definition in numpy: (N, 8, 8), mean over heads, sums to 1."""
    with outputs(model, nn.Linear) as found:
        scores(model, (images, images))
    joint = found["blocks.1.attn.qkv"].double().numpy().reshape(-1, 65, 3, 4, 16)  # sample, token, query key value, head, width
    weights = np.exp(np.einsum("nhd,nthd->nht", joint[:, 0, 0], joint[:, 1:, 1]) / math.sqrt(16))
    return (weights / weights.sum(2, keepdims=True)).mean(1).reshape(-1, 8, 8)


@pytest.mark.parametrize(("source", "low", "high"), [("trained", 2, 5), ("untrained", 0.8, 1.2)])
def test_the_trained_transformer_looks_at_the_object(source, low, high, drawn, fresh):
    """Attention inside the box, in units of what attention spread evenly would leave there."""
    torch.manual_seed(0)
    model = ShapeViT() if source == "untrained" else loaded("shapevit", ShapeViT())
    attention = np.kron(attention_from_class_token(model, fresh[0]), np.full((8, 8), 1 / 64))  # an even share to every pixel of a patch
    boxes = [one.boxes[0] for one in drawn[:512]]
    inside = [grid[top:bottom, left:right].sum() for grid, (left, top, right, bottom) in zip(attention, boxes, strict=True)]
    even = [(right - left) * (bottom - top) / 64**2 for left, top, right, bottom in boxes]
    assert low < np.mean(inside) / np.mean(even) < high


def test_the_untrained_twin_is_where_training_began():
    torch.manual_seed(0)
    torch.testing.assert_close(sick.load_weights("untrained"), dict(ShapeNet().state_dict()), rtol=0, atol=0)


def test_trained_first_filters_are_smooth_and_untrained_ones_are_noise():
    """Neighbours in white noise differ by twice the variance; in an edge or a spot of colour, by a small part of it."""

    def roughness(name: str) -> float:
        weight = sick.load_weights(name)["stem.conv.weight"].double().numpy()
        steps = [np.diff(weight, axis=axis) for axis in (2, 3)]
        return float(np.mean([(step**2).mean() for step in steps]) / (2 * weight.var()))

    assert 0.9 < roughness("untrained") < 1.1
    assert roughness("shapenet") < 0.35


@pytest.mark.parametrize("file", sorted(WEIGHTS.glob("*.safetensors")), ids=lambda file: file.stem)
def test_safetensors_files_are_what_the_safetensors_package_reads(file):
    safetensors = pytest.importorskip("safetensors", reason="in the dev extra, through transformers")
    from safetensors.torch import load_file

    torch.testing.assert_close(sick.load_weights(file.stem), load_file(file), rtol=0, atol=0)
    with safetensors.safe_open(file, framework="pt") as opened:
        assert opened.metadata() == metadata(file)


def test_checkpoints_load_without_running_code_and_show_progress(fresh):
    contents = [torch.load(file, weights_only=True) for file in sorted(WEIGHTS.glob("*.ckpt"))]
    assert [set(content) for content in contents] == [{"epoch", "global_step", "accuracy", "state_dict"}] * 3
    assert [content["epoch"] for content in contents] == [1, 7, 14]
    assert [content["global_step"] for content in contents] == [200 * content["epoch"] for content in contents]  # 8,000 / 40 a step
    for content in contents:
        model = ShapeNet()
        model.load_state_dict(content["state_dict"])
        assert abs(share_right(model, fresh) - content["accuracy"]) < four_errors(content["accuracy"], 512)
    first, middle, last = (content["accuracy"] for content in contents)
    assert first < 0.5 < middle < last
    for one, other in itertools.combinations(contents, 2):
        assert not torch.equal(one["state_dict"]["stem.conv.weight"], other["state_dict"]["stem.conv.weight"])
    torch.testing.assert_close(contents[-1]["state_dict"], sick.load_weights(), rtol=0, atol=0, check_stride=False)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_file_is_large(file):
    assert 0 < file.stat().st_size < 500_000


def test_all_files_together_are_small():
    assert sum(file.stat().st_size for file in FILES) < 2_500_000


@pytest.mark.parametrize(
    ("build", "objective", "recipe"), [(ShapeNet, train.Scores, train.CNN), (ShapeViT, train.ScoresAndPatches, train.VIT)]
)
def test_training_is_deterministic_and_changes_every_parameter(build, objective, recipe):
    def three_steps() -> nn.Module:
        torch.manual_seed(0)
        model = build()
        train.train(objective(model), train.draw(5, 3 * recipe.batch_size), dataclasses.replace(recipe, epochs=1))
        return model

    torch.manual_seed(0)
    start = build().state_dict()
    first, again = three_steps(), three_steps()
    torch.testing.assert_close(first.state_dict(), again.state_dict(), rtol=0, atol=0)
    assert [name for name, parameter in first.named_parameters() if torch.equal(parameter, start[name])] == []


def test_a_cell_looks_at_the_pixels_over_which_it_is_drawn():
    """With filters of ones every path from the picture counts alike, so the middle of the gradient is that of what the cell sees."""
    model, picture = ShapeNet(norm=False).double(), torch.ones(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    cells = model.layer3(model.layer2(model.layer1(model.stem(picture))))
    row, column = 4, 3  # sees nothing beyond the border

    (gradient,) = torch.autograd.grad(cells[0, 0, row, column], picture)

    weights, centres = gradient[0].sum(0).numpy(), np.arange(64) + 0.5
    middle = [float((weights.sum(axis) * centres).sum() / weights.sum()) for axis in (1, 0)]
    assert middle == pytest.approx([8 * row + 4, 8 * column + 4], abs=0.51)  # the 7 x 7 filters are half a pixel off


def test_the_cnn_is_trained_on_one_object_and_on_two(monkeypatch):
    monkeypatch.setattr(train, "TRAINING_SCENES", 7)
    monkeypatch.setattr(train, "WITH_TWO_OBJECTS", 3)
    drawn = train.draw_one_or_two()
    scenes = [scene(1, index) for index in range(4)] + [scene(1, index, objects=2) for index in range(3)]
    for image, shares, masks, one in zip(drawn.images, drawn.shares, drawn.masks, scenes, strict=True):
        assert (image.permute(1, 2, 0).numpy() == one.image).all()
        assert shares.tolist() == [one.labels.count(label) / len(one.labels) for label in range(len(CLASSES))]
        assert (masks[0].numpy() == one.masks.max(0)).all()


@pytest.mark.parametrize(("build", "limit"), [(ShapeNet, 90_000), (ShapeViT, 120_000)])
def test_the_models_are_small(build, limit):
    assert sum(parameter.numel() for parameter in build().parameters()) < limit


# --- Sick twins: a symptom is a function of a model and pictures that is true of the sick and false of the healthy


@contextmanager
def outputs(model: nn.Module, *kinds: type[nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Collect what the layers of some kinds return."""
    found: dict[str, Tensor] = {}
    handles = [
        layer.register_forward_hook(lambda _layer, _args, output, name=name: found.__setitem__(name, output.detach().clone()))
        for name, layer in model.named_modules()
        if isinstance(layer, kinds)
    ]
    yield found
    for handle in handles:
        handle.remove()


def gradients(model: nn.Module, fresh: tuple[Tensor, Tensor]) -> dict[str, Tensor | None]:
    images, labels = fresh
    F.cross_entropy(model.train()(images[:64]), labels[:64]).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def without_gradient(model: nn.Module, fresh: tuple[Tensor, Tensor]) -> set[str]:
    return {name.split(".")[0] for name, gradient in gradients(model, fresh).items() if gradient is None}


def scores(model: nn.Module, fresh: tuple[Tensor, Tensor]) -> Tensor:
    with torch.no_grad():
        return model.eval()(fresh[0])


def has_dead_relu(model, fresh):
    """Tell whether most channels are silent: with statistics of a new layer, half of the last ones are on so few pictures."""
    with outputs(model, nn.ReLU) as found:
        scores(model, fresh)
    return any((output.amax((0, 2, 3)) <= 0).double().mean() >= 0.7 for output in found.values())


def has_saturated_sigmoid(model, fresh):
    with outputs(model, nn.Sigmoid) as found:
        scores(model, fresh)
    return any((4 * output * (1 - output) < 0.05).double().mean() >= 0.9 for output in found.values())


def has_duplicate_filters(model, fresh):
    filters = model.stem.conv.weight.detach().flatten(1).double().numpy()
    directions = filters / np.linalg.norm(filters, axis=1, keepdims=True)
    cosines = directions @ directions.T
    return (cosines - 2 * np.eye(len(cosines))).max(0).min() > 0.995  # every filter has a twin


def has_stale_statistics(model, fresh):
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d) and not (layer.weight == 1).all()]
    return any((layer.running_mean == 0).all() and (layer.running_var == 1).all() for layer in layers)


SYMPTOMS: dict[str, Callable[[nn.Module, tuple[Tensor, Tensor]], bool]] = {
    "dead_relu": has_dead_relu,
    "saturated_sigmoid": has_saturated_sigmoid,
    "exploding_init": lambda model, fresh: bool(scores(model, fresh).abs().max() > 1e5),
    "vanishing_init": lambda model, fresh: bool(scores(model, fresh).abs().max() < 1e-5),
    "frozen_body": lambda model, fresh: "layer3" in without_gradient(model, fresh),
    "detached_branch": lambda model, fresh: without_gradient(model, fresh) == {"stem", "layer1"},
    "nan_weight": lambda model, fresh: bool(scores(model, fresh).isnan().any()),
    "constant_output": lambda model, fresh: bool((scores(model, fresh) == scores(model, fresh)[0]).all()),
    "duplicate_filters": has_duplicate_filters,
    "unused_layer": lambda model, fresh: without_gradient(model, fresh) == {"layer4"},
    "wrong_normalisation": has_stale_statistics,
}


@pytest.mark.parametrize("name", SYMPTOMS)
def test_a_sick_twin_has_its_symptom_and_no_other(name, fresh):
    fewer = (fresh[0][:64], fresh[1][:64])
    assert {symptom for symptom, shows in SYMPTOMS.items() if shows(getattr(sick, name)(), fewer)} == {name}


@pytest.mark.parametrize("build", [sick.healthy, sick.fresh_plain, ShapeNet], ids=["trained", "without normalisation", "fresh"])
def test_a_healthy_network_has_no_symptom(build, fresh):
    torch.manual_seed(0)
    model, fewer = build(), (fresh[0][:64], fresh[1][:64])
    assert {symptom for symptom, shows in SYMPTOMS.items() if shows(model, fewer)} == set()


@pytest.mark.parametrize(("name", "outside"), [("exploding_init", 4), ("vanishing_init", 4), ("fresh_plain", 0), ("healthy", 0)])
def test_a_bad_start_has_weights_of_a_size_that_no_initialisation_gives(name, outside):
    """RMS x sqrt(fan_in) is 0.58 by PyTorch's default and 1.41 by He's; netlens fails what is outside 1e-3..30."""
    layers = [layer for layer in getattr(sick, name)().modules() if isinstance(layer, nn.Conv2d)]
    gains = [layer.weight.square().mean().sqrt().item() * math.sqrt(layer.weight[0].numel()) for layer in layers]
    assert sum(not 1e-3 <= gain <= 30 for gain in gains) == outside


def test_wrong_normalisation_is_right_in_train_mode_and_wrong_in_eval_mode(fresh):
    images, labels = fresh
    with torch.no_grad():
        in_train_mode = (sick.wrong_normalisation()(images).argmax(1) == labels).double().mean().item()
    assert in_train_mode > 0.85
    assert share_right(sick.wrong_normalisation(), fresh) < 0.5


def test_the_detached_branch_and_the_unused_layer_do_not_show_in_the_scores(fresh):
    few = (fresh[0][:32], fresh[1][:32])
    for twin in (sick.detached_branch(), sick.unused_layer()):
        torch.testing.assert_close(scores(twin, few), scores(sick.healthy(), few), rtol=0, atol=0)


def test_every_call_builds_the_same_twin():
    for name in SYMPTOMS:
        first, again = (getattr(sick, name)().state_dict() for _ in range(2))
        torch.testing.assert_close(first, again, rtol=0, atol=0, equal_nan=True)
