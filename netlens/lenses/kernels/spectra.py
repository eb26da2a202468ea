"""Filters in the frequency domain: how strongly they answer to each spatial frequency."""

from __future__ import annotations

import numpy as np

LEAST = 32  # frequencies along an axis; kernels are padded with zeros, which only interpolates, so that 7 of them look smooth


def spectrum(filters: np.ndarray) -> np.ndarray:
    """Return the gain of each filter at each frequency, zero-padded to N >= 32 and at least twice the kernel.

        gain(f) = sqrt(sum over c of |sum over x of w[c, x] exp(-2 pi i f x / N)|^2)

    It is the ratio of output to input amplitude for a sine wave in one input channel, as root of the sum of squares over the
    channels (and over the time slices of a Conv3d). The mean is left in: the value at frequency 0 is the filter's answer to a flat input.
    By Parseval the mean of gain^2 over all N or N x N frequencies is the squared norm of the filter.

    Args:
        filters: (F, C, k), (F, C, h, w) or (F, C, t, h, w).

    Returns:
        (F, N, N) with frequency 0 at [N / 2, N / 2], or (F, N / 2 + 1) from frequency 0 to 0.5 cycles per step: the
        other half is its mirror image. A filter with NaN or Inf gives NaN.
    """
    axes = (-1,) if filters.ndim == 3 else (-2, -1)
    size = max(LEAST, 2 * max(filters.shape[axis] for axis in axes))
    flat = filters.reshape(len(filters), -1, *filters.shape[axes[0] :])
    with np.errstate(invalid="ignore"):
        gains = np.array([_gain(kernels, size, axes) for kernels in flat]).reshape(-1, *[size] * len(axes))
    if len(axes) == 1:
        return gains[:, : size // 2 + 1]
    return np.fft.fftshift(gains, axes=axes)


def _gain(kernels: np.ndarray, size: int, axes: tuple[int, ...]) -> np.ndarray:
    """Return the gain of one filter (c, *kernel); one at a time, since padding makes it up to a hundred times larger."""
    waves = np.fft.fftn(kernels.astype(np.float64), s=[size] * len(axes), axes=axes)
    gain: np.ndarray = np.sqrt((waves.real**2 + waves.imag**2).sum(axis=0))
    return np.where(np.isfinite(gain), gain, np.nan)
