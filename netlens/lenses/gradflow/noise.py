"""Gradients of several batches beside each other: how much of them is signal, and from which batch size on noise no longer rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from netlens.lenses.gradflow.report import Noise
from netlens.lenses.gradflow.updates import Gradients, LossOf, differentiate, on_a_copy, real, together

FEWEST = 4  # batches, for an interval
FEWEST_FOR_SIGNAL = 6  # with fewer, its estimate has no finite variance
WIDTH = 1 << 15  # numbers that stand for a gradient in the interval
NORMAL = 1.6448536269514722  # quantile of 95 %: an interval of 90 % leaves out 5 % at either end


def measure_noise(
    model: nn.Module,
    loss_of: LossOf,
    batches: Iterable[Any],
    parameters: Sequence[nn.Parameter],
    *,
    batch_size: int,
    step: Callable[[], object] = lambda: None,
) -> tuple[Noise, list[float | None]]:
    """Differentiate the loss of each batch at the same parameters, and compare the gradients; no step is taken.

    Args:
        model: in the mode in which it is to be looked at; left as it came.
        loss_of: the mean over the samples of a batch.
        batches: of one size, at least two; none is kept.
        parameters: in the order of the report.
        batch_size: samples in each batch.
        step: called after each batch.

    Returns:
        The facts of all parameters together; and the `signal` of each.
    """
    found = GradientNoise(len(parameters))
    with on_a_copy(model) as trainable:
        for batch in batches:
            differentiate(loss_of(batch), trainable)
            found.add([parameter.grad for parameter in parameters])
            step()
    return found.result(batch_size), found.signals()


class GradientNoise:
    """Sums over the gradients of batches; of each parameter mean and variance are held, two copies of it.

    Of each batch's whole gradient a sketch is kept, WIDTH numbers whose inner products are those of the gradients but for an error of
    1 / sqrt(WIDTH) of their lengths (Charikar et al. 2002, "Finding frequent items in data streams"). The interval needs them; of a large
    model it is by that a few percent of the scale wider.
    """

    def __init__(self, count: int) -> None:
        self.batches = 0  # whose gradients are finite
        self.nonfinite = 0  # others, which are left out
        self._means: list[Tensor | None] = [None] * count
        self._squares: list[Tensor | None] = [None] * count  # sums of squared differences from the mean
        self._sketches: list[Tensor] = []

    @torch.no_grad()
    def add(self, gradients: Gradients) -> None:
        """Take the gradients of one batch, of the same parameters in the same order each time; None counts as 0."""
        sketch = torch.zeros(WIDTH)
        for place, gradient in enumerate(gradients):
            if gradient is not None:
                values = real(gradient).flatten()
                sketch = _sketched(values, place) + sketch.to(values)
        if not sketch.isfinite().all() and not all(gradient is None or real(gradient).isfinite().all() for gradient in gradients):
            self.nonfinite += 1
            return
        self.batches += 1
        self._sketches.append(sketch)
        for place, gradient in enumerate(gradients):
            mean, squares = self._means[place], self._squares[place]
            if gradient is None and mean is None:
                continue
            now = torch.zeros_like(mean) if gradient is None else real(gradient)  # type: ignore[arg-type]
            if mean is None or squares is None:
                mean, squares = torch.zeros_like(now), torch.zeros_like(now)
                self._means[place], self._squares[place] = mean, squares
            difference = now - mean
            mean.add_(difference, alpha=1 / self.batches)
            squares.addcmul_(difference, difference, value=1 - 1 / self.batches)

    @property
    def run(self) -> int:
        """How many batches were taken, those left out among them."""
        return self.batches + self.nonfinite

    def signals(self) -> list[float | None]:
        """Return, of each parameter, the mean over elements of (mean gradient)^2 / (variance between batches), Liu et al. 2020.

        The plain quotient of estimates is not 0 for noise alone: its expectation, of normal numbers, is that of the true quotient plus
        1 / n, times (n - 1) / (n - 3); that is taken off, and what falls below 0 is 0. Elements without variance are left out. None: fewer
        than six batches, or no element varies.
        """
        n = self.batches
        if n < FEWEST_FOR_SIGNAL:
            return [None] * len(self._means)
        zero = torch.zeros(())
        pairs = [(zero, zero) if a is None or b is None else (a, b) for a, b in zip(self._means, self._squares, strict=True)]
        quotients = together([(mean.square() * (n - 1) / squares)[squares > 0].mean() for mean, squares in pairs]).tolist()
        return [None if value != value else max(0.0, value * (n - 3) / (n - 1) - 1 / n) for value in quotients]

    def result(self, batch_size: int) -> Noise:
        """Return the noise scale B_simple, tr(covariance of a sample's gradient) / |mean gradient|^2, with its interval.

        Numerator and denominator are each estimated without bias over all batches, and divided then. `scale` is None where the estimate
        of |mean gradient|^2 is not above 0: noise hides it. `high` is None where nothing says that it is not 0; `low` then still holds.
        Batches whose gradient is not finite are counted and left out.
        """
        n = self.batches
        known = [value for value in self.signals() if value is not None]
        lengths = together([mean.square().sum() for mean in self._means if mean is not None])
        spreads = together([squares.sum() for squares in self._squares if squares is not None])
        spread = float(spreads.sum()) / max(1, n - 1)  # trace of the covariance of a batch's gradient
        length = float(lengths.sum()) - spread / max(1, n)  # less the noise of the mean
        if n < 2 or not isfinite(spread + length):
            return Noise(self.run, batch_size, None, None, None, None, self.nonfinite)
        scale = batch_size * spread / length if length > 0 else None
        gram = torch.stack([sketch.double().cpu() for sketch in self._sketches])
        low, high = interval(batch_size * spread, length, gram @ gram.T, batch_size) if n >= FEWEST else (None, None)
        return Noise(self.run, batch_size, scale, low, high, median(known) if known else None, self.nonfinite)


def _sketched(values: Tensor, place: int) -> Tensor:
    """Add up values WIDTH apart, each with a random sign, which is the same in every batch."""
    generator = torch.Generator(values.device).manual_seed(place)
    signs = torch.randint(0, 2, values.shape, generator=generator, dtype=torch.int8, device=values.device).mul_(2).sub_(1)
    offset = place * 7919 % WIDTH  # small tensors must not all fall on the same few numbers
    return nn.functional.pad(values * signs, (offset, -(offset + len(values)) % WIDTH)).view(-1, WIDTH).sum(0)


def interval(spread: float, length: float, gram: Tensor, batch_size: int) -> tuple[float | None, float | None]:
    """Return an interval of 90 % for spread / length, of Fieller's kind: it may be open above, where `length` may be 0.

    Both numbers follow from the inner products of the batches' gradients. Leaving out one batch at a time (the jackknife) gives their
    covariance; a quotient R is in the interval where spread - R length is within Student's t of 0.

    Args:
        spread: estimate of the trace of the covariance of a sample's gradient.
        length: estimate of the squared norm of the mean gradient.
        gram: (n, n) inner products, float64; of sketches.
        batch_size: samples in each batch.
    """
    n = len(gram)
    own, others = gram.diag(), gram.sum(1) - gram.diag()
    lengths = (others.sum() - 2 * others) / ((n - 1) * (n - 2))  # of all but one
    spreads = batch_size * ((own.sum() - own) / (n - 1) - lengths)
    covariance = torch.cov(torch.stack([spreads, lengths]), correction=0) * (n - 1) * student(n - 1) ** 2
    (ss, sl), (_, ll) = covariance.tolist()
    a, b, c = length**2 - ll, spread * length - sl, spread**2 - ss  # inside: a R^2 - 2 b R + c <= 0
    inside = b * b - a * c
    if inside < 0 or a == 0:
        return None, None
    ends = sorted(((b - inside**0.5) / a, (b + inside**0.5) / a))
    if a > 0:
        return (max(0.0, ends[0]), ends[1]) if length > 0 else (None, None)
    return (ends[1] if c > 0 else None), None


def student(freedom: int) -> float:
    """Return the quantile of 95 % of Student's t, by its expansion in 1 / freedom (Abramowitz and Stegun 26.7.5); 0.3 % off at 3."""
    z = NORMAL
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / float(freedom) ** power for power, term in enumerate(terms, 1))
