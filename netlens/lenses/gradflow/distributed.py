"""The same step in several processes, as `torchrun` starts them: each on its own batches, compared, then reduced to what one would see."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from math import isfinite, sqrt
from pathlib import Path
from time import sleep
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from netlens.errors import InputError
from netlens.lenses.gradflow.report import LayerFlow, Rank
from netlens.lenses.gradflow.shards import fingerprint, is_sharded, joined_layer, local_part, replicas
from netlens.lenses.gradflow.statistics import Magnitudes, all_magnitudes, wide
from netlens.loading.launch import SETTLED, launched

T = TypeVar("T")
PATIENCE = timedelta(minutes=10)  # for the slowest process, before the others give up
BUCKET = 1 << 22  # elements that are reduced at once


def own_device(asked: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return "cuda:1" for the second process of a machine where any GPU would do; else what was asked for."""
    anyone = asked in (None, "auto", "cuda") and torch.cuda.is_available()
    return f"cuda:{environment.get('LOCAL_RANK', '0')}" if anyone and launched(environment) else asked


@contextmanager
def processes(device: torch.device) -> Iterator[Processes | None]:
    """Join the other processes, and leave them afterwards; None: this is the only one.

    A group that the user's code has made is used and kept; so enter after that code has been imported.
    """
    begun = dist.is_available() and dist.is_initialized()
    if not begun and not launched():
        yield None
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not begun:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), device) if dist.get_world_size() > 1 else None
    finally:
        if not begun:
            sleep(SETTLED)
            dist.destroy_process_group()


@dataclass(frozen=True)
class Reduced:
    """One step of all processes together."""

    loss: Tensor  # mean over the samples of all
    ranks: tuple[Rank, ...]
    samples: int  # of all


@dataclass(frozen=True)
class Processes:
    """This process among others. Every method is called by all of them, in the same order."""

    rank: int
    size: int
    device: torch.device
    alone = False

    @property
    def reports(self) -> bool:
        """Whether it is this one that reports."""
        return self.rank == 0

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Let only the reporting process write to stdout and stderr while the block runs; exceptions pass."""
        if self.reports:
            yield
            return
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield

    def shard(self, batches: Callable[[], Iterator[T]]) -> Callable[[], Iterator[T]]:
        """Return the batches of this process without end: every `size`-th, so that each step takes the next `size` batches."""
        return lambda: islice(_endless(batches), self.rank, None, self.size)

    def reduced(self, loss: Tensor, parameters: Sequence[nn.Parameter], samples: int) -> Reduced:
        """Compare the gradients of all processes, and put that of the mean loss over all their samples into every `.grad`.

        As DistributedDataParallel would, but weighted by samples. Sharded parameters have been reduced on the way, and stay as they are.

        Args:
            loss: of this process, the mean over its samples.
            parameters: with their gradients, all of the model in one order.
            samples: of this process.
        """
        whole = [parameter for parameter in parameters if not is_sharded(parameter)]
        counts = torch.tensor([samples, *(parameter.grad is not None for parameter in whole)], device=self.device)
        dist.all_reduce(counts)
        total, *given = counts.tolist()
        mine = [parameter for parameter, count in zip(whole, given, strict=True) if count]
        for parameter in mine:  # zeros where only other processes have a gradient
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else _dense(parameter.grad)
        gradients = [parameter.grad for parameter in mine if parameter.grad is not None]
        every = self.ranks(float(loss.detach()), gradients, whole, samples / total)
        if len(whole) < len(parameters):  # of a part of the model they would mislead
            every = tuple(replace(rank, norm=None, cosine=None, parameters_hash="") for rank in every)
        mean = sum(rank.loss * share for rank, share in zip(every, self.gathered(samples / total), strict=True))
        return Reduced(loss.new_tensor(mean, dtype=wide(loss)), every, total)

    def ranks(self, loss: float, gradients: Sequence[Tensor], parameters: Sequence[Tensor], share: float | None = None) -> tuple[Rank, ...]:
        """Compare the gradients of all processes, and write their mean over them.

        Args:
            loss: of this process.
            gradients: of this process, dense, of the same parameters in all; none where they are sharded.
            parameters: as they were for these gradients.
            share: of this process in the mean; None: the same as all others.
        """
        numbers = torch.zeros(3, dtype=wide(torch.empty(0, device=self.device)), device=self.device)  # |own|^2, own . mean, |mean|^2
        for bucket in _buckets(gradients):
            numbers += self._reduce(bucket, 1 / self.size if share is None else share).to(self.device)
        own, product, length = numbers.tolist()
        known = bool(gradients) and isfinite(own)
        norms = sqrt(own) * sqrt(length) if known and isfinite(length) else 0.0
        cosine = product / norms if norms else None
        rank = Rank(self.rank, str(self.device), loss, sqrt(own) if known else None, cosine, fingerprint(parameters) if parameters else "")
        return tuple(self.gathered(rank))

    @torch.no_grad()
    def _reduce(self, gradients: Sequence[Tensor], share: float) -> Tensor:
        """Write the mean over some gradients, and return |own|^2, own . mean and |mean|^2."""
        places = [(torch.view_as_real(each) if each.is_complex() else each).view(-1) for each in gradients]
        own = torch.cat([place.to(torch.promote_types(place.dtype, torch.float32)) for place in places])
        mean = own * share
        dist.all_reduce(mean)
        for place, values in zip(places, mean.split([len(place) for place in places]), strict=True):
            place.copy_(values)
        a, b = own.to(wide(own)), mean.to(wide(own))
        return torch.stack([a.dot(a), a.dot(b), b.dot(b)])

    def magnitudes(self, tensors: Sequence[Tensor | None], parameters: Sequence[nn.Parameter]) -> list[Magnitudes | None]:
        """Return the magnitudes of parameters or of their gradients, of shards those of all processes together; None: nobody has any.

        Args:
            tensors: the same on all processes, except for shards, of which each has its own.
            parameters: whose they are.
        """
        count = len(Magnitudes._fields)
        table = torch.zeros(len(tensors), count + 1, dtype=torch.float64)
        for row, tensor, parameter in zip(table, tensors, parameters, strict=True):
            if tensor is not None and (is_sharded(parameter) or self.reports):  # what all have is counted once
                part = local_part(tensor)
                (numbers,) = all_magnitudes([part], careful=True)
                row[: count - 1] = numbers
                row[count - 1] = part.numel()
            row[count] = tensor is not None
        table = table.to(self.device, wide(torch.empty(0, device=self.device)))
        greatest = table[:, count - 2].clone()
        dist.all_reduce(table)
        dist.all_reduce(greatest, dist.ReduceOp.MAX)
        found: list[Magnitudes | None] = []
        for numbers, most, parameter in zip(table.tolist(), greatest.tolist(), parameters, strict=True):
            copies = replicas(parameter, self.size)
            total, squares, nonzero, nan, infinite, _, elements = (number / copies for number in numbers[:count])
            found.append(Magnitudes(total, squares, nonzero, nan, infinite, most, int(elements)) if numbers[count] else None)
        return found

    def squares(self, tensors: Sequence[Tensor | None], parameters: Sequence[nn.Parameter]) -> list[float | None]:
        """Return the sums of squares that `magnitudes` has."""
        return [found and found.squares for found in self.magnitudes(tensors, parameters)]

    def layers(self, flows: Sequence[LayerFlow], samples: int) -> tuple[LayerFlow, ...]:
        """Return what the layers of one process on the samples of all would show.

        Args:
            flows: of this process, whose loss is the mean over its own samples.
            samples: of this process.
        """
        every = self.gathered((tuple(flows), samples))
        total = sum(count for _, count in every)
        rows: dict[str, list[tuple[LayerFlow, int]]] = {}
        for found, count in every:
            for flow in found:
                rows.setdefault(flow.name, []).append((flow, count))
        return tuple(joined_layer(index, parts, total) for index, parts in enumerate(rows.values()))

    def gathered(self, value: T) -> list[T]:
        """Return what each process has, by rank; it is pickled."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found


def _endless(batches: Callable[[], Iterator[T]]) -> Iterator[T]:
    while True:
        empty = True
        for batch in batches():
            empty = False
            yield batch
        if empty:
            raise InputError("there is no batch to learn from", hint="name data with at least one sample and its label")


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Put tensors of one device and type together, in their order, until a bucket is full."""
    kinds: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        bucket = kinds.setdefault((tensor.device, tensor.dtype), [])
        bucket.append(tensor)
        if sum(each.numel() for each in bucket) >= BUCKET:
            yield kinds.pop((tensor.device, tensor.dtype))
    yield from kinds.values()


def _dense(gradient: Tensor) -> Tensor:
    """Return a gradient that can be seen as one row; torch makes gradients of any strides."""
    gradient = gradient.to_dense() if gradient.layout != torch.strided else gradient
    return gradient.contiguous()
