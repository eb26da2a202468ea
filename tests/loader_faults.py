"""Loaders with one planted fault each, and healthy ones that must stay silent: what the tests of `check-data` are scored by.

Every function without arguments makes one loader, so that the command line can name it too: tests/loader_faults.py:labels_from_one.
The pictures are 3 x 16 x 16, drawn uniformly from 0..1 and normalised with ImageNet's mean and std, unless the fault is about that.
"""

from __future__ import annotations

import os
import random
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    get_worker_info,
)

COUNT = 64
CLASSES = 4
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
INFO = frozenset({"not-normalised", "channel-order"})  # codes that are worth knowing and no fault


@dataclass(frozen=True)
class Case:
    """A loader with what is known of it."""

    make: Callable[[], Any]
    codes: frozenset[str]  # every error and warning that is due, and no other; empty: healthy
    part: str = "check"  # what finds it: "check" (check_loader), "workers", "repeats", "growth" or "pace"
    classes: int | None = None  # as --classes says
    rate: float | None = None  # as --target-rate says
    found: frozenset[str] = field(default=frozenset())  # what `check_loader` alone says of it


CASES: dict[str, Case] = {}


def case(
    *codes: str, part: str = "check", classes: int | None = None, rate: float | None = None, found: tuple[str, ...] = ()
) -> Callable[[Any], Any]:
    """Enter a function into CASES, and leave it as it is."""

    def enter(make: Callable[[], Any]) -> Callable[[], Any]:
        name = getattr(make, "__name__", "")
        CASES[name] = Case(make, frozenset(codes), part, classes, rate, frozenset(codes if part == "check" else found))
        return make

    return enter


def faults(part: str | None = None) -> dict[str, Case]:
    """Return the faulty loaders, of one part or all."""
    return {name: one for name, one in CASES.items() if one.codes and part in (None, one.part)}


def healthy() -> dict[str, Case]:
    """Return the loaders that must stay silent."""
    return {name: one for name, one in CASES.items() if not one.codes}


# --- what they are made of


def raw(count: int = COUNT, channels: int = 3, side: int = 16) -> Tensor:
    """Pictures in 0..1."""
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def normalised(count: int = COUNT) -> Tensor:
    """Pictures as training wants them."""
    return (raw(count) - MEAN) / STD


def mixed_labels(count: int = COUNT, classes: int = CLASSES) -> Tensor:
    """0, 1, 2, 3, 0, 1, ..."""
    return torch.arange(count) % classes


def loader_of(*tensors: Tensor, **options: Any) -> DataLoader[Any]:
    """A loader of tensors, in batches of 8."""
    return DataLoader(TensorDataset(*tensors), **{"batch_size": 8, **options})


class Samples(Dataset[Any]):
    """Samples that a function makes of their index."""

    def __init__(self, make: Callable[[int], Any], count: int = COUNT) -> None:
        self.make, self.count = make, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


def picture(index: int) -> Tensor:
    """One normalised picture, another for each index."""
    values = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(index))
    return (values - MEAN) / STD


def sample(index: int) -> tuple[Tensor, int]:
    """One healthy sample."""
    return picture(index), index % CLASSES


# --- samples and batches


def _raises_at_7(index: int) -> tuple[Tensor, int]:
    if index in (7, 23):
        raise ValueError(f"cannot read picture {index}")
    return sample(index)


@case("sample-raises")
def samples_raise() -> Any:
    """Samples 7 and 23 raise."""
    return DataLoader(Samples(_raises_at_7), batch_size=8)


@case("sample-raises")
def samples_raise_in_workers() -> Any:
    """The same, read by two worker processes."""
    return DataLoader(Samples(_raises_at_7), batch_size=8, num_workers=2, shuffle=True)


@case("sample-raises")
def samples_raise_in_a_dataset() -> Any:
    """The same as a plain Dataset."""
    return Samples(_raises_at_7)


def _always_raises(index: int) -> Any:
    raise FileNotFoundError(f"/data/{index}.jpg")


@case("sample-raises")
def every_sample_raises() -> Any:
    """Nothing can be read."""
    return DataLoader(Samples(_always_raises), batch_size=8)


class _RaisingStream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from (sample(index) for index in range(20))
        raise OSError("the archive ends here")


@case("sample-raises")
def stream_raises() -> Any:
    """An IterableDataset raises after 20 samples."""
    return DataLoader(_RaisingStream(), batch_size=8)


def _odd_shape(index: int) -> tuple[Tensor, int]:
    return torch.randn(3, 16, 20 if index == 11 else 16), index % CLASSES


@case("shapes-differ")
def shapes_differ() -> Any:
    """Sample 11 is wider, and the default collate cannot stack it."""
    return DataLoader(Samples(_odd_shape), batch_size=8, shuffle=True)


@case("shapes-differ")
def shapes_differ_in_workers() -> Any:
    """The same in worker processes, where torch speaks of a storage that cannot be resized."""
    return DataLoader(Samples(_odd_shape), batch_size=8, num_workers=2)


class _OddStream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return (_odd_shape(index) for index in range(COUNT))


@case("shapes-differ")
def shapes_differ_in_a_stream() -> Any:
    """The same from an IterableDataset, whose samples have no index."""
    return DataLoader(_OddStream(), batch_size=8)


@case("shapes-differ")
def shapes_differ_in_a_dataset() -> Any:
    """The same as a plain Dataset."""
    return Samples(_odd_shape)


def _grey_at_5(index: int) -> tuple[Tensor, int]:
    return torch.randn(1 if index == 5 else 3, 16, 16), index % CLASSES


@case("shapes-differ")
def channels_differ() -> Any:
    """Sample 5 has one channel."""
    return DataLoader(Samples(_grey_at_5), batch_size=8)


def _pil(index: int) -> tuple[Image.Image, int]:
    return Image.new("RGB", (16, 16), (index, 0, 255)), index % CLASSES


@case("collate-fails")
def pil_without_transform() -> Any:
    """Pictures never become tensors."""
    return DataLoader(Samples(_pil), batch_size=8)


def _none_at_13(index: int) -> Any:
    return None if index == 13 else sample(index)


@case("collate-fails")
def none_sample() -> Any:
    """Sample 13 is None."""
    return DataLoader(Samples(_none_at_13), batch_size=8)


def _keys(index: int) -> dict[str, Any]:
    made: dict[str, Any] = {"image": picture(index), "label": index % CLASSES, "box": torch.zeros(4)}
    if index == 9:
        del made["box"]
    return made


@case("collate-fails")
def none_in_a_dataset() -> Any:
    """The same as a plain Dataset."""
    return Samples(_none_at_13)


@case("collate-fails")
def pil_in_a_dataset() -> Any:
    """A plain Dataset of pictures without a transform."""
    return Samples(_pil)


@case("collate-fails")
def keys_differ() -> Any:
    """Sample 9 has no "box"."""
    return DataLoader(Samples(_keys), batch_size=8)


class _NoneStream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return (_none_at_13(index) for index in range(COUNT))


@case("collate-fails")
def none_in_a_stream() -> Any:
    """The same from an IterableDataset."""
    return DataLoader(_NoneStream(), batch_size=8)


def _bad_collate(samples: list[Any]) -> Any:
    return default_collate([{"x": one["image"]} for one in samples])


@case("collate-fails")
def own_collate_raises() -> Any:
    """The collate function expects dicts."""
    return DataLoader(Samples(sample), batch_size=8, collate_fn=_bad_collate)


def _dies_at_5(index: int) -> Any:
    if index == 5 and get_worker_info() is not None:
        os._exit(1)
    return sample(index)


class _Collator:
    def __call__(self, samples: list[Any]) -> Any:
        raise RuntimeError("no padding token is set")


@case("collate-fails")
def own_collator_raises() -> Any:
    """A collate function that is an object."""
    return DataLoader(Samples(sample), batch_size=8, collate_fn=_Collator())


@case("worker-dies")
def worker_dies() -> Any:
    """A worker ends without a word."""
    return DataLoader(Samples(_dies_at_5), batch_size=8, num_workers=1)


def _hangs(index: int) -> Any:
    if index == 40:
        time.sleep(3600)
    return sample(index)


@case("loader-stuck")
def hangs() -> Any:
    """A sample never comes. Tests shorten `batches.PATIENCE`."""
    return DataLoader(Samples(_hangs), batch_size=8)


def _hangs_in_a_worker(index: int) -> Any:
    if index == 40 and get_worker_info() is not None:
        time.sleep(3600)
    return sample(index)


@case("loader-stuck")
def hangs_in_a_worker() -> Any:
    """The same in a worker process only."""
    return DataLoader(Samples(_hangs_in_a_worker), batch_size=8, num_workers=1)


# --- values


@case("value-range")
def floats_to_255() -> Any:
    """Pictures of 0..255 as floats."""
    return loader_of((raw() * 255).round(), mixed_labels())


@case("value-range")
def bytes_to_255() -> Any:
    """Pictures as uint8."""
    return loader_of((raw() * 255).round().byte(), mixed_labels())


@case("value-range")
def grey_floats_to_255() -> Any:
    """Grey pictures of 0..255 as floats, as MNIST's `data` has them."""
    return loader_of((raw(channels=1) * 255).round(), mixed_labels())


@case("value-nonfinite")
def nan_in_a_sample() -> Any:
    """One NaN in sample 17."""
    pictures = normalised()
    pictures[17, 1, 3, 4] = float("nan")
    return loader_of(pictures, mixed_labels(), shuffle=True)


@case("value-nonfinite")
def inf_in_a_sample() -> Any:
    """One infinite value in sample 40."""
    pictures = normalised()
    pictures[40, 0, 0, 0] = float("-inf")
    return loader_of(pictures, mixed_labels())


@case("value-nonfinite")
def nan_in_a_table() -> Any:
    """A row of a table with a missing value, and a price to predict."""
    rows = torch.randn(COUNT, 10, generator=torch.Generator().manual_seed(1))
    rows[3, 2] = float("nan")
    return loader_of(rows, torch.randn(COUNT))


@case("value-nonfinite")
def nan_to_predict() -> Any:
    """A number to predict that is not there."""
    numbers = torch.randn(COUNT, generator=torch.Generator().manual_seed(2))
    numbers[21] = float("nan")
    return loader_of(normalised(), numbers, shuffle=True)


@case("normalised-twice")
def normalised_twice() -> Any:
    """ImageNet's mean and std, two times."""
    return loader_of((normalised() - MEAN) / STD, mixed_labels())


@case("normalised-twice")
def halves_twice() -> Any:
    """0.5 and 0.5, two times: -3..1."""
    pictures = raw()
    pictures[:, :, 0, 0], pictures[:, :, 0, 1] = 0, 1
    return loader_of(((pictures - 0.5) / 0.5 - 0.5) / 0.5, mixed_labels())


@case("normalised-wrong")
def unit_statistics_on_bytes() -> Any:
    """ImageNet's statistics of 0..1 on pictures of 0..255."""
    return loader_of((raw() * 255 - MEAN) / STD, mixed_labels())


@case("normalised-wrong")
def byte_statistics_on_units() -> Any:
    """Statistics of 0..255 on pictures of 0..1."""
    return loader_of((raw() - MEAN * 255) / (STD * 255), mixed_labels())


@case("normalised-wrong")
def divided_twice() -> Any:
    """Pictures divided by 255 two times."""
    return loader_of(raw() / 255, mixed_labels())


@case("channels-last")
def channels_last() -> Any:
    """(N, H, W, C)."""
    return loader_of(normalised().permute(0, 2, 3, 1).contiguous(), mixed_labels())


@case("image-dtype")
def double_pictures() -> Any:
    """numpy's float64."""
    return loader_of(normalised().double(), mixed_labels())


@case("image-dtype")
def integer_pictures() -> Any:
    """int64 pictures of 0..255."""
    return loader_of((raw() * 255).long(), mixed_labels())


@case("constant-sample")
def blank_sample() -> Any:
    """Sample 30 is of one colour."""
    pictures = normalised()
    pictures[30] = 0.25
    return loader_of(pictures, mixed_labels())


@case("constant-channel")
def dead_channel() -> Any:
    """Blue is the same everywhere."""
    pictures = normalised()
    pictures[:, 2] = -1.8
    return loader_of(pictures, mixed_labels())


# --- labels


@case("label-range", classes=4)
def labels_from_one() -> Any:
    """Labels are 1..4 of 4 classes."""
    return loader_of(normalised(), mixed_labels() + 1)


class _Named(Samples):
    classes = ("cat", "dog")


@case("label-range")
def more_labels_than_names() -> Any:
    """Labels 0..3 in a data set that names two classes."""
    return DataLoader(_Named(sample), batch_size=8)


@case("label-range")
def labels_below_zero() -> Any:
    """One label is -1."""
    labels = mixed_labels()
    labels[12] = -1
    return loader_of(normalised(), labels)


@case("label-range", classes=3)
def masks_out_of_range() -> Any:
    """A mask has a class that there is not."""
    masks = (raw(channels=1)[:, 0] * 3).long()
    masks[10, 2, 2] = 7
    return loader_of(normalised(), masks)


@case("label-type", classes=4)
def float_labels() -> Any:
    """Class indices as floats."""
    return loader_of(normalised(), mixed_labels().float())


@case("label-type")
def int32_labels() -> Any:
    """Class indices as int32."""
    return loader_of(normalised(), mixed_labels().int())


@case("label-type")
def bool_labels() -> Any:
    """Two classes as bool."""
    return loader_of(normalised(), mixed_labels() > 1)


def _named_label(index: int) -> tuple[Tensor, str]:
    return picture(index), ("cat", "dog", "bird")[index % 3]


@case("label-type")
def text_labels() -> Any:
    """Names in place of indices."""
    return DataLoader(Samples(_named_label), batch_size=8)


def _list_of_labels(samples: list[Any]) -> Any:
    return torch.stack([picture for picture, _ in samples]), [label for _, label in samples]


@case("label-type")
def labels_in_a_list() -> Any:
    """A collate function leaves the labels as a list of numbers."""
    return DataLoader(Samples(sample), batch_size=8, collate_fn=_list_of_labels)


@case("label-ignored")
def every_label_ignored() -> Any:
    """All labels are -100."""
    return loader_of(normalised(), torch.full((COUNT,), -100))


@case("label-one-hot")
def one_hot_without_one() -> Any:
    """Two rows of one-hot labels are zero."""
    labels = torch.nn.functional.one_hot(mixed_labels(), CLASSES).float()
    labels[[3, 44]] = 0
    return loader_of(normalised(), labels)


@case("one-label")
def one_label_only() -> Any:
    """Every label is 2."""
    return loader_of(normalised(), torch.full((COUNT,), 2), shuffle=True)


@case("unshuffled")
def train_in_order() -> Any:
    """A training loader that gives one class after the other."""
    return loader_of(normalised(), mixed_labels().sort().values)


# --- the epoch


@case("no-batches")
def fewer_samples_than_a_batch() -> Any:
    """drop_last leaves nothing."""
    return loader_of(normalised(20), mixed_labels(20), batch_size=32, drop_last=True)


@case("no-batches")
def no_samples() -> Any:
    """A data set of length 0."""
    return DataLoader(Samples(sample, 0), batch_size=8)


@case("dropped-samples")
def a_fifth_is_dropped() -> Any:
    """drop_last leaves 32 of 40."""
    return loader_of(normalised(40), mixed_labels(40), batch_size=32, drop_last=True)


@case("last-batch-of-one")
def last_batch_of_one() -> Any:
    """33 samples in batches of 8."""
    return loader_of(normalised(33), mixed_labels(33))


def _ends_at_50(index: int) -> Any:
    if index >= 50:
        raise IndexError("list index out of range")
    return sample(index)


@case("length-wrong", "sample-raises")
def length_too_large() -> Any:
    """A data set of 50 says it has 64."""
    return DataLoader(Samples(_ends_at_50), batch_size=8)


class _ShortStream(IterableDataset[Any]):
    def __len__(self) -> int:
        return 100

    def __iter__(self) -> Iterator[Any]:
        return (sample(index) for index in range(60))


@case("length-wrong")
def stream_too_short() -> Any:
    """An IterableDataset says 100 and gives 60."""
    return DataLoader(_ShortStream(), batch_size=8)


@case("duplicate-samples")
def the_same_twice() -> Any:
    """A Subset whose indices come twice."""
    indices = [*range(48), *range(16)]
    return DataLoader(Subset(TensorDataset(normalised(), mixed_labels()), indices), batch_size=8)


class _RepeatingStream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return (sample(index % 20) for index in range(40))


@case("duplicate-samples")
def stream_repeats() -> Any:
    """An IterableDataset gives every sample two times."""
    return DataLoader(_RepeatingStream(), batch_size=8)


# --- found by the other parts


class Augmented(Dataset[Any]):
    """Pictures with noise from a generator of their own."""

    def __init__(self, draw: Callable[[], Tensor]) -> None:
        self.draw = draw

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return picture(index) + self.draw(), index % CLASSES


class _Numpy:
    def __init__(self) -> None:
        self.random = np.random.default_rng(0)

    def __call__(self) -> Tensor:
        return torch.from_numpy(self.random.normal(0, 0.1, (3, 16, 16))).float()


class _Python:
    def __init__(self) -> None:
        self.random = random.Random(0)

    def __call__(self) -> Tensor:
        return torch.full((3, 16, 16), self.random.uniform(-0.1, 0.1))


class _Torch:
    def __init__(self) -> None:
        self.random = torch.Generator().manual_seed(0)

    def __call__(self) -> Tensor:
        return torch.rand(3, 16, 16, generator=self.random) / 10

    def __getstate__(self) -> Tensor:
        return self.random.get_state()

    def __setstate__(self, state: Tensor) -> None:
        self.random = torch.Generator()
        self.random.set_state(state)


@case("worker-seeds", part="workers")
def numpy_generator_in_init() -> Any:
    """np.random.default_rng() made in __init__: every worker draws the same."""
    return DataLoader(Augmented(_Numpy()), batch_size=8, num_workers=2, shuffle=True)


@case("worker-seeds", part="workers")
def python_generator_in_init() -> Any:
    """The same with random.Random()."""
    return DataLoader(Augmented(_Python()), batch_size=8, num_workers=2, shuffle=True)


@case("worker-seeds", part="workers")
def torch_generator_in_init() -> Any:
    """The same with torch.Generator()."""
    return DataLoader(Augmented(_Torch()), batch_size=8, num_workers=2, shuffle=True)


class Stream(IterableDataset[Any]):
    """64 samples, given once by every worker, unless each takes its share."""

    def __init__(self, sharded: bool) -> None:
        self.sharded = sharded

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info() if self.sharded else None
        yield from (sample(index) for index in range(worker.id if worker else 0, COUNT, worker.num_workers if worker else 1))


@case("worker-duplicates", part="workers")
def stream_once_a_worker() -> Any:
    """Both workers give everything."""
    return DataLoader(Stream(sharded=False), batch_size=8, num_workers=2)


@case("workers-fail", part="workers")
def lambda_and_spawn() -> Any:
    """Workers that are started anew cannot get a lambda."""
    return DataLoader(Samples(lambda index: sample(index)), batch_size=8, num_workers=2, multiprocessing_context="spawn")


class _MainProcessOnly(Samples):
    def __getitem__(self, index: int) -> Any:
        if get_worker_info() is not None:
            raise RuntimeError("the database was opened in another process")
        return sample(index)


@case("workers-fail", part="workers", found=("workers-fail",))
def main_process_only() -> Any:
    """It can be read in the main process only."""
    return DataLoader(_MainProcessOnly(sample), batch_size=8, num_workers=2)


class _InPlace(Dataset[Any]):
    def __init__(self) -> None:
        self.pictures = normalised()

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = self.pictures[index]
        picture *= 0.99
        return picture, index % CLASSES


@case("sample-mutated", part="repeats")
def changed_in_place() -> Any:
    """Every reading makes the stored picture darker."""
    return DataLoader(_InPlace(), batch_size=8)


class _Hoarding(Dataset[Any]):
    def __init__(self) -> None:
        self.kept: list[Any] = []

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.kept.append(torch.ones(100_000))  # 400 kB
        return sample(index)


@case("memory-growth", part="growth")
def keeps_everything() -> Any:
    """A list that gets longer with every sample: 26 MB an epoch."""
    return DataLoader(_Hoarding(), batch_size=8)


def _slow(index: int) -> tuple[Tensor, int]:
    time.sleep(0.005)
    return sample(index)


@case("loader-slow", part="pace", rate=2000)
def slow() -> Any:
    """200 samples a second where 2,000 are wanted."""
    return DataLoader(Samples(_slow), batch_size=8)


# --- healthy ones


@case()
def plain() -> Any:
    """Pictures and labels, shuffled."""
    return loader_of(normalised(), mixed_labels(), shuffle=True)


@case(classes=4)
def with_workers() -> Any:
    """The same with two workers, a part of which stay alive between epochs."""
    return loader_of(normalised(), mixed_labels(), shuffle=True, num_workers=2, persistent_workers=True)


@case()
def plain_dataset() -> Any:
    """A Dataset without a loader."""
    return TensorDataset(normalised(), mixed_labels())


@case()
def units() -> Any:
    """Pictures in 0..1, which some networks want."""
    return loader_of(raw(), mixed_labels(), shuffle=True)


def _hugging_face(index: int) -> dict[str, Any]:
    return {"pixel_values": picture(index), "labels": index % CLASSES}


@case(classes=4)
def dicts() -> Any:
    """Batches as Hugging Face makes them."""
    return DataLoader(Samples(_hugging_face), batch_size=8, shuffle=True)


Pair = namedtuple("Pair", ["image", "label"])


def _pair(index: int) -> Any:
    return Pair(*sample(index))


@case()
def named_tuples() -> Any:
    """Samples that are named tuples."""
    return DataLoader(Samples(_pair), batch_size=8)


@dataclass
class Batch:
    """A batch of a class of its own."""

    images: Tensor
    targets: Tensor

    def to(self, device: str) -> Batch:
        """Move it."""
        return Batch(self.images.to(device), self.targets.to(device))


def _own_batch(samples: list[Any]) -> Batch:
    return Batch(*default_collate(samples))


@case()
def own_batch_class() -> Any:
    """Batches with `.to`."""
    return DataLoader(Samples(sample), batch_size=8, collate_fn=_own_batch)


def _detection(index: int) -> tuple[Tensor, dict[str, Tensor]]:
    boxes = 1 + index % 3
    return picture(index)[:, : 12 + index % 4].clamp(0, 1), {
        "boxes": torch.rand(boxes, 4) * 12,
        "labels": torch.ones(boxes, dtype=torch.long),
    }


def _detector_batch(samples: list[Any]) -> Any:
    return tuple(zip(*samples, strict=True))


@case(classes=2)
def detection() -> Any:
    """Pictures of several sizes with boxes, as torchvision's detectors take them."""
    return DataLoader(Samples(_detection), batch_size=8, collate_fn=_detector_batch)


@case()
def detection_dataset() -> Any:
    """The same without a loader."""
    return Samples(_detection)


@case(classes=5)
def segmentation() -> Any:
    """Masks with 255 at the borders, which the loss ignores."""
    masks = (raw(channels=1)[:, 0] * 5).long()
    masks[:, :, 0] = 255
    return loader_of(normalised(), masks, shuffle=True)


@case()
def regression() -> Any:
    """Floats to predict."""
    return loader_of(normalised(), torch.randn(COUNT, generator=torch.Generator().manual_seed(2)).sort().values)


@case()
def multi_label() -> Any:
    """Several labels a picture, or none."""
    labels = (torch.rand(COUNT, 6, generator=torch.Generator().manual_seed(3)) > 0.7).float()
    return loader_of(normalised(), labels, shuffle=True)


@case()
def soft_labels() -> Any:
    """Two labels mixed."""
    first, second = (torch.nn.functional.one_hot(mixed_labels().roll(by), CLASSES) for by in (0, 1))
    return loader_of(normalised(), 0.7 * first + 0.3 * second, shuffle=True)


def _text(index: int) -> tuple[Tensor, int]:
    return torch.arange(3 + index % 5) + 100, index % 2


def _padded(samples: list[Any]) -> dict[str, Tensor]:
    ids = torch.nn.utils.rnn.pad_sequence([ids for ids, _ in samples], batch_first=True)
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": torch.tensor([label for _, label in samples])}


@case(classes=2)
def text() -> Any:
    """Token ids of several lengths, padded."""
    return DataLoader(Samples(_text), batch_size=8, collate_fn=_padded, shuffle=True)


@case()
def tokens_in_lists() -> Any:
    """A Dataset of texts as Python lists of several lengths, for a collate function to pad."""
    return Samples(lambda index: {"input_ids": list(range(1 + index % 5)), "label": index % 2})


@case()
def targets_none() -> Any:
    """A Dataset whose samples have no label, and a collate function that knows it."""
    return DataLoader(Samples(lambda index: (picture(index), None)), batch_size=8, collate_fn=_without_targets)


def _without_targets(samples: list[Any]) -> Any:
    return torch.stack([picture for picture, _ in samples]), None


@case()
def language_model() -> Any:
    """Tokens as labels, -100 where there is nothing to predict."""
    ids = torch.randint(0, 1000, (COUNT, 12), generator=torch.Generator().manual_seed(4))
    labels = ids.clone()
    labels[:, :6] = -100
    return loader_of(ids, labels, shuffle=True)


@case()
def additive_masks() -> Any:
    """Masks of 0 and minus infinity, as attention takes them."""
    mask = torch.zeros(COUNT, 6, 6).masked_fill(torch.ones(6, 6).triu(1).bool(), float("-inf"))
    return loader_of(torch.randn(COUNT, 6, 8), mask, shuffle=True)


@case()
def caffe() -> Any:
    """0..255 less the mean, never divided, as the networks of Caffe take it."""
    return loader_of(raw() * 255 - torch.tensor([104.0, 117.0, 123.0])[:, None, None], mixed_labels(), shuffle=True)


@case()
def high_dynamic_range() -> Any:
    """Light in 0..6."""
    return loader_of(raw() * 6, mixed_labels(), shuffle=True)


@case()
def audio() -> Any:
    """Waves in -1..1, one channel."""
    return loader_of(torch.rand(COUNT, 1, 400) * 2 - 1, mixed_labels(), shuffle=True)


@case()
def spectrograms() -> Any:
    """Decibels in -80..0, one channel."""
    return loader_of(-80 * raw(channels=1, side=32), mixed_labels(), shuffle=True)


@case()
def films() -> Any:
    """(N, C, T, H, W)."""
    pictures = normalised().view(16, 4, 3, 16, 16).transpose(1, 2)
    return loader_of(pictures.contiguous(), mixed_labels(16), batch_size=4, shuffle=True)


@case()
def grey() -> Any:
    """One channel, with MNIST's statistics."""
    return loader_of((raw(channels=1) - 0.1307) / 0.3081, mixed_labels(), shuffle=True)


@case()
def half_precision() -> Any:
    """float16 pictures."""
    return loader_of(normalised().half(), mixed_labels(), shuffle=True)


@case()
def without_labels() -> Any:
    """Pictures alone."""
    return loader_of(normalised(), shuffle=True)


@case()
def two_views() -> Any:
    """Two views of each picture, as contrastive learning takes them."""
    return DataLoader(Samples(lambda index: ([picture(index), picture(index + COUNT)], index)), batch_size=8, shuffle=True)


@case()
def captions() -> Any:
    """Pictures with a sentence each."""
    return DataLoader(Samples(lambda index: {"image": picture(index), "text": f"picture {index} of a cat"}), batch_size=8, shuffle=True)


def _filtered(samples: list[Any]) -> Any:
    return default_collate([one for one in samples if one is not None])


@case()
def none_is_left_out() -> Any:
    """Samples that are None, and a collate function that leaves them out."""
    return DataLoader(Samples(_none_at_13), batch_size=8, collate_fn=_filtered)


@case()
def drawn_by_weight() -> Any:
    """Samples that come several times because they shall."""
    sampler = WeightedRandomSampler(torch.ones(COUNT).tolist(), COUNT, replacement=True)
    return loader_of(normalised(), mixed_labels(), sampler=sampler)


@case()
def sharded_stream() -> Any:
    """An IterableDataset that shares its samples among the workers."""
    return DataLoader(Stream(sharded=True), batch_size=8, num_workers=2)


class _Batches(Dataset[Any]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return default_collate([sample(8 * index + place) for place in range(8)])


@case()
def batches_by_the_dataset() -> Any:
    """batch_size=None: the data set makes batches."""
    return DataLoader(_Batches(), batch_size=None)


@case()
def generator_of_batches() -> Iterator[Any]:
    """A generator function."""
    for index in range(8):
        yield default_collate([sample(8 * index + place) for place in range(8)])


@case()
def endless() -> Iterator[Any]:
    """A generator without an end."""
    index = 0
    while True:
        yield default_collate([sample(8 * index + place) for place in range(8)])
        index += 1


@case()
def val_in_order() -> Any:
    """A validation loader, which may go in order and keep a last batch of one."""
    return loader_of(normalised(33), mixed_labels(33).sort().values)


@case()
def global_generators() -> Any:
    """Augmentation with the global generators, which torch seeds in every worker."""
    return DataLoader(
        Augmented(lambda: torch.full((3, 16, 16), float(np.random.rand() + random.random()) / 10)), batch_size=8, num_workers=2
    )


# --- two that share samples


def leak_train() -> Any:
    """Samples 0..63."""
    return DataLoader(Samples(sample), batch_size=8, shuffle=True)


def leak_val() -> Any:
    """Samples 60..91: four of them are in `leak_train` as well."""
    return DataLoader(Samples(lambda index: sample(index + 60), 32), batch_size=8)


def clean_val() -> Any:
    """Samples 100..131."""
    return DataLoader(Samples(lambda index: sample(index + 100), 32), batch_size=8)
