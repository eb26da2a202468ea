"""Workers of a loader, and samples that are read again: planted faults with known answers, and healthy twins that stay silent."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import Lock, Queue, active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, get_worker_info

from netlens.loaders import workers
from netlens.loaders.aside import Unfinished, aside
from netlens.loaders.digests import digest
from netlens.loaders.repeats import samples_mutated
from netlens.loaders.seeds import _too_alike, worker_seeds
from netlens.loaders.shards import worker_duplicates
from netlens.loaders.workers import NEW, check_workers, workers_fail
from tests.loader_faults import CASES, Samples, faults, picture, sample

pytestmark = pytest.mark.usefixtures("childless")

MEMORY = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells of processes in /proc")


class Drawn(Dataset[Any]):
    """Pictures with something drawn at random."""

    def __init__(self, draw: Callable[[], float], count: int = 40) -> None:
        self.draw, self.count = draw, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return picture(index) + self.draw(), index


class Stream(IterableDataset[Any]):
    """Samples that a function of (number of the worker, workers) names; there may be no end."""

    def __init__(self, shares: Callable[[int, int], Iterator[Any]]) -> None:
        self.shares = shares

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        return self.shares(worker.id if worker else 0, worker.num_workers if worker else 1)


# --- The fork in which all of this happens


def test_a_fork_answers_and_leaves_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Objects, random numbers and stdout of this process stay as they are, whatever the user's code does to its own."""
    kept, values, children = [1], torch.zeros(3), set(active_children())
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()

    def work() -> Any:
        kept.append(2)
        values.add_(1)
        print("on stdout")
        os.system("echo from a shell")
        return kept, float(values.sum()), random.random(), torch.rand(1).item()

    first, second = aside(work, 30), aside(work, 30)
    assert first == second
    assert first[:2] == ([1, 2], 3.0)
    assert kept == [1]
    assert not values.any()
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert capfd.readouterr() == ("", "")
    assert set(active_children()) <= children


def _raises() -> None:
    raise ValueError("no such\nfile")


@pytest.mark.parametrize(
    ("work", "why"),
    [
        (_raises, "ValueError: no such file"),
        (lambda: os._exit(3), "the process ended, with exit code 3"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "the process was killed by SIGKILL"),
        (lambda: time.sleep(600), "took more than 0.3 s"),
    ],
)
def test_a_fork_that_gives_no_answer(work: Callable[[], Any], why: str) -> None:
    """It raises, ends, is killed, or hangs: each is told, and none is waited for."""
    children = set(active_children())
    with pytest.raises(Unfinished, match=why):
        aside(work, 0.3 if why.startswith("took") else 30)
    assert set(active_children()) <= children


@MEMORY
def test_a_fork_is_killed_with_its_workers(tmp_path: Path) -> None:
    """What the user's code started in it goes as well."""

    def work() -> None:
        child = os.fork()
        if not child:
            time.sleep(600)
        (tmp_path / "pid").write_text(str(child))
        time.sleep(600)

    with pytest.raises(Unfinished, match="took more"):
        aside(work, 1.0)
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):  # whoever inherits it has to take note of its end
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("it is still there")


# --- Whether two samples are the same


@dataclass
class Pair:
    """A sample of a class of its own."""

    image: torch.Tensor
    label: int


SAMPLES: list[Callable[[], Any]] = [
    lambda: torch.zeros(4),
    lambda: torch.zeros(2, 2),
    lambda: torch.zeros(4, dtype=torch.float64),
    lambda: torch.zeros(4, dtype=torch.bfloat16),
    lambda: torch.arange(6).view(2, 3),
    lambda: torch.arange(6).view(2, 3).t(),
    lambda: torch.arange(6).view(2, 3).t().contiguous().view(2, 3),
    lambda: torch.eye(2).to_sparse(),
    lambda: torch.tensor(1.0),
    lambda: np.zeros(4),
    lambda: np.array(["a", None, 2], dtype=object),
    lambda: np.float32(1),
    lambda: np.bool_(True),
    lambda: np.bool_(False),
    lambda: 1,
    lambda: 1.0,
    lambda: True,
    lambda: "1",
    lambda: b"1",
    lambda: None,
    lambda: (1, 2),
    lambda: [1, 2],
    lambda: [[1], 2],
    lambda: {"a": 1, "b": 2},
    lambda: {"a": 2, "b": 1},
    lambda: {1, 2, 3},
    lambda: Image.new("RGB", (2, 3)),
    lambda: Image.new("RGB", (3, 2)),
    lambda: Image.new("L", (2, 3)),
    lambda: Pair(torch.ones(2), 1),
    lambda: Pair(torch.ones(2), 2),
    lambda: Path("a.jpg"),
    lambda: Path("b.jpg"),
    lambda: object(),
]


def test_samples_are_told_apart_by_their_values_alone() -> None:
    """Each of these, made twice, is itself, and none of the others."""
    first, second = [make() for make in SAMPLES], [make() for make in SAMPLES]
    assert list(map(digest, first)) == list(map(digest, second))
    assert len(set(map(digest, first))) == len(SAMPLES)


# --- Random numbers


def _numpy() -> Callable[[], float]:
    return np.random.default_rng().random


def _python() -> Callable[[], float]:
    return random.Random(7).random


class _Torch:
    def __init__(self) -> None:
        self.random = torch.Generator()

    def __call__(self) -> float:
        return float(torch.rand(1, generator=self.random))


def _flip() -> Callable[[], float]:
    source = random.Random(0)
    return lambda: float(source.random() < 0.5)


def _reseed_the_same(_worker: int) -> None:
    np.random.seed(42)


def _reseed_by_worker(worker: int) -> None:
    np.random.seed(worker)


def _give_own(_worker: int) -> None:
    worker = get_worker_info()
    assert worker is not None
    worker.dataset.draw = np.random.default_rng(torch.initial_seed() % 2**32).random


@pytest.mark.parametrize("make", [_numpy, _python, _Torch, _flip])
def test_generators_made_once_draw_the_same_in_every_worker(make: Callable[[], Callable[[], float]]) -> None:
    """Copies of one generator: equal in both workers, and in both epochs, since new workers are new copies."""
    (found,) = worker_seeds(DataLoader(Drawn(make()), batch_size=4, num_workers=2, shuffle=True))
    assert found.code == "worker-seeds"
    assert not found.latent
    assert "two workers and in two epochs" in found.items[0].detail
    assert found.items[0].paths[0].startswith("sample ")


def test_an_init_function_that_seeds_all_workers_alike() -> None:
    """`np.random.seed(42)` in worker_init_fn undoes what torch does."""
    loader = DataLoader(Drawn(np.random.rand), batch_size=4, num_workers=2, worker_init_fn=_reseed_the_same)
    (found,) = worker_seeds(loader)
    assert "the same in two workers and in two epochs" in found.items[0].detail


def test_an_init_function_that_seeds_by_the_worker_alone() -> None:
    """Workers differ, and every epoch is a repetition of the first; not so where workers live on."""
    (found,) = worker_seeds(DataLoader(Drawn(np.random.rand), batch_size=4, num_workers=2, worker_init_fn=_reseed_by_worker))
    assert found.items[0].detail == "drawn at random, and the same in two epochs"
    lasting = DataLoader(Drawn(np.random.rand), num_workers=2, worker_init_fn=_reseed_by_worker, persistent_workers=True)
    assert worker_seeds(lasting) == []


@pytest.mark.parametrize(
    ("draw", "options"),
    [
        (np.random.rand, {}),
        (random.random, {}),
        (lambda: float(torch.rand(1)), {}),
        (lambda: float(torch.rand(1)), {"generator": torch.Generator().manual_seed(0)}),
        (lambda: float(torch.rand(1) < 0.5), {}),
        (lambda: float(torch.rand(1) < 0.02), {}),
        (lambda: int.from_bytes(os.urandom(4), "little"), {}),
        (np.random.default_rng(0).random, {"worker_init_fn": _give_own}),
        (lambda: 0.0, {}),
        (lambda: random.Random(5).random(), {}),  # seeded anew at each reading: no augmentation, and no fault of workers
    ],
)
def test_healthy_random_numbers(draw: Callable[[], float], options: dict[str, Any]) -> None:
    """What torch seeds in each worker, what worker_init_fn mends, and what is not random."""
    assert worker_seeds(DataLoader(Drawn(draw), batch_size=4, num_workers=2, **options)) == []


@pytest.mark.parametrize(("count", "latent"), [(0, True), (1, False), (2, False)])
def test_seeds_matter_with_workers_only(count: int, latent: bool) -> None:
    """One worker repeats its epochs already; none at all leaves the generator where it is."""
    (found,) = worker_seeds(DataLoader(Drawn(_numpy()), num_workers=count))
    assert found.latent is latent


def test_samples_that_cannot_be_read_are_left_out() -> None:
    """Some raise: the others show the fault."""

    class Broken(Drawn):
        def __getitem__(self, index: int) -> Any:
            if index % 5 == 3:
                raise OSError(index)
            return super().__getitem__(index)

    said: list[str] = []
    (found,) = worker_seeds(DataLoader(Broken(_numpy()), num_workers=2), said.append)
    assert not said
    assert {int(item.paths[0].split()[1]) % 5 for item in found.items} == {0, 1, 2, 4}


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_chance_alone_is_no_finding(rate: float) -> None:
    """Healthy workers whose samples are random at this rate: 1 in 10,000 may be called alike; a quarter of it is here."""
    source = random.Random(0)

    def pairs(count: int) -> list[tuple[bytes, bytes]]:
        return [(b"", b"x" if source.random() < rate else b"") for _ in range(count)]

    assert sum(_too_alike(pairs(48), pairs(32)) for _ in range(2500)) <= 3


# --- Streams


def _whole(_worker: int, _workers: int) -> Iterator[Any]:
    return map(sample, range(30))


def _share(worker: int, workers: int) -> Iterator[Any]:
    return map(sample, range(worker, 30, workers))


def _noisy(_worker: int, _workers: int) -> Iterator[Any]:
    return ((picture(index) + torch.rand(1), index) for index in range(30))


def _noisy_shuffled(_worker: int, _workers: int) -> Iterator[Any]:
    order = torch.randperm(30).tolist()
    return ({"image": picture(index) + torch.rand(1), "label": index % 3} for index in order)


def _endless(_worker: int, _workers: int) -> Iterator[Any]:
    index = 0
    while True:
        yield sample(index)
        index += 1


def _random_endless(_worker: int, _workers: int) -> Iterator[Any]:
    while True:
        yield torch.rand(3), 0


def _random_to_the_end(_worker: int, _workers: int) -> Iterator[Any]:
    return ((torch.rand(3), 0) for _ in range(30))


def _blank_endless(_worker: int, _workers: int) -> Iterator[Any]:
    while True:
        yield torch.zeros(3), 0


def _periodic_share(worker: int, workers: int) -> Iterator[Any]:
    return ((picture(index) + torch.rand(1), index // 2 % 3) for index in range(worker, 24, workers))


@pytest.mark.parametrize(
    ("shares", "repeated"),
    [
        (_whole, True),
        (_noisy, True),
        (_noisy_shuffled, True),
        (_endless, True),
        (_share, False),
        (_periodic_share, False),  # both workers have the labels 0, 1, 2, 0, 1, 2, ..., of other samples
        (_random_to_the_end, False),  # as many as one wants, and no two the same
        (_random_endless, False),
        (_blank_endless, False),
    ],
)
def test_streams_that_every_worker_gives(shares: Any, repeated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known by the count of an epoch, and by parts that no augmentation changes; without an end, by equal beginnings."""
    monkeypatch.setattr("netlens.loaders.shards.MOST", 60)
    found = worker_duplicates(DataLoader(Stream(shares), batch_size=4, num_workers=2))
    assert [(issue.code, issue.latent) for issue in found] == [("worker-duplicates", False)] * repeated


def _by_init(worker: int) -> None:
    info = get_worker_info()
    assert info is not None
    info.dataset.shares = lambda _worker, _workers: map(sample, range(worker, 30, info.num_workers))


def test_streams_that_are_shared_out_elsewhere() -> None:
    """worker_init_fn may do it; one worker, or none, cannot repeat anything yet; batches made by the stream count as well."""
    assert worker_duplicates(DataLoader(Stream(_whole), num_workers=2, worker_init_fn=_by_init)) == []
    assert [issue.latent for issue in worker_duplicates(DataLoader(Stream(_whole), num_workers=0))] == [True]
    assert [issue.latent for issue in worker_duplicates(DataLoader(Stream(_whole), batch_size=None, num_workers=2))] == [False]
    assert worker_duplicates(DataLoader(Samples(sample), num_workers=2)) == []


# --- Workers that fail


def _in_the_main_process(index: int) -> Any:
    if get_worker_info() is not None:
        raise sqlite_error()
    return sample(index)


def sqlite_error() -> Exception:
    """Return what databases raise in another process than the one that opened them."""
    return RuntimeError("opened in another process")


def _kills_its_worker(index: int) -> Any:
    if get_worker_info() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return sample(index)


def _hangs_in_a_worker(index: int) -> Any:
    if get_worker_info() is not None:
        time.sleep(600)
    return sample(index)


def test_a_loader_that_works_in_one_process_only() -> None:
    """The exception of the worker is told in one line; without workers nothing is wrong yet."""
    (found,) = check_workers(DataLoader(Samples(_in_the_main_process), batch_size=4, num_workers=1))
    assert (found.code, found.latent, found.items[0].detail) == ("workers-fail", False, "RuntimeError: opened in another process")
    (found,) = workers_fail(DataLoader(Samples(_in_the_main_process), batch_size=4))
    assert found.latent
    assert workers_fail(DataLoader(Samples(lambda index: 1 // 0), num_workers=2)) == []  # not even there: no matter of workers


@pytest.mark.parametrize(("make", "why"), [(_kills_its_worker, "was killed by SIGKILL"), (_hangs_in_a_worker, "timed out after 1")])
def test_workers_that_die_or_hang(make: Any, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither takes this process along; process ids, which differ from run to run, are not told."""
    monkeypatch.setattr(workers, "STUCK", 1.0)
    (found,) = workers_fail(DataLoader(Samples(make), batch_size=4))
    assert found.latent
    assert why in found.items[0].detail
    assert "pid" not in found.items[0].detail
    assert workers_fail(DataLoader(Samples(make), batch_size=4, num_workers=2)) == []  # reading it tells: not twice


def _open_file() -> Any:
    file = Path(__file__).open()  # noqa: SIM115
    made: Any = Samples(sample)
    made.file = file
    return made


@pytest.mark.parametrize(
    ("dataset", "why"),
    [(lambda: Samples(lambda index: sample(index)), "pickle local object|get local object"), (_open_file, "pickle '_io.TextIOWrapper'")],
)
def test_what_cannot_be_sent_to_a_new_process(dataset: Callable[[], Any], why: str) -> None:
    """Latent under fork, a fault under spawn; no concern of a loader without workers."""
    (found,) = workers_fail(DataLoader(dataset(), num_workers=2, multiprocessing_context="fork"))
    assert found.latent
    assert found.items[0].paths == (NEW,)
    assert re.search(why, found.items[0].detail)
    (found,) = workers_fail(DataLoader(dataset(), num_workers=2, multiprocessing_context="spawn"))
    assert not found.latent
    assert workers_fail(DataLoader(dataset())) == []


def test_what_can_be_sent_to_a_new_process() -> None:
    """Locks and queues may be sent when a process starts, and only then; tensors and arrays are not copied for this test."""
    made: Any = Samples(sample)
    made.lock, made.queue, made.values, made.array = Lock(), Queue(), torch.zeros(10), np.zeros(10)
    assert workers_fail(DataLoader(made, num_workers=2)) == []
    assert workers_fail(DataLoader(Samples(partial(sample)), num_workers=2, multiprocessing_context="spawn")) == []


# --- Samples that are read again


class InPlace(Dataset[Any]):
    """Stored pictures, each with its own mean, changed by a function when they are read."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.pictures = torch.rand(20, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 255
        self.change = change

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.change(self.pictures[index]), index


class OneBuffer(InPlace):
    """Gives the same tensor each time, with other values."""

    def __init__(self) -> None:
        super().__init__(torch.clone)
        self.buffer = torch.empty(3, 4, 4)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.buffer.copy_(self.pictures[index]), index


def test_a_sample_that_is_normalised_again_and_again() -> None:
    """Halved at every reading: the means that are told are m, m/2, m/4 of the mean after the first. The user's own stays as it is."""
    dataset = InPlace(lambda picture: picture.div_(2))
    before = dataset.pictures.clone()
    (found,) = samples_mutated(DataLoader(dataset))
    assert torch.equal(dataset.pictures, before)
    means = [float(text) for text in found.items[0].detail.partition("mean is ")[2].split(",")]
    first = float(before[int(found.items[0].paths[0].split()[1])].mean())
    assert means == pytest.approx([first / 2, first / 4, first / 8], rel=0.01)


def test_a_sample_that_is_changed_and_augmented() -> None:
    """Random numbers that can be drawn again do not hide it."""
    (found,) = samples_mutated(DataLoader(InPlace(lambda picture: picture.div_(2) + torch.rand(1) + random.random() + np.random.rand())))
    assert len(found.items) == 6


def test_samples_that_share_one_buffer() -> None:
    """A batch of them would hold the last one several times."""
    (found,) = samples_mutated(DataLoader(OneBuffer(), num_workers=2))
    assert "one buffer" in found.items[0].detail


def _cached(index: int, cache: dict[int, torch.Tensor]) -> torch.Tensor:
    if index not in cache:
        cache[index] = picture(index)
    return cache[index]


@pytest.mark.parametrize(
    "dataset",
    [
        TensorDataset(torch.rand(20, 3)),
        Drawn(np.random.rand),
        Drawn(np.random.default_rng().random),
        Drawn(_flip()),
        Drawn(lambda: int.from_bytes(os.urandom(4), "little")),
        Samples(partial(_cached, cache={})),
        Samples(sample, 1),
        InPlace(lambda picture: picture / 2),
    ],
)
def test_samples_that_stay_what_they_are(dataset: Any) -> None:
    """Random ones are drawn anew and not changed: with equal seeds they are equal, with a generator of their own nothing is said."""
    assert samples_mutated(DataLoader(dataset)) == []


def test_a_changed_sample_is_no_random_number() -> None:
    """Each of the two ways of looking tells its own fault alone."""
    changed = DataLoader(InPlace(lambda picture: picture.div_(2)), num_workers=2)
    assert worker_seeds(changed) == []
    assert samples_mutated(DataLoader(Drawn(_numpy()), num_workers=2)) == []


# --- All loaders that are there


HEALTHY = ("with_workers", "detection", "drawn_by_weight", "sharded_stream", "global_generators")


@pytest.mark.parametrize("name", [*faults("workers"), *faults("repeats"), *HEALTHY])
def test_every_loader_of_the_collection(name: str) -> None:
    """The planted fault and no other; nothing at all, or only what needs more workers, where the loader is healthy."""
    case = CASES[name]
    loader = case.make()
    found = [*check_workers(loader), *samples_mutated(loader)]
    assert {issue.code for issue in found if not issue.latent} == set(case.codes)


def test_nothing_is_left_behind() -> None:
    """Generators of the loader and of the process stand where they stood, and no process runs on."""
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(Drawn(_numpy()), batch_size=4, num_workers=2, shuffle=True, generator=generator, persistent_workers=True)
    attributes = dict(vars(loader))
    states = generator.get_state(), torch.get_rng_state(), random.getstate(), loader.dataset.draw.__self__.bit_generator.state  # type: ignore[attr-defined]
    check_workers(loader)
    samples_mutated(loader)
    assert vars(loader) == attributes
    after = generator.get_state(), torch.get_rng_state(), random.getstate(), loader.dataset.draw.__self__.bit_generator.state  # type: ignore[attr-defined]
    assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(states, after, strict=True))
    assert active_children() == []
