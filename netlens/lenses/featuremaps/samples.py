"""What is told from a sample of the elements: how channels go together, what depends on the input, percentiles.

Of each batch every s-th place is taken, of all channels, so that about ELEMENTS elements are, but at least FEWEST_PLACES of each channel;
to compare channels with each other every s-th place of every t-th channel, so that at most CHANNELS are. s has no common factor with the
number of places, so that no column of a map is preferred. Small layers are taken whole.
"""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor

from netlens.lenses.featuremaps.sums import wide

CHANNELS = 256
ELEMENTS = 3 << 13  # of a batch; with what rounding adds still too few for torch to start threads
FEWEST_PLACES = 2
KEPT = 1 << 16  # elements for percentiles, over all batches
ROWS = 512  # places by which channels are compared, over all batches
FEWEST_ROWS = 8  # fewer places say nothing about channels
BITS = 20
GOLDEN = 1_696_631  # the golden ratio times 2 ^ BITS


class Thinned:
    """All rows, or those at 0, s, 2 s, ... rounded down, s being the golden ratio times the least power of 2 that leaves at most `most`.

    Such steps meet all columns of a map alike, however wide it is, and leave at least half of `most`.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._step = 1 << BITS  # s times 2 ^ BITS
        self._seen = 0
        self._kept: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        """Take some of `rows`, as a copy."""
        while self._count(self._seen + len(rows)) > self._most:
            self._thin()
        first, last = self._count(self._seen), self._count(self._seen + len(rows))
        if last - first == len(rows):
            self._kept.append(rows.clone())
        elif last > first:
            places = torch.arange(first, last, device=rows.device) * self._step // (1 << BITS) - self._seen
            self._kept.append(rows.index_select(0, places))
        self._seen += len(rows)

    def _thin(self) -> None:
        before = self._step
        self._step = GOLDEN if before == 1 << BITS else 2 * before
        if self._kept:
            rows = self.rows()
            places = torch.arange(self._count(self._seen), device=rows.device) * self._step // before
            self._kept = [rows.index_select(0, places)]

    def _count(self, rows: int) -> int:
        """Return how many of the first so many rows are kept."""
        return -(-(rows << BITS) // self._step)

    def rows(self) -> Tensor:
        """Return what was kept, in the order of adding."""
        return torch.cat(self._kept)


class Sampled:
    """The samples of one layer, over all batches."""

    def __init__(self) -> None:
        self.elements = Thinned(KEPT)
        self._rows = Thinned(ROWS)
        self._shape: tuple[int, int] | None = None  # channels, places
        self._steps = (1, 1)  # over places: of all channels, of some
        self._first: Tensor | None = None  # (places, channels) of the first sample
        self._apart: Tensor | None = None  # sum over samples of the difference to the first one
        self._squares: Tensor | None = None  # sum of these differences squared
        self._samples = 0
        self.comparable = True  # all batches had maps of one shape

    def choose(self, rows: Tensor, channel_axis: int) -> Tensor:
        """Return a sample of one batch, of all channels: (N, p, C).

        Args:
            rows: (N, C, P) or (N, P, C), not empty.
            channel_axis: 1 or 2.
        """
        samples, channels, places = (rows if channel_axis == 1 else rows.transpose(1, 2)).shape
        if (channels, places) != self._shape:
            self.comparable = self._shape is None
            self._shape = channels, places
            self._steps = _step(samples * channels, places), _step(samples * min(channels, CHANNELS), places)
        return _chosen(rows, channel_axis, self._steps[0], 1)

    def add(self, chosen: Tensor, rows: Tensor, channel_axis: int, *, careful: bool) -> None:
        """Take in one batch.

        Args:
            chosen: what `choose` returned for it.
            rows: (N, C, P) or (N, P, C), not empty.
            channel_axis: 1 or 2.
            careful: squares of the elements need float64.
        """
        self.elements.add(chosen.view(-1))
        if self.comparable:
            thinning = -(-rows.shape[channel_axis] // CHANNELS)
            some = chosen if thinning == 1 else _chosen(rows, channel_axis, self._steps[1], thinning)
            self._rows.add(some.flatten(0, 1))
            self._between(chosen.to(wide(chosen)) if careful else chosen)

    def _between(self, chosen: Tensor) -> None:
        """Add up differences to the first sample: they keep their digits where samples are nearly alike."""
        if self._first is None or self._apart is None or self._squares is None:
            self._first = chosen[0].clone()
            self._apart = torch.zeros_like(self._first, dtype=wide(chosen))
            self._squares = torch.zeros((), dtype=wide(chosen), device=chosen.device)
        apart = chosen - self._first
        self._apart += apart.sum(0)
        self._squares += apart.view(-1).dot(apart.view(-1))
        self._samples += len(chosen)

    def variance(self) -> Tensor | float:
        """Return the mean over places and channels of the variance between samples; NaN for a single sample."""
        if self._apart is None or self._squares is None or not self.comparable or self._samples < 2:
            return torch.nan
        variance = self._squares - self._apart.square().sum() / self._samples
        return variance.clamp(min=0) / (self._samples * self._apart.numel())

    def channels(self) -> tuple[Tensor | float, Tensor | float]:
        """Return the participation ratio tr(C)^2 / tr(C^2) of the channels' covariance C, and the mean |correlation| of two channels.

        NaN where there are too few places, or fewer than two channels that vary.
        """
        if not self.comparable or self._shape is None or self._shape[0] < 2:
            return torch.nan, torch.nan
        rows = self._rows.rows()
        if len(rows) < FEWEST_ROWS:
            return torch.nan, torch.nan
        rows = rows - rows[0]
        rows = rows / rows.abs().amax().clamp(min=torch.finfo(rows.dtype).tiny)
        rows = rows - rows.mean(0)
        trace = rows.square().sum()
        gram = rows.T @ rows
        norms = gram.diagonal().sqrt()
        varying = norms > 0
        alike = (gram / norms.where(varying, 1.0) / norms.where(varying, 1.0)[:, None]).abs()
        count = varying.sum()
        correlation = (alike.sum() - alike.diagonal().sum()) / (count * (count - 1))
        return trace.square() / gram.square().sum(), correlation.where(count > 1, torch.nan)


def _chosen(rows: Tensor, channel_axis: int, places: int, channels: int) -> Tensor:
    """Return each so many-th place, the first in the middle of its stretch, of each so many-th channel, as a copy: (N, p, c)."""
    by_place = rows.transpose(1, 2) if channel_axis == 1 else rows
    chosen = by_place[:, places // 2 :: places, ::channels]
    return (chosen.float() if chosen.dtype in (torch.float16, torch.bfloat16) else chosen).contiguous()


def _step(others: int, places: int) -> int:
    step = max(1, min(-(-others * places // ELEMENTS), places // FEWEST_PLACES))
    while step < places // FEWEST_PLACES and gcd(step, places) > 1:
        step += 1
    return step
