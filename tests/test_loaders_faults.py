"""`check_loader`: every planted fault is told by its code, at its places, and by no other code; healthy loaders are silent."""

from __future__ import annotations

import multiprocessing
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from netlens.data.issues import Issue
from netlens.errors import InputError
from netlens.findings import CODES
from netlens.loaders import batches, check
from netlens.loaders.check import Checked, check_loader, leaks
from netlens.loaders.seen import Seen
from netlens.loading.datasets import called
from tests import loader_faults
from tests.loader_faults import CASES, COUNT, INFO, Case, Samples, clean_val, faults, healthy, leak_train, leak_val, picture, sample

pytestmark = pytest.mark.usefixtures("childless")

HANGING = {"hangs", "hangs_in_a_worker"}

# Where the faults were planted, by hand.
PLACES = {
    "samples_raise": {"sample 7", "sample 23"},
    "samples_raise_in_workers": {"sample 7", "sample 23"},
    "samples_raise_in_a_dataset": {"sample 7", "sample 23"},
    "every_sample_raises": {f"sample {index}" for index in range(COUNT)},
    "stream_raises": {"batch 2"},
    "none_sample": {"sample 13"},
    "keys_differ": {"sample 9"},
    "hangs": {"sample 40"},
    "hangs_in_a_worker": {"batch 5"},
    "nan_in_a_sample": {"sample 17"},
    "inf_in_a_sample": {"sample 40"},
    "nan_in_a_table": {"sample 3"},
    "nan_to_predict": {"sample 21"},
    "blank_sample": {"sample 30"},
    "dead_channel": {"channel 2"},
    "labels_from_one": {f"sample {index}" for index in range(3, COUNT, 4)},
    "more_labels_than_names": {f"sample {index}" for index in range(COUNT) if index % 4 > 1},
    "labels_below_zero": {"sample 12"},
    "masks_out_of_range": {"sample 10"},
    "one_hot_without_one": {"sample 3", "sample 44"},
    "the_same_twice": {f"sample {index}" for index in (*range(16), *range(48, 64))},
}


def look(name: str, **options: Any) -> Checked:
    """Check the loader of this name as the command does."""
    one = CASES[name]
    return check_loader(called(one.make, name), name, classes=one.classes, **options)


def the_issue(found: Checked, code: str) -> Issue:
    """Return the only issue of this code."""
    (issue,) = [issue for issue in found.issues if issue.code == code]
    return issue


@pytest.mark.parametrize(("name", "one"), CASES.items(), ids=CASES)
def test_each_loader_gives_its_codes_and_no_other(name: str, one: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in HANGING:
        monkeypatch.setattr(batches, "PATIENCE", 1.0)
    found = look(name, samples=200 if name == "endless" else None)
    assert {issue.code for issue in found.issues} - INFO == one.found
    assert len({issue.code for issue in found.issues}) == len(found.issues)
    assert not multiprocessing.active_children()
    if name in PLACES and name != "hangs_in_a_worker":  # a busy machine may be stuck before
        (issue,) = [issue for issue in found.issues if issue.code not in INFO]
        assert {path for item in issue.items for path in item.paths} == PLACES[name]


def test_there_are_enough_of_each() -> None:
    """30 faults and 8 healthy loaders were promised; every code is one that can be looked up."""
    assert len(faults()) >= 30
    assert len(healthy()) >= 15
    assert {code for one in CASES.values() for code in one.codes | one.found} <= CODES.keys()


@pytest.mark.parametrize(
    ("name", "code", "texts"),
    [
        ("samples_raise_in_workers", "sample-raises", ["ValueError: cannot read picture 7", "loader_faults.py:"]),
        ("stream_raises", "sample-raises", ["OSError: the archive ends here"]),
        ("shapes_differ", "shapes-differ", ["3 x 16 x 20: 1 sample", "3 x 16 x 16: 63 samples"]),
        ("keys_differ", "collate-fails", ["part box is missing"]),
        ("pil_in_a_dataset", "collate-fails", ["a PIL picture (RGB), which no transform makes a tensor", "ToTensor()"]),
        ("length_too_large", "length-wrong", ["len() is 64, and sample 50 is past the end"]),
        ("length_too_large", "sample-raises", ["14 of 64"]),
        ("worker_dies", "worker-dies", ["exit code 1"]),
        ("main_process_only", "workers-fail", ["RuntimeError: the database was opened in another process"]),
        ("nan_in_a_sample", "value-nonfinite", ["1 NaN"]),
        ("masks_out_of_range", "label-range", ["label 7", "0 to 2"]),
        ("text_labels", "label-type", ["texts"]),
        ("a_fifth_is_dropped", "dropped-samples", ["8 samples of 40"]),
        ("fewer_samples_than_a_batch", "no-batches", ["20 samples in batches of 32", "drop_last"]),
        ("stream_too_short", "length-wrong", ["100", "60"]),
        ("the_same_twice", "duplicate-samples", ["16 copies"]),
        ("every_sample_raises", "sample-raises", ["64 of 64", "FileNotFoundError: /data/0.jpg"]),
    ],
)
def test_an_issue_says_what_was_found(name: str, code: str, texts: list[str]) -> None:
    issue = the_issue(look(name), code)
    said = " | ".join([issue.measured, issue.threshold, *(item.detail for item in issue.items)])
    assert [text for text in texts if text not in said] == []


def test_pictures_of_0_to_1_are_told_as_such() -> None:
    assert [issue.code for issue in look("units").issues] == ["not-normalised"]


def test_one_raising_sample_does_not_hide_the_others() -> None:
    """All 62 samples that can be read are read, and counted by class."""
    found = look("samples_raise")
    assert found.facts.read == 62
    assert dict(found.counts) == {0: 16, 1: 16, 2: 16, 3: 14}  # 7 and 23 are of class 3


def test_shown_are_the_pictures_just_before_the_network() -> None:
    found = look("dicts").shown
    assert found.pictures.shape == (36, 3, 16, 16)
    for values, label, place in zip(found.pictures, found.labels, found.places, strict=True):
        index = int(place.removeprefix("sample "))
        assert label == str(index % 4)
        np.testing.assert_array_equal(values, picture(index).numpy())


def test_pictures_with_their_channels_last_are_shown_as_pictures() -> None:
    np.testing.assert_array_equal(look("channels_last").shown.pictures, loader_faults.normalised()[:36].numpy())


def test_leaks_between_two_loaders() -> None:
    """Samples 60..63 of the one are 0..3 of the other."""
    train, val, clean = (check_loader(make(), make.__name__) for make in (leak_train, leak_val, clean_val))
    (issue,) = leaks(train, val)
    assert issue.code == "leak-exact"
    assert {item.paths for item in issue.items} == {(f"leak_train: sample {60 + row}", f"leak_val: sample {row}") for row in range(4)}
    assert leaks(train, clean) == []


def test_blank_pictures_are_no_leak() -> None:
    blank = [(torch.zeros(4, 3, 8, 8), torch.arange(4))]
    assert leaks(check_loader(blank, "train"), check_loader(blank, "val")) == []


def test_everything_is_left_as_it_was() -> None:
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(Samples(sample), batch_size=8, shuffle=True, generator=generator, num_workers=2, persistent_workers=True)
    before = {name: value for name, value in vars(loader).items() if name != "generator"}
    legacy: Any = np.random.get_state()
    states = generator.get_state(), torch.get_rng_state(), random.getstate()
    check_loader(loader, "train")
    assert {name: value for name, value in vars(loader).items() if name != "generator"} == before
    assert torch.equal(generator.get_state(), states[0])
    assert torch.equal(torch.get_rng_state(), states[1])
    assert random.getstate() == states[2]
    after: Any = np.random.get_state()
    assert (after[1] == legacy[1]).all()
    assert after[2] == legacy[2]
    assert not multiprocessing.active_children()


def test_at_most_as_many_samples_as_asked() -> None:
    found = look("plain", samples=10)
    assert found.facts.read == 16  # two batches of 8
    assert found.notes == ("plain: 16 samples were read of 64",)


def test_every_reading_is_a_step() -> None:
    steps: list[None] = []
    look("plain", step=lambda: steps.append(None))
    assert len(steps) == 64 + 8


def test_an_error_of_netlens_is_no_fault_of_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Seen, "take", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        look("plain")


def test_ctrl_c_goes_through_and_ends_the_workers() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    loader = DataLoader(Samples(sample), batch_size=8, num_workers=1)
    with pytest.raises(KeyboardInterrupt):
        check_loader(loader, "train", step=interrupted)
    assert not multiprocessing.active_children()


def test_exit_in_the_users_code_is_a_sample_that_raises() -> None:
    def leave(index: int) -> Any:
        raise SystemExit(3)

    (issue,) = check_loader(DataLoader(Samples(leave, 4)), "train").issues
    assert (issue.code, issue.items[0].detail.split(" (")[0]) == ("sample-raises", "SystemExit: 3")


def test_prints_of_the_users_code_stay_off_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    def talk(index: int) -> Any:
        print("hello")
        return sample(index)

    check_loader(DataLoader(Samples(talk, 4)), "train")
    assert capsys.readouterr().out == ""


def test_outside_the_main_thread_a_worker_that_hangs_is_left_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "PATIENCE", 1.0)
    found: list[Checked] = []
    thread = threading.Thread(target=lambda: found.append(look("hangs_in_a_worker")))
    thread.start()
    thread.join(60)
    assert [issue.code for issue in found[0].issues] == ["loader-stuck"]


@pytest.mark.parametrize("name", ["train", "train_loader", "pkg.data:loader", "latest", "evaluated"])
def test_order_matters_in_training(name: str) -> None:
    found = check_loader(CASES["train_in_order"].make(), name)
    assert [issue.code for issue in found.issues] == ["unshuffled"]


@pytest.mark.parametrize("name", ["val", "pkg.data:val_loader", "valLoader", "data.py:testing"])
def test_order_does_not_matter_in_evaluation(name: str) -> None:
    assert check_loader(CASES["train_in_order"].make(), name).issues == ()


class _Late(Dataset[Any]):
    """1,999 samples, of which 1,001 raises: reading every second one singly does not find it."""

    def __len__(self) -> int:
        return 1999

    def __getitem__(self, index: int) -> Any:
        if index == 1001:
            raise ValueError("late")
        return torch.tensor([float(index)])


def test_a_raising_sample_that_a_batch_meets_is_found_in_it() -> None:
    found = check_loader(DataLoader(_Late(), batch_size=10), "train")
    assert [item.paths for item in the_issue(found, "sample-raises").items] == [("sample 1001",)]


class _Sized(Dataset[Any]):
    """Its length is what a function says."""

    def __init__(self, length: Callable[[], Any]) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length()  # type: ignore[no-any-return]

    def __getitem__(self, index: int) -> Any:
        return sample(index)


LOADER = DataLoader(Samples(sample), batch_size=8)


@pytest.mark.parametrize(
    ("found", "hint"),
    [
        ({"train": [1]}, "returns one of them"),
        ({1: LOADER}, "returns one of them"),
        ([LOADER, LOADER], "returns one of them"),
        ((LOADER.dataset, 3), "returns one of them"),
        (3, "name a Dataset"),
        ("text", "name a Dataset"),
        (None, "name a Dataset"),
        (_Sized, "name a Dataset"),
        (_Sized(lambda: "64"), "__len__"),
        (_Sized(lambda: -1), "__len__"),
        (_Sized(lambda: [][0]), "__len__"),
    ],
)
def test_what_holds_no_samples_is_refused(found: Any, hint: str) -> None:
    with pytest.raises(InputError) as refused:
        check_loader(found, "it")
    assert hint in refused.value.hint


@pytest.mark.parametrize("first", [False, True])
def test_the_label_may_come_before_the_picture(first: bool) -> None:
    def made(index: int) -> Any:
        return sample(index)[:: -1 if first else 1]

    found = check_loader(DataLoader(Samples(made, 40), batch_size=8), "val")
    assert dict(found.counts) == dict.fromkeys(range(4), 10) and len(found.keys) == 40 and found.shown.labels[:3] == ("0", "1", "2")


def test_samples_are_counted_as_drawn_where_a_collate_function_joins_their_nodes() -> None:
    def joined(graphs: list[Any]) -> Any:
        return {"x": torch.cat([nodes for nodes, _ in graphs]), "y": torch.tensor([label for _, label in graphs])}

    graphs = Samples(lambda index: (torch.randn(1 + index % 5, 4), index % 2), 40)
    found = check_loader(DataLoader(graphs, batch_size=8, collate_fn=joined), "it")
    assert (found.facts.read, dict(found.counts), found.issues) == (40, {0: 20, 1: 20}, ())


def test_two_views_of_each_sample_are_all_looked_at() -> None:
    def views(samples: list[Any]) -> Any:
        pictures = torch.stack([view for picture, _ in samples for view in (picture, picture.flip(2))])
        return pictures, torch.tensor([label for _, label in samples for _ in range(2)])

    found = check_loader(DataLoader(Samples(sample, 40), batch_size=8, collate_fn=views), "it")
    assert (found.facts.read, dict(found.counts), len(found.keys)) == (40, dict.fromkeys(range(4), 20), 80)
    assert found.shown.labels[:4] == ("0", "0", "1", "1")


def test_none_that_a_collate_function_of_the_users_takes_is_not_blamed() -> None:
    def fails(_samples: list[Any]) -> Any:
        raise KeyError("mask")

    loader = DataLoader(Samples(lambda index: (picture(index), None)), batch_size=8, collate_fn=fails)
    issue = the_issue(check_loader(loader, "it"), "collate-fails")
    assert (issue.items[0].paths, issue.items[0].detail) == (("batch 0",), "") and "KeyError: 'mask'" in issue.measured


def test_one_generator_that_is_already_running_is_read_from_its_first_item() -> None:
    def batch(place: int) -> Any:
        return torch.full((2, 3), float(place)), torch.tensor([0, 1])

    def items() -> Iterator[Any]:
        yield from map(batch, range(3))

    facts = check_loader(items(), "it").facts
    assert (facts.batches, facts.read, facts.fields[0].low, facts.fields[0].high) == (3, 6, 0.0, 2.0)


def test_one_generator_of_samples_loses_none() -> None:
    found = check_loader((sample(index) for index in range(40)), "it")
    assert (found.facts.read, dict(found.counts)) == (40, {0: 10, 1: 10, 2: 10, 3: 10})


def test_an_iterable_dataset_alone_may_give_samples_or_batches() -> None:
    def batch(place: int) -> Any:
        return torch.stack([picture(8 * place + row) for row in range(8)]), torch.arange(8) % 4

    class Batches(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return map(batch, range(4))

    for found, batches_ in ((Batches(), 4), (loader_faults.Stream(sharded=False), 2)):
        facts = check_loader(found, "it").facts
        assert (facts.kind, facts.batches) == ("IterableDataset", batches_)
        assert facts.fields[0].shape[1:] == (3, 16, 16)


def test_default_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MOST", 24)
    assert look("plain").facts.read == 24


@pytest.mark.parametrize(
    "batch",
    [
        None,
        [],
        {},
        "text",
        (b"bytes", 3.5),
        torch.zeros(0, 3, 8, 8),
        torch.zeros(4, 3, 0, 5),
        torch.rand(4, 3, 16, 16).to_sparse(),
        torch.empty(4, 3, 16, 16, device="meta"),
        (torch.rand(4, 3, 16, 16), torch.nested.nested_tensor([torch.rand(2), torch.rand(3)], layout=torch.jagged)),
        (np.array(["a", "b"]), np.array([None, 1])),
        {"image": [torch.rand(3, 8, 8), torch.rand(3, 9, 9)], "label": [None, "a"]},
        torch.nn.utils.rnn.pack_sequence([torch.rand(3), torch.rand(2)]),
        torch.rand(2, 3, 16, 16, requires_grad=True),
    ],
)
def test_odd_batches_are_read_without_a_word(batch: Any) -> None:
    found = check_loader(DataLoader([batch, batch], batch_size=None, collate_fn=lambda one: one), "it")  # type: ignore[arg-type]
    assert {issue.code for issue in found.issues} - INFO - {"duplicate-samples"} == set()
    assert found.facts.batches == 2
