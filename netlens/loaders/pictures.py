"""What is wrong with pictures as numbers: the rules of thumb of those who look at tensors just before the network."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from netlens.data.issues import Issue, Item
from netlens.loaders.values import Stats, is_channels_last
from netlens.wording import number

# Pictures by their numbers. Normalised with ImageNet's statistics they are in -2.12..2.64; with 0.5 and 0.5 in -1..1.
UNIT = 16.0  # colours above it, and none below 0, were not brought to 0..1; below it may be high dynamic range
GREY_UNIT = 128.0  # the same for one channel, which may be a spectrogram or a depth
BYTE = 255.5
DIVIDED = (0.5 / 255, 1.01 / 255)  # the maximum of pictures that are divided by 255 twice
FAR, FAR_SPREAD = 100.0, 10.0  # statistics of 0..1 on pictures of 0..255 give up to 1,130 with a standard deviation of 326
SHRUNK = 0.05  # standard deviation; statistics of 0..255 on pictures of 0..1 give 0.005, around -2
TWICE_LOW = -4.0  # normalised twice: from -11,
TWICE_SPREAD = 2.5  # with a standard deviation of 5.7
TWICE_MOST = 20.0  # what is further spread is no picture, or Caffe's 0..255 less the mean
HALVES_TWICE = (-3.0, 1.0)  # 0.5 and 0.5 twice, exactly
FLOATS = (torch.float32, torch.float16, torch.bfloat16)  # of what layers take


def picture_issues(picture: Stats, read: int) -> list[Issue]:
    """Tell what is wrong with the pictures of all batches: layout, type, range, and what is the same everywhere."""
    where = f"part {picture.name}"
    issues = []
    if is_channels_last(picture):
        shape = " x ".join(map(str, picture.shape))
        issues.append(Issue("channels-last", (Item((where,), shape),), read, f"batches are {shape}", "N x C x H x W"))
    name = str(picture.dtype).removeprefix("torch.")
    if picture.dtype not in (*FLOATS, torch.uint8):
        issues.append(Issue("image-dtype", (Item((where,), name),), read, name, "float32"))
    elif picture.lows is not None and (verdict := _range(picture)):
        code, measured, threshold = verdict
        issues.append(Issue(code, (Item((where,), measured),), read, measured, threshold))
    if picture.constant:
        issues.append(of_places("constant-sample", picture.constant, read))
    channels = _constant_channels(picture)
    return [*issues, of_places("constant-channel", channels, read)] if channels else issues


def _range(picture: Stats) -> tuple[str, str, str] | None:
    """Return code, what was measured and against what, where numbers are not what networks take."""
    low, high, spread, colour = picture.low, picture.high, picture.spread, not picture.is_grey
    measured = f"{number(low)} to {number(high)}, standard deviation {number(spread)}"
    if picture.dtype == torch.uint8:
        return "value-range", f"uint8, {low:g} to {high:g}", "floats in 0 to 1, or normalised"
    if low >= 0 and (high > UNIT if colour else GREY_UNIT < high <= BYTE):
        return "value-range", measured, "0 to 1, or normalised"
    if low >= 0 and DIVIDED[0] < high <= DIVIDED[1]:
        return "normalised-wrong", f"{measured}: divided by 255 twice", f"a maximum above {DIVIDED[1]:.4f}"
    if not colour:
        return None
    if low >= 0 and high <= 1:
        return "not-normalised", measured, "mean 0, standard deviation 1"
    if low >= HALVES_TWICE[0] and high > FAR and spread > FAR_SPREAD:
        return "normalised-wrong", f"{measured}: statistics of 0..1 on pictures of 0..255", f"a maximum of at most {FAR:g}"
    if picture.sums is not None and spread > 0 and _is_shrunk(picture):
        return "normalised-wrong", f"{measured}: statistics of 0..255 on pictures of 0..1", f"a standard deviation of at least {SHRUNK:g}"
    if low < TWICE_LOW and TWICE_SPREAD < spread < TWICE_MOST:
        return "normalised-twice", measured, f"{TWICE_LOW:g} or more, or a standard deviation of at most {TWICE_SPREAD:g}"
    if abs(low - HALVES_TWICE[0]) < 1e-3 and abs(high - HALVES_TWICE[1]) < 1e-3:
        return "normalised-twice", f"{measured}: exactly what 0.5 and 0.5 give when they are applied twice", "-1 to 1"
    return None


def _is_shrunk(picture: Stats) -> bool:
    assert picture.sums is not None
    count, mean, squares = picture.sums
    return bool(((squares / count).sqrt() < SHRUNK).all() and (mean.abs() > 1).all())


def _constant_channels(picture: Stats) -> list[tuple[str, str]]:
    if picture.lows is None or picture.highs is None:
        return []
    lows, same = picture.lows.tolist(), (picture.lows == picture.highs).tolist()
    return [(f"channel {place}", f"{lows[place]:.4g} everywhere") for place, is_ in enumerate(same) if is_ and not all(same)]


def of_places(code: str, places: Sequence[tuple[str, str]], total: int, threshold: str = "") -> Issue:
    """Make an issue of samples, each with what was found there."""
    return Issue(code, tuple(Item((place,), detail) for place, detail in places), total, f"{len(places):,} of {total:,}", threshold)
