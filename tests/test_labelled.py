"""Inputs with labels: each input keeps its own label, the same number gives the same batch, and what is random is said."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from netlens.errors import InputError, NetlensError
from netlens.loading.asked import AskedModel
from netlens.loading.asked_run import AskedSamples
from netlens.loading.labelled import Batches, answered, labelled_batches
from netlens.loading.loss_names import LOSSES
from netlens.loading.losses import choose_loss
from netlens.loading.named import NamedModel
from netlens.loading.replaying import Replayed
from netlens.loading.specs import ModelSpec
from netlens.loading.valued import Valued
from tests.conftest import REPOSITORY

DATA = '''
import random
import numpy as np, torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

class Pairs(Dataset):
    """Sample i is (i, i, i), its label 10 * i: 11 of them."""
    def __len__(self): return 11
    def __getitem__(self, index): return torch.full((3,), float(index)), 10 * index

class Numbers(Pairs):
    def __getitem__(self, index): return torch.full((3,), float(index)), float(index) / 2

class Vectors(Pairs):
    def __getitem__(self, index): return torch.full((3,), float(index)), [index, 0, 1]

class Named(Pairs):
    def __getitem__(self, index): return {"x": torch.full((3,), float(index)), "label": 10 * index, "id": "a"}

class Bare(Pairs):
    def __getitem__(self, index): return torch.full((3,), float(index))

class Texts(Pairs):
    def __getitem__(self, index): return torch.full((3,), float(index)), "cat"

class Broken(Pairs):
    def __getitem__(self, index):
        if index == 3: raise ValueError("no such file")
        return super().__getitem__(index)

class Noisy(Pairs):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + torch.rand(3) + random.random() + np.random.rand(), y

class Boxes(Pairs):
    def __getitem__(self, index):
        return torch.zeros(3, 8 + index, 8), {"boxes": torch.tensor([[0.0, 0, 4, 4]]), "labels": torch.tensor([index])}

class Masks(Pairs):
    def __getitem__(self, index):
        from PIL import Image
        return torch.zeros(3, 4, 4), Image.fromarray(np.full((4, 4), index, np.uint8))

class Stream(IterableDataset):
    def __iter__(self): return iter([Pairs()[index] for index in range(11)])

def loader(): return DataLoader(Pairs(), batch_size=5)
def shuffled(): return DataLoader(Noisy(), batch_size=5, shuffle=True)
def detection(): return DataLoader(Boxes(), batch_size=2, collate_fn=lambda batch: tuple(zip(*batch)))
def once():
    yield torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)
generator = once()
'''


class Takes(nn.Module):
    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        self.fc = nn.Linear(3, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


class Labelled(Takes):
    """Computes its own loss where it gets labels."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        scores = super().forward(x)
        return scores if labels is None else (nn.functional.cross_entropy(scores, labels), scores)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.py").write_text(DATA)
    return tmp_path


def batches_of(model: nn.Module | None = None, *, loss: Any = "mse", seed: int = 0, **asked: Any) -> Batches:
    model = model or Takes()
    named = NamedModel("net", "python", "", "Net", lambda: model, is_instance=True)
    spec = AskedModel(ModelSpec("net", "python"), {}, None, None, None)
    return labelled_batches(AskedSamples.of({"batch_size": 4, **asked}), spec, Valued(model, named, "", True), loss=loss, seed=seed)


def read(batches: Batches, count: int) -> list[tuple[list[float], list[float]]]:
    found = [batches.batch(number) for number in range(count)]
    inputs = [batch.args[0] if batch.args else batch.kwargs["x"] for batch in found]
    return [(x.flatten(1)[:, 0].tolist(), batch.labels.tolist()) for x, batch in zip(inputs, found, strict=True)]


# --- Data sets


@pytest.mark.parametrize("name", ["Pairs", "Named", "loader", "Stream", "shuffled"])
def test_each_input_keeps_its_label_and_each_comes_once(folder, name):
    batches = batches_of(data=f"data.py:{name}")
    count = 2 if name in ("Pairs", "Named") else 3
    found = read(batches, count)
    inputs, labels = [x for xs, _ in found for x in xs], [y for _, ys in found for y in ys]
    assert len(set(inputs)) == len(inputs) == {"Pairs": 8, "Named": 8}.get(name, 11)
    assert labels == [10 * int(x) for x in inputs] if name != "shuffled" else sorted(labels) == list(range(0, 110, 10))
    assert batches.labels == "--data" and not batches.random_labels and not batches.random_inputs


@pytest.mark.parametrize("name", ["Pairs", "loader", "Stream", "Noisy", "shuffled"])
def test_a_number_is_always_the_same_batch(folder, name):
    """Whatever the order in which they are asked for, and whatever else draws in between."""
    batches, others = batches_of(data=f"data.py:{name}"), batches_of(data=f"data.py:{name}")
    straight = [batches.batch(number).args[0] for number in range(2)]
    torch.rand(3)
    assert torch.equal(others.batch(1).args[0], straight[1]) and torch.equal(others.batch(0).args[0], straight[0])
    assert torch.equal(batches.batch(1).args[0], straight[1]) and not torch.equal(straight[0], straight[1])


def test_other_seeds_shuffle_otherwise_and_no_random_state_is_touched(folder):
    model = Takes()
    state = torch.get_rng_state()
    first, second = (read(batches_of(model, data="data.py:Pairs", seed=seed), 1) for seed in (0, 1))
    assert first != second and torch.equal(torch.get_rng_state(), state)


def test_after_the_last_batch_the_first_comes_again(folder):
    for name, count in (("Pairs", 2), ("loader", 3), ("Stream", 3)):
        batches = batches_of(data=f"data.py:{name}")
        assert batches.notes() == ()
        found = read(batches, 2 * count + 1)
        assert found[count:] == [*found[:count], found[0]]
        assert batches.notes()[-1] == f"--data data.py:{name} has {count} batches of different samples: they come again from the first"


def test_few_samples_are_one_batch_and_a_loader_keeps_its_size(folder):
    assert len(read(batches_of(data="data.py:Pairs", batch_size=64), 1)[0][1]) == 11
    assert len(read(batches_of(data="data.py:Pairs", samples=3), 1)[0][1]) == 3
    assert len(read(batches_of(data="data.py:loader", batch_size=2), 1)[0][1]) == 5


def test_labels_are_kept_whatever_they_are(folder):
    (inputs, labels), *_ = read(batches_of(data="data.py:Numbers"), 1)
    assert labels == [x / 2 for x in inputs]
    (inputs, rows), *_ = read(batches_of(data="data.py:Vectors"), 1)
    assert rows == [[x, 0, 1] for x in inputs]
    assert batches_of(data="data.py:Texts").batch(0).labels == ["cat"] * 4
    masks = batches_of(data="data.py:Masks").batch(0).labels
    assert masks.shape == (4, 4, 4) and masks.dtype == torch.uint8


@pytest.mark.parametrize("name", ["Boxes", "detection"])
def test_pictures_with_boxes_are_lists(folder, name):
    batch = batches_of(data=f"data.py:{name}", batch_size=2).batch(0)
    (pictures,) = batch.args
    assert isinstance(pictures, list) and [picture.shape[1] - 8 for picture in pictures] == [int(each["labels"]) for each in batch.labels]


def test_a_sample_that_raises_is_named_with_the_line(folder):
    batches = batches_of(data="data.py:Broken", batch_size=1)
    with pytest.raises(InputError, match=r"^sample 3 of data.py:Broken raised ValueError: no such file \(data.py:\d+\)$"):
        read(batches, 11)


def test_a_generator_that_is_over_is_told(folder):
    batches = batches_of(data="data.py:generator")
    with pytest.raises(InputError, match="gives nothing") as error:
        read(batches, 2)
    assert "only once" in error.value.hint
    first, second = read(batches_of(data="data.py:once"), 2)
    assert first == second


def test_folders_are_classes_and_come_mixed(folder):
    for label, name in enumerate(("cats", "dogs")):
        (folder / "train" / name).mkdir(parents=True)
        for index in range(8):
            Image.new("RGB", (4, 4), (100 * label + index, 0, 0)).save(folder / "train" / name / f"{index}.png")
    model = nn.Sequential(nn.Conv2d(3, 2, 3))
    batches = batches_of(model, data="train", batch_size=8, size="4", mean="0", std="1")
    found = [batches.batch(number) for number in range(2)]
    for batch in found:
        red = (batch.args[0][:, 0, 0, 0] * 255).round()
        assert batch.labels.tolist() == (red >= 100).long().tolist() and batch.labels.unique().tolist() == [0, 1]


def test_one_batch_is_held_at_a_time():
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0

    class Watched(list):  # type: ignore[type-arg]
        __hash__ = object.__hash__  # type: ignore[assignment]

    def start() -> Iterator[Any]:
        nonlocal most
        for index in range(20):
            alive.add(batch := Watched([index]))
            most = max(most, len(alive))
            yield batch
            del batch

    replayed = Replayed(start, 0)
    assert [replayed(number)[0] for number in (0, 1, 1, 7, 19, 20, 2)] == [0, 1, 1, 7, 19, 0, 2]  # type: ignore[index]
    assert most <= 2  # the one that is given up while the next is made


# --- The model that takes labels


def test_a_model_that_takes_labels_gets_them_unless_a_loss_is_named(folder):
    (folder / "few.py").write_text("import torch\ndata = torch.utils.data.TensorDataset(torch.randn(8, 3), torch.arange(8) % 2)\n")
    model = Labelled()
    batch = batches_of(model, loss=None, data="few.py:data").batch(0)
    assert torch.equal(batch.kwargs["labels"], batch.labels)
    output = model(*batch.args, **batch.kwargs)
    expected = nn.functional.cross_entropy(model.fc(batch.args[0]), batch.labels)
    torch.testing.assert_close(choose_loss(None, output, batch.labels)(output, batch.labels), expected)
    assert batches_of(model, loss="cross_entropy", data="few.py:data").batch(0).kwargs == {}


def test_a_model_that_needs_labels_gets_them_always(folder):
    class Needs(Takes):
        def forward(self, x: Tensor, target: Tensor) -> Tensor:
            return super().forward(x) * target[:, None]

    assert set(batches_of(Needs(), loss="mse", data="data.py:Pairs").batch(0).kwargs) == {"target"}


def test_a_model_of_words_learns_its_own_ids():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=30, n_positions=16))
    batches = batches_of(model, loss=None, input=["input_ids=4,6"])
    first = batches.batch(0)
    batches = answered(batches, model, None, model(**first.kwargs))
    batch = batches.batch(3)
    assert batches.labels == "the input ids" and torch.equal(batch.kwargs["labels"], batch.kwargs["input_ids"])
    output = model(**batch.kwargs)
    expected = nn.functional.cross_entropy(output.logits[:, :-1].reshape(-1, 30), batch.labels[:, 1:].reshape(-1))
    torch.testing.assert_close(choose_loss(None, output, batch.labels)(output, batch.labels), expected)


def test_a_detector_gets_boxes_that_it_can_learn_from():
    detection = pytest.importorskip("torchvision").models.detection
    torch.manual_seed(0)
    model = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3).train()
    batches = batches_of(model, loss=None, input=["[3,64,64;3,64,64]"])
    batch = batches.batch(0)
    assert batches.random_labels and batches.random_inputs
    loss = choose_loss(None, model(*batch.args, **batch.kwargs), batch.labels)
    assert loss.own and loss.source == "the model returns it: the sum of bbox_regression, classification"
    for target, picture in zip(batch.labels, batch.args[0], strict=True):
        left, top, right, bottom = target["boxes"].T
        assert bool(((left < right) & (top < bottom) & (right <= picture.shape[2]) & (bottom <= picture.shape[1])).all())


# --- Saved tensors


@pytest.mark.parametrize("form", ["two files", "a dict", "a tuple", "numpy"])
def test_saved_labels_go_with_saved_inputs(folder, form):
    x, y = torch.arange(10.0)[:, None].expand(10, 3).contiguous(), torch.arange(10) * 10
    files = {
        "two files": {"x.pt": x, "y.pt": y},
        "a dict": {"both.pt": {"images": x, "labels": y}},
        "a tuple": {"both.pt": (x, y)},
        "numpy": {"x.npy": x.numpy(), "y.npy": y.numpy().astype(np.int32)},
    }[form]
    for name, value in files.items():
        np.save(name, value) if name.endswith("npy") else torch.save(value, name)
    batches = batches_of(input=list(files))
    assert [labels for _, labels in read(batches, 3)] == [[0, 10, 20, 30], [40, 50, 60, 70], [80, 90]]
    assert [inputs for inputs, _ in read(batches, 3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] and batches.labels == "--input"


# --- No labels, no data


def test_random_numbers_differ_from_batch_to_batch_and_are_said(folder):
    batches = batches_of(batch_size=16, loss="cross_entropy")
    first, second = batches.batch(0), batches.batch(1)
    assert first.args[0].shape == (16, 3) and not torch.equal(first.args[0], second.args[0]) and batches.random_inputs
    batches = answered(batches, Takes(), "cross_entropy", torch.randn(16, 2))
    labels = [batches.batch(number).labels for number in (0, 1, 0)]
    assert batches.random_labels and torch.equal(labels[0], labels[2]) and not torch.equal(labels[0], labels[1])
    assert torch.equal(batches.batch(1).args[0], second.args[0])


def test_what_was_asked_for_stays_when_it_is_drawn_again():
    class Lengths(nn.Module):
        def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
            return ids * lengths

    batch = batches_of(Lengths(), input=["4,5:int64", "4:int64=5"]).batch(3)
    assert batch.args[1].tolist() == [5] * 4 and batch.args[0].dtype == torch.int64 and int(batch.args[0].max()) <= 1


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("name", [loss.name for loss in LOSSES])
def test_random_labels_are_such_that_the_loss_takes_them(name):
    torch.manual_seed(0)
    outputs: dict[str, Any] = {
        "nll": torch.randn(4, 5).log_softmax(1),
        "kl_div": torch.randn(4, 5).log_softmax(1),
        "bce": torch.rand(4, 5),
        **dict.fromkeys(("cosine_embedding", "gaussian_nll"), (torch.rand(4, 5), torch.rand(4, 5))),
        **dict.fromkeys(("triplet_margin", "triplet_margin_with_distance"), (torch.rand(4, 5), torch.rand(4, 5), torch.rand(4, 5))),
        "ctc": torch.randn(12, 4, 5).log_softmax(2),
        "margin_ranking": (torch.rand(4), torch.rand(4)),
    }
    output = outputs.get(name, torch.randn(4, 5))
    batches = answered(batches_of(loss=name), Takes(), name, output)
    loss = choose_loss(name, output, batches.batch(1).labels)
    assert loss.name == name and loss.notes == () and bool(loss(output, batches.batch(2).labels).isfinite())
    assert batches.random_labels == (not name.startswith("triplet"))


@pytest.mark.parametrize(
    ("output", "name"),
    [
        (torch.randn(4, 5), "cross_entropy"),
        (torch.randn(4, 1), "mse"),
        (torch.randn(4), "mse"),
        (torch.randn(4, 3, 6, 6), "cross_entropy"),
        (torch.randn(4, 1, 6, 6), "bce_with_logits"),
        (torch.randn(4, 5, requires_grad=True).sigmoid(), "bce"),
    ],
)
def test_random_labels_suit_the_output_where_no_loss_is_named(output, name):
    batches = answered(batches_of(loss=None), Takes(), None, output)
    assert choose_loss(None, output, batches.batch(0).labels).name == name


def test_what_gives_its_input_back_is_its_own_label(folder):
    model = Takes(3)
    batches = batches_of(model, loss=None, data="data.py:Bare")
    batches = answered(batches, model, None, model(batches.batch(0).args[0]))
    batch = batches.batch(1)
    assert batches.labels == "the inputs" and torch.equal(batch.labels, batch.args[0]) and not batches.random_labels


def test_data_without_labels_is_two_lines_and_never_gets_random_ones(folder):
    batches = batches_of(data="data.py:Bare", loss="cross_entropy")
    assert batches.labels is None
    with pytest.raises(NetlensError, match=r"^--data data\.py:Bare gives no labels, and cross_entropy needs them") as error:
        answered(batches, Takes(), "cross_entropy", torch.randn(4, 2))
    assert "return (input, label)" in error.value.hint
    for loss, output in ((None, torch.tensor(1.0)), ("triplet_margin", (torch.rand(4, 2),) * 3), ("data.py:Pairs", torch.rand(4, 2))):
        assert answered(batches, Takes(), loss, output).labels is None


def test_scenes_have_their_labels():
    data = f"{REPOSITORY / 'sample_models' / 'scenes.py'}:SceneDataset"
    batch = batches_of(nn.Conv2d(3, 6, 64), data=data).batch(0)
    assert batch.args[0].shape == (4, 3, 64, 64) and batch.labels.dtype == torch.int64 and int(batch.labels.max()) < 6
