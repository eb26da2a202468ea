"""`--data`: what a folder, a data set, a loader or a generator holds is what a model is given, in order, a batch at a time."""

from __future__ import annotations

import re
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from netlens.errors import FileProblem, InputError, NetlensError
from netlens.loading.datasets import Data, data_of, open_data, parse_data
from netlens.loading.preprocessing import Framing, Preprocessing
from netlens.loading.samples import DataBatch
from tests.conftest import REPOSITORY

# 2 x 2 pictures as they are: value / 255 minus 0.5, divided by 0.25.
AS_IS = Preprocessing(Framing(), (0.5,) * 3, (0.25,) * 3, "--mean")


def picture(value: int, size: tuple[int, int] = (2, 2)) -> Image.Image:
    return Image.new("RGB", size, (value, 0, 255))


def seen(value: int) -> Tensor:
    """The tensor of `picture(value)`, by hand."""
    channels = torch.tensor([value / 255, 0.0, 1.0])
    return ((channels - 0.5) / 0.25)[:, None, None].expand(3, 2, 2)


def read(data: Data, batch_size: int = 4, limit: int | None = None, preprocessing: Preprocessing | None = None) -> list[DataBatch]:
    return list(data.batches(batch_size, preprocessing, limit))


def sizes(batches: list[DataBatch]) -> list[int]:
    return [batch.size for batch in batches]


def together(batches: list[DataBatch]) -> Tensor:
    return torch.cat([batch.args[0] for batch in batches])


def labels(batches: list[DataBatch]) -> list[int]:
    return [int(label) for batch in batches for label in (batch.labels if batch.labels is not None else [])]


# --- Folders


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Classes "2" and "10", with three and two pictures whose red is ten times the class and their number."""
    for name, count in (("10", 2), ("2", 3)):
        (tmp_path / name).mkdir()
        for index in range(count):
            picture(10 * int(name) + index).save(tmp_path / name / f"{index}.png")
    (tmp_path / ".hidden").mkdir()
    picture(0).save(tmp_path / ".hidden" / "x.png")
    return tmp_path


def test_folders_are_classes_in_natural_order(classes):
    data = open_data(str(classes))
    assert (data.length, data.classes) == (5, ("2", "10"))
    batches = read(data, 2, preprocessing=AS_IS)
    assert sizes(batches) == [2, 2, 1]
    torch.testing.assert_close(together(batches), torch.stack([seen(value) for value in (20, 21, 22, 100, 101)]))
    assert labels(batches) == [0, 0, 0, 1, 1]
    assert data.notes == (f"{classes}: classes are numbered as people count, 2 before 10; torchvision's ImageFolder numbers them as texts",)


def test_pictures_beside_each_other_have_no_labels(tmp_path):
    for index in (10, 9):
        picture(index).save(tmp_path / f"{index}.png")
    data = open_data(str(tmp_path))
    (batch,) = read(data, preprocessing=AS_IS)
    torch.testing.assert_close(batch.args[0], torch.stack([seen(9), seen(10)]))
    assert (data.classes, batch.labels, batch.kwargs, data.notes) == (None, None, {}, ())


def test_a_glob_is_taken_as_well(classes):
    data = open_data(f"{classes}/**/0.png")
    assert (data.length, data.classes) == (2, None)


def test_fewer_samples_are_spread_over_all(classes):
    """The first two are of one class."""
    batches = read(open_data(str(classes)), 8, 2, AS_IS)
    torch.testing.assert_close(together(batches), torch.stack([seen(20), seen(22)]))
    assert labels(read(open_data(str(classes)), 8, 4, AS_IS)) == [0, 0, 0, 1]


def test_what_is_done_to_pictures_is_counted(tmp_path):
    for name in "abc":
        Image.new("RGBA", (2, 2), (9, 9, 9, 100)).save(tmp_path / f"{name}.png")
    data = open_data(str(tmp_path))
    read(data, 2, preprocessing=AS_IS)
    assert data.notes == (f"{tmp_path}: transparent parts are shown on white (3 samples)",)


def test_pictures_that_do_not_become_inputs_are_two_lines(tmp_path):
    picture(1).save(tmp_path / "1.png")
    picture(2, (3, 2)).save(tmp_path / "2.png")
    with pytest.raises(InputError, match="the pictures become inputs of different sizes"):
        read(open_data(str(tmp_path)), 2, preprocessing=AS_IS)
    assert sizes(read(open_data(str(tmp_path)), 1, preprocessing=AS_IS)) == [1, 1]
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    with pytest.raises(FileProblem, match=r"2\.png is damaged or truncated"):
        read(open_data(str(tmp_path)), 1, preprocessing=AS_IS)
    with pytest.raises(InputError, match="holds pictures, and the model takes none"):
        read(open_data(str(tmp_path)))


# --- Data sets, loaders, iterables: five samples, of 0 to 4, with labels 0 to 4

X, Y = torch.arange(5.0)[:, None].expand(5, 3).contiguous(), torch.arange(5)


class Pairs(Dataset[Any]):
    """(x, y) with an integer that is no tensor, as torchvision's data sets have it."""

    classes = ("a", "b", "c", "d", "e")

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        return X[index], int(Y[index])


class Dicts(Pairs):
    """As Hugging Face's data sets have it: lists of numbers, a text, the label among them."""

    def __getitem__(self, index: int) -> Any:
        return {"input_ids": X[index].tolist(), "text": "five", "label": index}


class Stream(IterableDataset[Any]):
    """Samples without a length."""

    def __iter__(self) -> Iterator[Any]:
        return iter((X[index], int(Y[index])) for index in range(5))


class StreamOfBatches(IterableDataset[Any]):
    """Batches already, as webdataset makes them."""

    def __iter__(self) -> Iterator[Any]:
        return iter([(X[:3], Y[:3]), (X[3:], Y[3:])])


def generator() -> Iterator[Any]:
    yield X[:2], Y[:2]
    yield X[2:], Y[2:]


class OwnLoader:
    """No class of torch's, and its parts are lists."""

    def __iter__(self) -> Iterator[Any]:
        return iter([[X[:4], Y[:4]], [X[4:], Y[4:]]])


SOURCES: dict[str, tuple[Any, int | None, list[int]]] = {
    "dataset": (Pairs(), 5, [2, 2, 1]),
    "its class": (Pairs, 5, [2, 2, 1]),
    "tensors": (TensorDataset(X, Y), 5, [2, 2, 1]),
    "subset": (Subset(Pairs(), range(5)), 5, [2, 2, 1]),
    "list of samples": ([(X[index], index) for index in range(5)], 5, [2, 2, 1]),
    "labels of numpy": ([(X[index].numpy(), np.int64(index)) for index in range(5)], 5, [2, 2, 1]),
    "labels as vectors of one": ([(X[index], Y[index]) for index in range(5)], 5, [2, 2, 1]),
    "stream": (Stream(), None, [2, 2, 1]),
    "stream of batches": (StreamOfBatches(), None, [3, 2]),
    "loader": (DataLoader(Pairs(), batch_size=4), 5, [4, 1]),
    "loader of a stream": (DataLoader(Stream(), batch_size=3), None, [3, 2]),
    "loader without batches": (DataLoader(StreamOfBatches(), batch_size=None), None, [3, 2]),
    "own loader": (OwnLoader(), None, [4, 1]),
    "list of batches": ([(X[:3], Y[:3]), (X[3:], Y[3:])], None, [3, 2]),
    "generator function": (generator, None, [2, 3]),
    "function": (lambda: DataLoader(Pairs(), batch_size=3), 5, [3, 2]),
}


@pytest.mark.parametrize(("found", "length", "expected"), SOURCES.values(), ids=SOURCES)
def test_all_samples_come_in_order_with_their_labels(found, length, expected):
    data = data_of(found, "val")
    assert data.length == length
    batches = read(data, 2)
    assert sizes(batches) == expected and torch.equal(together(batches), X) and labels(batches) == [0, 1, 2, 3, 4]
    assert all(batch.kwargs == {} and batch.labels is not None and batch.labels.dtype == torch.int64 for batch in batches)


@pytest.mark.parametrize(("found", "length", "expected"), SOURCES.values(), ids=SOURCES)
def test_no_more_come_than_are_wanted(found, length, expected):
    batches = read(data_of(found() if found is generator else found, "val"), 2, 3)
    wanted = [0, 1, 3] if length == 5 and expected == [2, 2, 1] else [0, 1, 2]  # spaced where each has an index
    assert torch.equal(together(batches), X[wanted]) and labels(batches) == wanted
    assert sum(sizes(batches)) == 3


def test_names_of_classes_are_found_below_subsets_and_loaders():
    assert data_of(DataLoader(Subset(Pairs(), [0])), "val").classes == tuple("abcde")
    assert data_of(Stream(), "val").classes is None


def test_bare_tensors_and_arrays_are_samples_without_labels():
    for found in (X, X.numpy(), X.numpy().astype(">f4"), [x.numpy() for x in X.split(1)]):
        batches = read(data_of(found, "val"), 5)
        assert torch.equal(together(batches), X) and batches[0].labels is None


def test_parts_of_a_dict_are_named_arguments_and_what_is_no_tensor_is_left_out():
    (batch,) = read(data_of(Dicts(), "val"), 5)
    assert batch.args == () and list(batch.kwargs) == ["input_ids"]
    assert torch.equal(batch.kwargs["input_ids"], X) and labels([batch]) == [0, 1, 2, 3, 4]
    loaded = read(data_of(DataLoader(Dicts(), batch_size=5, collate_fn=_tokens), "val"))
    assert torch.equal(loaded[0].kwargs["input_ids"], X) and labels(loaded) == [0, 1, 2, 3, 4]


def _tokens(samples: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "input_ids": torch.tensor([sample["input_ids"] for sample in samples]),
        "labels": torch.tensor([sample["label"] for sample in samples]),
        "text": ["five"] * len(samples),
    }


def test_a_tuple_of_inputs_is_several_arguments_and_a_list_is_one():
    """A detection model takes a list of pictures of different sizes."""
    several = read(data_of([((x, x + 1), int(y)) for x, y in zip(X, Y, strict=True)], "val"), 5)[0]
    assert len(several.args) == 2 and torch.equal(several.args[1], X + 1) and several.size == 5
    images = [torch.rand(3, 4, 5), torch.rand(3, 6, 4)]
    (batch,) = read(data_of([(images, [{"boxes": X}, {"boxes": X}])], "val"))
    assert batch.args == (images,) and (batch.size, batch.labels) == (2, None)
    assert batch.cut(1).args == (images[:1],)


def test_further_parts_are_told():
    data = data_of([(X[0], 1, "a.png")] * 3, "val")
    assert (labels(read(data)), data.notes) == (
        [1, 1, 1],
        ("val: of its 3 parts the first goes into the model, and the second is the label (3 samples)",),
    )


def test_labels_that_are_no_classes_are_none():
    for label in (0.5, torch.rand(2), {"boxes": X}, "cat"):
        assert read(data_of(Same((X[0], label)), "val"))[0].labels is None


class Same(Dataset[Any]):
    """The same sample twice."""

    def __init__(self, sample: Any) -> None:
        self.sample = sample

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return self.sample


# --- Pictures without a transform

PIXELS = np.asarray(picture(7))
PICTURES = {
    "PIL": picture(7),
    "array": PIXELS,
    "channels first": torch.from_numpy(PIXELS.copy()).permute(2, 0, 1),
    "channels last": torch.from_numpy(PIXELS.copy()),
}


@pytest.mark.parametrize("image", PICTURES.values(), ids=PICTURES)
def test_pictures_without_a_transform_are_prepared_and_it_is_said(image):
    for sample in ((image, 1), {"image": image, "label": 1}, image):
        data = data_of(Same(sample), "val")
        (batch,) = read(data, preprocessing=AS_IS)
        found = batch.args[0] if batch.args else batch.kwargs["image"]
        torch.testing.assert_close(found, torch.stack([seen(7), seen(7)]))
        assert data.notes == ("val: its pictures come without a transform and are prepared by --mean (2 samples)",)
    with pytest.raises(InputError, match="sample 0 of val: it is a picture without a transform, and nothing tells") as error:
        read(data_of(Same((image, 1)), "val"))
    assert error.value.hint == "say it with --size, --mean and --std"


def test_batches_of_raw_pictures_are_prepared_as_well():
    raw = PICTURES["channels first"]
    for stacked in (torch.stack([raw, raw]), torch.stack([raw, raw]).permute(0, 2, 3, 1)):
        (batch,) = read(data_of([(stacked, torch.tensor([0, 1]))], "val"), preprocessing=AS_IS)
        torch.testing.assert_close(batch.args[0], torch.stack([seen(7), seen(7)]))
        assert batch.size == 2


def test_grey_pictures_are_pictures():
    grey = Preprocessing(Framing(), (0.5,), (0.25,), "--mean")
    for image in (np.full((2, 2), 51, np.uint8), np.full((2, 2, 1), 51, np.uint8), np.full((1, 2, 2), 51, np.uint8)):
        (batch,) = read(data_of(Same((image, 0)), "val"), preprocessing=grey)
        torch.testing.assert_close(batch.args[0], torch.full((2, 1, 2, 2), (0.2 - 0.5) / 0.25))


# --- Into the model


class Takes(nn.Module):
    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> None: ...


class TakesX(nn.Module):
    def forward(self, x: Tensor) -> None: ...


def test_a_model_is_given_what_it_has_names_for():
    batch = DataBatch((), {"image_id": Y, "input_ids": X, "mask": X}, None, 5)
    assert batch.arguments_for(Takes()) == ((), {"input_ids": X, "mask": X})
    assert DataBatch((), {"image": X, "id": Y}, None, 5).arguments_for(TakesX()) == ((X,), {})
    assert DataBatch((X,), {}, None, 5).arguments_for(TakesX()) == ((X,), {})


# --- What goes wrong


class Broken(Pairs):
    def __getitem__(self, index: int) -> Any:
        if index == 3:
            raise ValueError("no such\nlabel")
        return super().__getitem__(index)


def test_a_sample_that_raises_is_named_with_the_line():
    with pytest.raises(InputError, match=r"^sample 3 of val raised ValueError: no such label \(tests/test_datasets.py:\d+\)$"):
        read(data_of(Broken(), "val"), 2)
    with pytest.raises(InputError, match=r"^item 1 of val raised ValueError"):
        read(data_of(DataLoader(Broken(), batch_size=2), "val"))


class Ragged(Pairs):
    def __getitem__(self, index: int) -> Any:
        return torch.zeros(3, 4 + index % 2), 0


def test_samples_of_different_sizes_are_named():
    with pytest.raises(InputError, match=r"^samples 0 to 3 of val do not fit into one batch: \(3, 4\), \(3, 5\)$"):
        read(data_of(Ragged(), "val"))
    assert sizes(read(data_of(Ragged(), "val"), 1)) == [1] * 5


WRONG: dict[str, tuple[Any, str]] = {
    "empty list": ([], "val is empty"),
    "empty set": (TensorDataset(X[:0]), "val is empty"),
    "a dict": ({"train": Pairs(), "test": Pairs()}, "val is a dict of train, test"),
    "a number": (3, "val is of the type int, which holds no samples"),
    "a path": ("images/", "val is of the type str, which holds no samples"),
    "needs more": (lambda root, split: None, "val needs 'root', 'split'"),
    "raises": (lambda: 1 / 0, r"val\(\) raised ZeroDivisionError: division by zero"),
    "texts": (Same(("a text", 1)), "sample 0 of val holds neither tensors nor pictures, but str"),
    "dict of texts": (Same({"text": "a", "label": 1}), "sample 0 of val holds neither tensors nor pictures, but dict of text"),
    "empty generator": (lambda: iter(()), "val gives nothing"),
}


@pytest.mark.parametrize(("found", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_data_is_two_lines(found, message):
    with pytest.raises(InputError, match=f"^{message}") as error:
        read(data_of(found, "val"))
    assert error.value.hint and "\n" not in error.value.message + error.value.hint


# --- Names


def test_code_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "import torch\nprint('imported')\nclass splits:\n    val = torch.ones(3, 2)\ndef train(): return torch.zeros(4, 2)\n"
    )
    assert open_data("mine.py:train").length == 4
    assert torch.equal(read(open_data("./mine.py:splits.val"))[0].args[0], torch.ones(3, 2))
    with pytest.raises(InputError, match=r"mine.py has no 'trian'") as error:
        open_data("mine.py:trian")
    assert error.value.hint == "did you mean 'train'?"


def test_the_sample_scenes_are_found():
    data = open_data(str(REPOSITORY / "sample_models" / "scenes.py") + ":SceneDataset")
    (batch,) = read(data, 2, 2)
    assert data.classes is not None and batch.args[0].shape == (2, 3, 64, 64) and batch.args[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("val.zip", "--data 'val.zip' is one file", "name its folder"),
        ("mine.py", "--data 'mine.py' does not say what of the file is meant", r"name it: mine\.py:val"),
        ("imags", "--data 'imags' is no folder, and no name in Python code", "did you mean 'images'?"),
        ("", "--data '' is no folder", "name a folder of pictures"),
        ("missing.py:val", "no file 'missing.py'", ""),
        ("no_such_module:val", "no module named 'no_such_module'", ""),
        ("empty", "the folder 'empty' holds no picture", r"deeper folders: --data 'empty"),
        ("empty/*.png", "nothing matches 'empty/\\*.png'", ""),
    ],
)
def test_names_that_lead_nowhere_are_two_lines(tmp_path, monkeypatch, text, message, hint):
    monkeypatch.chdir(tmp_path)
    for name in ("images", "empty"):
        Path(name).mkdir()
    for name in ("val.zip", "mine.py"):
        Path(name).touch()
    with pytest.raises(NetlensError, match=message) as error:
        open_data(text)
    assert re.search(hint, error.value.hint)


def test_reading_the_name_needs_no_torch(tmp_path):
    code = (
        "import sys; from netlens.loading.datasets import parse_data as p; p('.'); p('torch.utils:data'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
    assert parse_data(str(tmp_path)) == tmp_path


# --- Memory


class Counted(Dataset[Any]):
    """A million samples, of which it knows how many are alive."""

    def __init__(self) -> None:
        self.alive: weakref.WeakSet[Any] = weakref.WeakSet()
        self.most = 0

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> Any:
        array = np.full(4, index, np.float32)
        self.alive.add(tensor := Watched(array))
        self.most = max(self.most, len(self.alive))
        return tensor


class Watched(np.ndarray[Any, Any]):
    def __new__(cls, values: Any) -> Any:
        return np.asarray(values).view(cls)

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


def test_no_more_than_one_batch_is_in_memory():
    data = Counted()
    batches = data_of(data, "val").batches(8, None, 400)
    assert (sum(batch.size for batch in batches), data.most) == (400, 8)
