"""Loaders over time: how fast they are, what a model eats, and whether memory grows."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from netlens.errors import ForwardFailed, InputError
from netlens.loaders import growth, pace
from netlens.loaders.appetite import appetite
from netlens.loaders.facts import Pace
from netlens.loaders.growth import _growth, memory_growth
from netlens.loaders.pace import _advice, _slow, _Timed, _useless, paced
from tests.loader_faults import CASES, Samples, faults, loader_of, mixed_labels, normalised, sample

MEMORY = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells of processes in /proc")
MIB = 2**20


def _sleeps(index: int) -> tuple[Tensor, int]:
    time.sleep(0.005)
    return sample(index)


class SleepingStream(IterableDataset[Any]):
    """12 samples of 5 ms."""

    def __iter__(self) -> Iterator[Any]:
        return map(_sleeps, range(12))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time 12 batches, and short passes."""
    monkeypatch.setattr(pace, "BATCHES", 12)
    monkeypatch.setattr(growth, "PASS", 0.05)


# --- How fast a loader is


@pytest.mark.usefixtures("short")
def test_samples_that_take_five_milliseconds() -> None:
    """200 a second at most, since nobody sleeps less than 5 ms; a busy machine is slower. 2,000 take ten such processes or more."""
    found, issues = paced(DataLoader(Samples(_sleeps), batch_size=4), wanted=2000, wanted_by="--target-rate")
    assert found is not None
    assert 20 < found.samples_per_second <= 200
    assert found.seconds_per_sample == pytest.approx(1 / found.samples_per_second)
    assert found.first_batch >= 4 * 0.005
    assert found.workers_needed == ceil(2000 * found.seconds_per_sample) >= 10
    (slow,) = issues
    assert (slow.code, slow.threshold) == ("loader-slow", "2,000 a second: --target-rate")
    assert f"{found.workers_needed} workers would be needed" in slow.items[0].detail


@pytest.mark.usefixtures("short")
def test_two_workers_sleep_at_the_same_time() -> None:
    """400 a second at most; what a sample costs is that of one process, as without workers."""
    found, issues = paced(DataLoader(Samples(_sleeps, 8), batch_size=4, num_workers=2), wanted=15, wanted_by="the model")
    assert found is not None
    assert (found.workers, found.workers_needed, found.batches) == (2, 1, 12)  # an epoch has two: they come again
    assert 20 < found.samples_per_second < 420
    assert 0.005 <= found.seconds_per_sample < 0.05
    assert issues == []


class InBatches(Dataset[Any]):
    """Three batches of 10 samples, made by the data set, each in 50 ms."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        time.sleep(0.05)
        return torch.zeros(10, 3), torch.arange(10)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(InBatches(), batch_size=None),
        DataLoader(SleepingStream(), batch_size=4),
        DataLoader(SleepingStream(), batch_size=None),
        DataLoader(Samples(_sleeps, 10), batch_sampler=[[0, 1, 2], [3, 4, 5, 6, 7, 8, 9]]),
        DataLoader(Samples(_sleeps), batch_size=12, collate_fn=lambda samples: [str(label) for _, label in samples]),
    ],
)
def test_samples_are_counted_in_batches_of_every_kind(loader: DataLoader[Any]) -> None:
    """Whoever makes the batches, and whatever is in them: a sample takes 5 ms or a little more."""
    found, _ = paced(loader)
    assert found is not None
    assert 0.005 <= found.seconds_per_sample < 0.05
    assert (found.wanted, found.workers_needed) == (None, None)


def test_workers_give_their_batches_at_one_time() -> None:
    """Three workers, each 10 samples in 0.3 s: 100 a second, though two of three gaps are next to nothing."""
    timed = _Timed(0.1, [0.0, 0.0, 0.3] * 5, [10] * 15, 0.0)
    assert timed.rate(3) == pytest.approx([100.0] * 13)
    assert _Timed(0.1, [0.5], [10], 0.0).rate(4) == [20.0]


def _pace(rate: float, cost: float, workers: int, wanted: float | None) -> Pace:
    return Pace(rate, cost, workers, 50, 0.1, wanted, "--target-rate", None if wanted is None else ceil(wanted * cost))


def test_a_loader_is_slow_below_what_is_wanted() -> None:
    """A tenth less is the noise of a shared machine."""
    assert _slow(_pace(95, 0.01, 1, 100), [95.0], 1.0) == []
    assert _slow(_pace(95, 0.01, 1, None), [95.0], 1.0) == []
    (found,) = _slow(_pace(80, 0.01, 0, 100), [70.0, 80.0, 90.0], 1.0)
    assert found.measured.startswith("80.0 samples a second, mostly 70.0 to 90.0, with 0 workers")


def test_advice_is_measured() -> None:
    """1,000 a second of 10 ms take 10 workers. If they compute for 8 of these 10 ms, 8 CPUs; with 4 it is 500 a second at most."""
    assert "10 workers would be needed" in _advice(_pace(90, 0.01, 1, 1000), 0.8, 8)
    assert "8 CPUs would be needed, and 4 CPUs can do 500 a second at most" in _advice(_pace(90, 0.01, 1, 1000), 0.8, 4)
    assert "10 workers would be needed" in _advice(_pace(90, 0.01, 1, 1000), 0.0, 1)
    assert "12 workers should do" in _advice(_pace(90, 0.01, 12, 1000), 0.8, 8)


def test_workers_that_are_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slower than one process, or more than there are CPUs although they compute; waiting for files is another thing."""
    monkeypatch.setattr(pace, "usable_cpus", lambda: 4)
    monkeypatch.setattr("os.getloadavg", lambda: (3.9, 9.0, 9.0))
    assert [issue.code for issue in _useless(_pace(40, 0.01, 4, None), 1.0)] == ["workers-useless"]
    assert _useless(_pace(40, 0.01, 4, 30), 1.0) == []  # and still fast enough
    assert _useless(_pace(90, 0.01, 1, None), 1.0) == []
    assert _useless(_pace(300, 0.01, 4, None), 1.0) == []
    assert [issue.code for issue in _useless(_pace(300, 0.01, 16, None), 0.9)] == ["workers-useless"]
    assert _useless(_pace(300, 0.01, 16, None), 0.1) == []
    monkeypatch.setattr("os.getloadavg", lambda: (4.1, 0.0, 0.0))
    assert _useless(_pace(40, 0.01, 4, None), 1.0) == []  # it may be the machine
    (slow,) = _slow(_pace(40, 0.01, 4, 100), [40.0], 1.0)
    assert slow.items[0].detail.endswith("the machine was busy (load 4.1 on 4 CPUs): alone it may be faster")


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", faults("pace"))
def test_every_slow_loader_of_the_collection(name: str) -> None:
    """By its target rate; with a modest one it is healthy."""
    case = CASES[name]
    assert {issue.code for issue in paced(case.make(), wanted=case.rate)[1]} == set(case.codes)
    assert paced(case.make(), wanted=10)[1] == []


def test_a_loader_that_cannot_be_timed() -> None:
    """It raises, or is empty."""
    said: list[str] = []
    assert paced(DataLoader(Samples(lambda index: 1 // 0)), say=said.append) == (None, [])
    assert said == ["the loader was not timed: ZeroDivisionError: integer division or modulo by zero"]
    assert paced(DataLoader(Samples(sample, 0))) == (None, [])


# --- What a model eats


class Slow(nn.Module):
    """Takes 20 ms for a batch, draws random numbers, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm2d(3), nn.LazyLinear(2)
        self.linear.initialize_parameters(torch.zeros(1, 3 * 16 * 16))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """Return scores."""
        time.sleep(0.02)
        self.calls += 1
        found: Tensor = self.linear(nn.functional.dropout(self.norm(x)).flatten(1))
        return found


def test_a_model_that_takes_twenty_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 samples in 20 ms or more: 400 a second at most. The model and the random numbers stay as they were."""
    monkeypatch.setattr("netlens.loaders.appetite.LONG", 0.1)
    model = Slow().eval()
    model.linear.bias.grad = torch.full((2,), 5.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = next(iter(loader_of(normalised(), mixed_labels())))
    state = torch.get_rng_state()
    rate = appetite(model, batch, "cpu")
    assert 20 < rate <= 400
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.linear.bias.grad.tolist() == [5.0, 5.0]
    assert model.linear.weight.grad is None
    assert (model.training, model.norm.training, model.calls) == (False, False, 0)


class Eats(nn.Module):
    """Counts the steps that went back through it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.steps = [0]

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Return a loss and scores."""
        scores = pixel_values.mean((2, 3)) * self.weight
        if scores.requires_grad and self.training:
            scores.register_hook(lambda _: self.count())
        return {"loss": scores.square().mean(), "logits": scores.detach()}

    def count(self) -> None:
        """Count one."""
        EATEN.append(1)


EATEN: list[int] = []


def test_a_step_goes_forward_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps for warming up and three that are timed at least, on a batch of named parts."""
    monkeypatch.setattr("netlens.loaders.appetite.LONG", 0.0)
    EATEN.clear()
    assert appetite(Eats(), {"pixel_values": torch.rand(5, 3, 4, 4), "labels": torch.zeros(5)}, torch.device("cpu")) > 0
    assert len(EATEN) == 6


def test_bytes_become_floats_on_the_device() -> None:
    """As in loops that divide by 255 on the GPU."""
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.LazyLinear(2))
    model(torch.zeros(1, 3, 8, 8))
    assert appetite(model, (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2)), "cpu") > 0


def test_models_that_cannot_be_asked() -> None:
    """Nothing to learn, or another input."""
    batch = (torch.rand(2, 3, 8, 8), torch.zeros(2))
    with pytest.raises(InputError, match="depends on its parameters"):
        appetite(nn.Flatten(), batch, "cpu")
    with pytest.raises(ForwardFailed, match="expects"):
        appetite(nn.Sequential(nn.Conv2d(1, 2, 3)), batch, "cpu")


# --- Memory


def test_growth_is_told_from_noise() -> None:
    """Bytes after each pass: what goes on growing counts, by its mean; steps, plateaus and wiggles of an allocator do not."""
    source = random.Random(0)
    base = 500 * MIB
    assert _growth([base + 3 * MIB * k for k in range(9)]) == 3 * MIB
    assert _growth([base + 3 * MIB * k + source.randrange(MIB) for k in range(9)]) == pytest.approx(3 * MIB, rel=0.05)
    assert _growth([base + source.randrange(3 * MIB) for _ in range(9)]) == 0
    assert _growth([base] * 4 + [base + 30 * MIB] * 5) == 0
    assert _growth([base + int(20 * MIB * (1 - 0.5**k)) for k in range(9)]) == 0
    assert _growth([base - 3 * MIB * k for k in range(9)]) == 0
    assert _growth([base + 100_000 * k for k in range(9)]) == 0


class Keeping(Dataset[Any]):
    """Small samples, and a function that may keep the 400 kB of which each is made."""

    def __init__(self, keep: Callable[[int, Tensor], object]) -> None:
        self.keep = keep

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> Tensor:
        made = torch.ones(100_000)
        self.keep(index, made)
        return made[:3].clone()


def _listed() -> Callable[[int, Tensor], object]:
    kept: list[Tensor] = []
    return lambda _index, made: kept.append(made)


def _cached_by_crop() -> Callable[[int, Tensor], object]:
    kept: dict[Any, Tensor] = {}
    return lambda index, made: kept.setdefault((index, random.random()), made)


def _cached() -> Callable[[int, Tensor], object]:
    kept: dict[int, Tensor] = {}
    return kept.setdefault


def _bounded() -> Callable[[int, Tensor], object]:
    made = lru_cache(maxsize=20)(lambda _index: torch.ones(100_000))
    return lambda index, _made: made(index)


def _counted() -> Callable[[int, Tensor], object]:
    kept: list[int] = []
    return lambda index, _made: kept.append(index)


class KeepingStream(IterableDataset[Any]):
    """The same, one after the other."""

    def __init__(self, keep: Callable[[int, Tensor], object]) -> None:
        self.dataset = Keeping(keep)

    def __iter__(self) -> Iterator[Any]:
        return (self.dataset[index] for index in range(1000))


@MEMORY
@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("kind", [Keeping, KeepingStream])
@pytest.mark.parametrize("keep", [_listed, _cached_by_crop])
def test_what_is_kept_for_nothing(keep: Any, kind: Any) -> None:
    """400 kB a sample; a cache whose keys never come again is a list."""
    grown, (issue,) = memory_growth(DataLoader(kind(keep()), batch_size=4))
    assert issue.code == "memory-growth"
    assert not issue.latent
    samples = 1000 if kind is Keeping else issue.total  # a stream does not say how many it has
    assert grown == pytest.approx(samples * 400_000, rel=0.15)


@MEMORY
@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("keep", [_cached, _bounded, _counted, lambda: lambda _index, _made: None])
def test_what_is_kept_for_good_reason(keep: Any) -> None:
    """A cache is full after the first time; a list of numbers takes 8 bytes a sample."""
    assert memory_growth(DataLoader(Keeping(keep()), batch_size=4, num_workers=2)) == (0, [])


@MEMORY
@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", [*faults("growth"), "plain", "with_workers", "dicts", "text", "detection", "sharded_stream", "films"])
def test_every_loader_of_the_collection(name: str) -> None:
    """The planted fault, and nothing of healthy ones."""
    assert {issue.code for issue in memory_growth(CASES[name].make())[1]} == set(CASES[name].codes)


class Named(Samples):
    """Holds 100,000 Python strings."""

    def __init__(self) -> None:
        super().__init__(sample)
        self.paths = [(f"/data/{index}.jpg", index % 10) for index in range(100_000)]


class Packed(Samples):
    """Holds the same as an array."""

    def __init__(self) -> None:
        super().__init__(sample)
        self.paths = torch.zeros(100_000, 16, dtype=torch.uint8)


@MEMORY
@pytest.mark.usefixtures("short")
def test_objects_that_every_worker_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at an object writes its reference count: 100,000 strings and tuples are 10 MiB and more, arrays are not touched."""
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("an old kernel")
    monkeypatch.setattr(growth, "COPIED", 2 * 8 * MIB)
    _, (found,) = memory_growth(DataLoader(Named(), num_workers=2))
    assert (found.code, found.latent) == ("memory-growth", True)
    assert "in each of 2 workers" in found.measured
    assert memory_growth(DataLoader(Named()))[1] == []
    assert memory_growth(DataLoader(Packed(), num_workers=2))[1] == []


def test_memory_that_cannot_be_measured() -> None:
    """Every sample raises, or there are none."""
    said: list[str] = []
    assert memory_growth(DataLoader(Samples(lambda index: 1 // 0)), said.append) == (None, [])
    assert memory_growth(DataLoader(Samples(sample, 0)), said.append) == (None, [])
