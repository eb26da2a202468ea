"""What is wrong with a loader, told from what was seen of its samples, batches, numbers and labels."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.utils.data._utils import collate

from netlens.data.issues import Issue, Item
from netlens.loaders.labels import ENOUGH, Labels, in_blocks
from netlens.loaders.samples import EXAMPLES, Singles, told
from netlens.loaders.source import Source
from netlens.loaders.values import Stats, is_channels_last
from netlens.wording import counted, number, share

# Pictures by their numbers. Normalised with ImageNet's statistics they are in -2.12..2.64; with 0.5 and 0.5 in -1..1.
UNIT = 2.0  # colours above it, and none below 0, were not brought to 0..1
GREY_UNIT = 128.0  # the same for one channel, which may be a spectrogram or a depth
BYTE = 255.5
DIVIDED = 1.01 / 255  # nothing above it: divided by 255 twice
FAR = 100.0  # statistics of 0..1 on pictures of 0..255 give up to 1,130; of pictures of 0..1 at most 2.7
SHRUNK = 0.05  # standard deviation; statistics of 0..255 on pictures of 0..1 give 0.005, around -2
TWICE_LOW, TWICE_SPREAD, TWICE_MOST = (
    -4.0,
    2.5,
    20.0,
)  # normalised twice: from -11, with a deviation of 5.7; computed tomography has hundreds
HALVES_TWICE = (-3.0, 1.0)  # 0.5 and 0.5 twice, exactly
FLOATS = (torch.float32, torch.float16, torch.bfloat16)  # of what layers take
DROPPED = 0.05  # of the samples
EVALUATION = {"val", "valid", "validation", "test", "testing", "eval", "evaluation", "dev", "predict", "infer", "inference", "holdout"}


def sample_issues(source: Source, singles: Singles) -> list[Issue]:
    """Tell what reading samples one by one has shown: those that raise, hang, or cannot be stacked."""
    early = singles.ended_early
    raised = {key: error for key, error in singles.raised.items() if key not in early}
    issues = []
    if raised:
        issues.append(_of_places("sample-raises", [(f"sample {key}", told(error)) for key, error in raised.items()], singles.read))
    if early:
        item = Item((f"sample {early[0]}",), told(singles.raised[early[0]]))
        issues.append(Issue("length-wrong", (item,), singles.read, f"len() is {source.length:,}, and sample {early[0]} is past the end"))
    if singles.stuck is not None:
        issues.append(Issue("loader-stuck", (Item((f"sample {singles.stuck}",), "it did not come"),), singles.read))
    if must_stack(source, singles):
        issues.append(shapes_differ(singles))
    return issues


def must_stack(source: Source, singles: Singles) -> bool:
    """Tell whether shapes that differ are a fault; of a Dataset without a loader, text and boxes are left to a collate function."""
    differing = singles.differing
    parts = [
        part
        for part, forms in differing.items()
        if all(map(_is_shape, forms)) and (source.kind == "DataLoader" or part in singles.pictures)
    ]
    return source.stacks and bool(parts) and not (source.kind != "DataLoader" and singles.mappings)


def shapes_differ(singles: Singles) -> Issue:
    """Tell which samples have another shape than the most."""
    part, forms = max(singles.differing.items(), key=lambda found: (found[0] in singles.pictures, len(found[1])))
    ranked = sorted(forms.items(), key=lambda found: len(found[1]))
    items = [Item(tuple(f"sample {key}" for key in keys[:EXAMPLES]), f"{form}: {counted(len(keys), 'sample')}") for form, keys in ranked]
    form, keys = ranked[-1]
    return Issue(
        "shapes-differ", tuple(items), singles.read, f"part {part}: {len(forms)} shapes; {share(len(keys), singles.read)} are {form}"
    )


def batch_failed(source: Source, error: BaseException, batch: int, singles: Singles, read: int) -> Issue:
    """Tell why a batch could not be had, whose samples do not raise when they are read by themselves."""
    if not _is_of_collate(source, error):
        return Issue("sample-raises", (Item((f"batch {batch}",), told(error)),), read, told(error))
    differing = singles.differing
    if not differing and _is_about_shapes(error):
        return Issue("shapes-differ", (Item((f"batch {batch}",), told(error)),), read, told(error))
    if differing and all(_is_shape(form) for forms in differing.values() for form in forms) and _is_about_shapes(error):
        return shapes_differ(singles)
    odd: dict[Any, str] = {}
    for part, forms in differing.items():
        usual = max(forms, key=lambda form: len(forms[form]))
        for form, keys in forms.items():
            for key in keys if form != usual else ():
                odd.setdefault(key, f"part {part} is {form}, and {usual} elsewhere")
    items = [Item((f"sample {key}",), detail) for key, detail in odd.items()]
    pictures = [form for forms in singles.forms.values() for form in forms if "PIL" in form]
    why = f"; samples hold {pictures[0]}, which no transform makes a tensor" if pictures else ""
    return Issue("collate-fails", tuple(items) or (Item((f"batch {batch}",), told(error)),), read, told(error) + why)


def value_issues(fields: Iterable[Stats], picture: Stats | None, read: int) -> list[Issue]:
    """Tell what the numbers of the batches have shown."""
    bad = [(place, f"part {field.name}: {what}") for field in fields for place, what in field.nonfinite]
    issues = [_of_places("value-nonfinite", bad, read)] if bad else []
    return issues if picture is None else issues + _of_pictures(picture, read)


def _of_pictures(picture: Stats, read: int) -> list[Issue]:
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
        issues.append(_of_places("constant-sample", picture.constant, read))
    channels = _constant_channels(picture)
    return [*issues, _of_places("constant-channel", channels, read)] if channels else issues


def _range(picture: Stats) -> tuple[str, str, str] | None:
    """Return code, what was measured and against what, where numbers are not what networks take."""
    low, high, spread, colour = picture.low, picture.high, picture.spread, not picture.is_grey
    measured = f"{number(low)} to {number(high)}, standard deviation {number(spread)}"
    if picture.dtype == torch.uint8:
        return "value-range", f"uint8, {low:g} to {high:g}", "floats in 0 to 1, or normalised"
    if low >= 0 and (high > UNIT if colour else GREY_UNIT < high <= BYTE):
        return "value-range", measured, "0 to 1, or normalised"
    if low >= 0 and 0 < high <= DIVIDED:
        return "normalised-wrong", f"{measured}: divided by 255 twice", f"a maximum above {DIVIDED:.4f}"
    if not colour:
        return None
    if low >= 0 and high <= 1:
        return "not-normalised", measured, "mean 0, standard deviation 1"
    if low >= HALVES_TWICE[0] and high > FAR:
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
    same = (picture.lows == picture.highs).tolist()
    return (
        [] if all(same) else [(f"channel {place}", f"{float(picture.lows[place]):.4g} everywhere") for place, is_ in enumerate(same) if is_]
    )


def label_issues(labels: Labels, singles: Singles, source: Source, names: Sequence[str] | None, read: int) -> list[Issue]:
    """Tell what the labels have shown."""
    issues = []
    where = Item((f"part {labels.name}",))
    if wrong := labels.wrong_indices:
        known = f"0 to {labels.classes - 1}" if labels.classes else "0 or more"
        issues.append(_of_places("label-range", wrong, labels.seen, threshold=known))
    if kind := labels.wrong_type(names):
        issues.append(Issue("label-type", (where,), labels.seen, f"labels are {kind}", "int64 class indices"))
    if labels.ignored and not labels.kept:
        issues.append(Issue("label-ignored", (where,), labels.seen, "every label is one that the loss ignores"))
    if labels.zero_rows:
        issues.append(_of_places("label-one-hot", labels.zero_rows, labels.seen))
    found = set(labels.counts) | set(singles.labels)
    if len(found) == 1 and len(labels.order) >= ENOUGH and labels.classes != 1 and not wrong:
        issues.append(Issue("one-label", (where,), labels.seen, f"every label is {found.pop()}"))
    order = singles.labels if len(singles.labels) >= len(labels.order) else labels.order
    if source.in_order and is_training(source.name) and in_blocks(order):
        measured = f"{len(set(order)):,} classes, one after the other, in {counted(len(order), 'label')}"
        issues.append(Issue("unshuffled", (where,), labels.seen, measured))
    return issues


def epoch_issues(source: Source, batches: int, sizes: Sequence[int], read: int) -> list[Issue]:
    """Tell what an epoch has shown that came to its end, with every sample."""
    loader = source.loader
    if not batches:
        return [Issue("no-batches", (Item((source.name,)),), source.length or 0, _why_empty(source))]
    issues = []
    size, length = source.batch_size, source.length
    if loader is not None and loader.drop_last and not source.is_stream and length and size and length % size > DROPPED * length:
        lost = f"{counted(length % size, 'sample')} of {length:,} in every epoch"
        issues.append(Issue("dropped-samples", (Item((source.name,), lost),), length, lost, f"{100 * DROPPED:g} %"))
    if source.kind == "DataLoader" and sizes[-1] == 1 and max(sizes) > 1 and is_training(source.name):
        issues.append(
            Issue("last-batch-of-one", (Item((f"batch {batches - 1}",), "1 sample"),), read, f"{max(sizes)} samples in the others")
        )
    if measured := _wrong_length(source, batches, read):
        issues.append(Issue("length-wrong", (Item((source.name,), measured),), read, measured))
    return issues


def _wrong_length(source: Source, batches: int, read: int) -> str:
    if not source.is_stream:
        said = source.in_batches
        return f"len() is {said:,}, and {_batches(batches)} came" if said not in (None, batches) else ""
    said, came = source.length, batches if source.batch_size is None else read
    slack = (source.batch_size or 1) * max(source.workers, 1) - 1 if source.loader.drop_last else 0
    each = source.workers > 1 and came == (said or 0) * source.workers  # every worker gives all of them: another check's
    return "" if said is None or each or 0 <= said - came <= slack else f"len() is {said:,}, and {came:,} came"


def _batches(count: int) -> str:
    return "1 batch" if count == 1 else f"{count:,} batches"


def _why_empty(source: Source) -> str:
    length, size = source.length, source.batch_size
    if length and size and source.loader.drop_last and length < size:
        return f"{counted(length, 'sample')} in batches of {size}, and drop_last leaves incomplete ones out"
    return "it has no samples" if length == 0 else "it ends before the first batch"


def duplicates(keys: Iterable[tuple[str, bytes]], read: int) -> list[Issue]:
    """Tell which pictures are equal; one that the sampler gives again is one picture."""
    groups: dict[bytes, dict[str, None]] = {}
    for place, key in keys:
        groups.setdefault(key, {})[place] = None
    items = [Item(tuple(places)) for places in groups.values() if len(places) > 1]
    copies = sum(len(item.paths) - 1 for item in items)
    return [Issue("duplicate-samples", tuple(items), read, "1 copy" if copies == 1 else f"{copies:,} copies")] if items else []


def is_training(name: str) -> bool:
    """Tell from a loader's name whether it is for training: all are that do not say that they are for validation or tests."""
    return not EVALUATION & set(re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))


def _of_places(code: str, places: Sequence[tuple[str, str]], total: int, threshold: str = "") -> Issue:
    return Issue(code, tuple(Item((place,), detail) for place, detail in places), total, f"{len(places):,} of {total:,}", threshold)


def _is_shape(form: str) -> bool:
    return not form.startswith(("a ", "None", "missing"))


def _is_of_collate(source: Source, error: BaseException) -> bool:
    """Tell whether it was raised while samples were put together, by torch's function or the user's own."""
    own = getattr(getattr(source.loader, "collate_fn", None), "__code__", None)
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(code is own or code.co_filename == collate.__file__ for code in codes)


def _is_about_shapes(error: BaseException) -> bool:
    """Tell torch's own complaints about stacking, and numpy's, from others."""
    return bool(re.search(r"equal size|same shape|resize storage|Sizes of tensors|expand|not resizable|inhomogeneous", str(error)))
