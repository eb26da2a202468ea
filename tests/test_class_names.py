"""Names of classes: what each source says, which one counts, and which class a user means."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from netlens.errors import FileProblem, UsageError
from netlens.loading.checkpoints.read import read_archive
from netlens.loading.class_names import ClassNames, class_names, index_of, read_names
from netlens.loading.models import find_model
from netlens.loading.specs import parse_model_spec
from tests.conftest import REPOSITORY

CATS = ClassNames(
    ("tabby, tabby cat", "tiger cat", "catamaran", "crane, bird", "crane, machine", "3", "Great White-Shark", ""), "labels.txt"
)


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        ("tabby, tabby cat", 0),  # the whole text
        ("Tabby_Cat", 0),  # a synonym, but for case and separators
        ("tiger", 1),  # a word
        ("cataM", 2),  # letters of one class only
        ("machine", 4),
        ("3", 3),  # a number is an index,
        ("=3", 5),  # unless it is said to be a name
        ("great white shark", 6),
        (" 6 ", 6),
    ],
)
def test_a_class_is_found(asked: str, index: int) -> None:
    assert index_of(asked, CATS, 8) == index


@pytest.mark.parametrize(
    ("asked", "message", "hint"),
    [
        ("cat", "may be any of 2 classes: tabby, tabby cat (0), tiger cat (1)", "--target 0"),  # as a word; not the catamaran
        ("crane", "may be any of 2 classes: crane, bird (3), crane, machine (4)", "--target 3"),
        ("tigre cat", "no class is called 'tigre cat' (labels.txt)", "'tiger cat'"),
        ("zzz", "no class is called 'zzz'", "there are 8"),
        ("***", "no class is called", "there are 8"),
        ("8", "there is no class 8: the model has 8 classes", "from 0 to 7"),
        ("-1", "there is no class -1", "from 0 to 7"),
    ],
)
def test_what_is_no_class_is_told(asked: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        index_of(asked, CATS, 8)
    assert message in error.value.message and hint in error.value.hint


def test_many_candidates_are_cut_at_eight() -> None:
    names = ClassNames(tuple(f"dog {index}" for index in range(20)), "")
    with pytest.raises(UsageError, match=r"any of 20 classes: dog 0 \(0\), .*dog 7 \(7\) and 12 more"):
        index_of("dog", names, 20)


def test_without_names_only_numbers_count() -> None:
    assert index_of("4", None, 5) == 4 and index_of("400", None, None) == 400
    with pytest.raises(UsageError, match="not known") as error:
        index_of("cat", None, 5)
    assert "from 0 to 4" in error.value.hint and "--names" in error.value.hint


def test_synonyms_are_not_shown_where_the_first_name_is_enough() -> None:
    assert [CATS.shown(index) for index in (0, 3, 7, 8, -1)] == ["tabby", "crane, bird", None, None, None]


@pytest.mark.parametrize(
    ("file", "content", "names"),
    [
        ("a.txt", "cat\ndog, hound \n\n", ("cat", "dog, hound")),
        ("a.txt", "\ufeff0: cat\n1: dog\n", ("cat", "dog")),  # a byte order mark, and numbers of lines
        ("a.txt", "3 cats\n4 dogs\n", ("3 cats", "4 dogs")),  # which do not count the lines
        ("a.txt", "n01440764 tench, Tinca tinca\nn01443537 goldfish\n", ("tench, Tinca tinca", "goldfish")),
        ("a.txt", "cat\n\ndog", ("cat", "", "dog")),
        ("a.json", '["cat", "dog"]', ("cat", "dog")),
        ("a.json", '{"1": "dog", "0": "cat"}', ("cat", "dog")),
        ("a.json", '{"dog": 1, "cat": 0}', ("cat", "dog")),
        ("a.json", '{"1": 0, "10": 1, "2": 2}', ("1", "10", "2")),  # class_to_idx of folders that are numbers
        ("a.json", '{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}', ("tench", "goldfish")),
        ("a.json", '{"1": "person", "3": "car"}', ("", "person", "", "car")),
        ("a.txt", "cat\x1b[2J\ndog\u202e\n", ("cat\\x1b[2J", "dog\\u202e")),
    ],
)
def test_a_file_of_names_is_read(tmp_path: Path, file: str, content: str, names: tuple[str, ...]) -> None:
    (tmp_path / file).write_text(content, encoding="utf-8")
    found = read_names(tmp_path / file)
    assert (found.names, found.source) == (names, file)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.txt", b"", "holds no names"),
        ("a.txt", b"\n\n", "holds no names"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read: UnicodeDecodeError"),
        ("a.json", b"{", "cannot be read: JSONDecodeError"),
        ("a.json", b"[1, 2]", "is no list of names"),
        ("a.json", b'{"cat": 0, "dog": 0}', "is no list of names"),
        ("a.json", b'{"cat": 99999999999}', "is no list of names"),
        ("a.json", b"[" * 100_000, "cannot be read"),
    ],
)
def test_what_holds_no_names_is_told(tmp_path: Path, file: str, content: bytes, message: str) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(FileProblem, match=message):
        read_names(tmp_path / file)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="No such file"):
        read_names(tmp_path / "none.txt")


def test_subfolders_are_classes_in_torchvisions_order(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    for name in ("dog", "Cat", "10", "9"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").touch()
    (tmp_path / "readme.txt").touch()
    assert read_names(tmp_path).names == tuple(ImageFolder(str(tmp_path)).classes)
    (tmp_path / ".thumbnails").mkdir()
    assert read_names(tmp_path).names == ("10", "9", "Cat", "dog")


def test_reading_names_does_not_import_torch(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("cat\ndog")
    code = "import sys; from netlens.loading.class_names import read_names; read_names(sys.argv[1]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.txt")], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "False"


def test_the_users_names_must_be_as_many_as_the_classes() -> None:
    given = ClassNames(("a", "b"), "labels.txt")
    assert class_names(2, given=given) is given and class_names(None, given=given) is given
    with pytest.raises(UsageError, match=r"labels\.txt has 2 names, and the model has 3 classes"):
        class_names(3, given=given)


@pytest.mark.parametrize(
    "saved",
    [
        {"classes": ["cat", "dog"]},
        {"class_to_idx": {"dog": 1, "cat": 0}},
        {"names": {0: "cat", 1: "dog"}},
        {"hyper_parameters": {"class_names": ("cat", "dog")}},
        {"args": argparse.Namespace(classes=["cat", "dog"], lr=0.1)},
        {"classes": "cat,dog"},
    ],
)
def test_a_checkpoint_names_the_classes(tmp_path: Path, saved: dict[str, object]) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(2, 2)}, **saved}, tmp_path / "net.ckpt")
    archive = read_archive(tmp_path / "net.ckpt")
    assert class_names(2, archive=archive) == ClassNames(("cat", "dog"), "metadata of net.ckpt")
    assert class_names(3, archive=archive) is None


def test_a_checkpoint_may_name_a_thousand_classes(tmp_path: Path) -> None:
    names = [f"class {index}" for index in range(1000)]
    torch.save(
        {"model": {"weight": torch.zeros(2)}, "class_to_idx": {name: index for index, name in enumerate(names)}}, tmp_path / "net.pt"
    )
    found = class_names(1000, archive=read_archive(tmp_path / "net.pt"))
    assert found is not None and list(found.names) == names


def test_metadata_of_safetensors_name_the_classes_unless_they_are_cut_off(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    names = [f"a class with the number {index}" for index in range(9)]  # more than the 200 characters that are kept
    for key, value in (("few", "cat,dog"), ("many", ",".join(names)), ("json", json.dumps(["cat", "dog"]))):
        save_file({"weight": torch.zeros(1)}, tmp_path / f"{key}.safetensors", {"classes": value})
    assert class_names(2, archive=read_archive(tmp_path / "few.safetensors")).names == ("cat", "dog")  # type: ignore[union-attr]
    assert class_names(2, archive=read_archive(tmp_path / "json.safetensors")).names == ("cat", "dog")  # type: ignore[union-attr]
    assert class_names(None, archive=read_archive(tmp_path / "many.safetensors")) is None


def test_the_sample_network_names_its_shapes() -> None:
    found = class_names(6, archive=read_archive(REPOSITORY / "sample_models/weights/shapenet.safetensors"))
    assert found == ClassNames(("circle", "square", "triangle", "star", "cross", "ring"), "metadata of shapenet.safetensors")


class Named(nn.Module):
    """A model with names."""

    CLASSES = ("cat", "dog")

    @property
    def names(self) -> list[str]:
        """Never to be called."""
        raise RuntimeError


def test_a_model_names_its_classes_also_inside_of_a_wrapper() -> None:
    model = Named()
    expected = ClassNames(("cat", "dog"), "attribute 'CLASSES' of Named")
    assert class_names(2, model=model) == class_names(2, model=nn.DataParallel(model)) == expected
    assert class_names(3, model=model) is None
    model._hparams = {"class_names": ["a", "b", "c"]}  # type: ignore[assignment]
    assert class_names(3, model=model) == ClassNames(("a", "b", "c"), "hyperparameter 'class_names' of Named")


def test_transformers_config_names_the_classes_unless_by_numbers() -> None:
    model = nn.Module()
    model.config = SimpleNamespace(id2label={0: "LABEL_0", 1: "LABEL_1"})  # type: ignore[assignment]
    assert class_names(2, model=model) is None
    model.config = SimpleNamespace(id2label={1: "dog", 0: "cat"})  # type: ignore[assignment]
    assert class_names(2, model=model) == ClassNames(("cat", "dog"), "id2label of the config")


def test_timm_names_what_it_was_trained_on() -> None:
    timm = pytest.importorskip("timm")
    found = class_names(1000, model=timm.create_model("test_resnet"))
    assert found is not None and (found.names[1], found.names[281], found.source) == (
        "goldfish, Carassius auratus",
        "tabby, tabby cat",
        "timm's imagenet-1k",
    )
    assert class_names(10, model=timm.create_model("test_resnet", num_classes=10)) is None


@pytest.mark.parametrize(
    ("spec", "classes", "index", "name"),
    [("resnet18", 1000, 281, "tabby"), ("lraspp_mobilenet_v3_large", 21, 8, "cat"), ("ssdlite320_mobilenet_v3_large", None, 17, "cat")],
)
def test_torchvisions_weights_name_the_classes_if_they_are_as_many(spec: str, classes: int | None, index: int, name: str) -> None:
    named = find_model(parse_model_spec(spec), {})
    found = class_names(classes, named=named)
    assert found is not None and found.names[index] == name and "_Weights." in found.source
    assert class_names(7, named=named) is None


def test_the_checkpoint_counts_before_the_model_and_the_data_come_last(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1), "classes": ["a", "b"]}, tmp_path / "net.pt")
    archive = read_archive(tmp_path / "net.pt")
    assert class_names(2, archive=archive, model=Named(), data=("x", "y")).names == ("a", "b")  # type: ignore[union-attr]
    assert class_names(2, model=Named(), data=("x", "y")).names == ("cat", "dog")  # type: ignore[union-attr]
    assert class_names(3, archive=archive, model=Named(), data=("x", "y", "z")) == ClassNames(("x", "y", "z"), "the classes of the data")
