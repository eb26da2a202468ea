"""What is wrong with a loader, told from what was seen of its samples, batches, numbers and labels."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Sequence
from typing import Any

from torch.utils.data._utils import fetch

from netlens.data.issues import Issue, Item
from netlens.loaders.labels import ENOUGH, Labels, in_blocks
from netlens.loaders.pictures import of_places, picture_issues
from netlens.loaders.samples import EXAMPLES, Singles, told
from netlens.loaders.source import Source
from netlens.loaders.values import Stats
from netlens.wording import counted, share

DROPPED = 0.05  # of the samples
EVALUATION = {"val", "valid", "validation", "test", "testing", "eval", "evaluation", "dev", "predict", "infer", "inference", "holdout"}


def sample_issues(source: Source, singles: Singles) -> list[Issue]:
    """Tell what reading samples one by one has shown: those that raise, hang, or cannot be stacked."""
    early = singles.past_the_end
    issues = []
    if singles.raised:  # also past the end: an epoch ends there as at any other
        issues.append(of_places("sample-raises", [(f"sample {key}", told(error)) for key, error in singles.raised.items()], singles.read))
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
    return source.stacks and bool(parts) and not (source.kind != "DataLoader" and singles.targets)


def shapes_differ(singles: Singles) -> Issue:
    """Tell which samples have another shape than the most."""
    part, forms = max(singles.differing.items(), key=lambda found: (found[0] in singles.pictures, len(found[1])))
    ranked = sorted(forms.items(), key=lambda found: len(found[1]))
    items = [Item(tuple(f"sample {key}" for key in keys[:EXAMPLES]), f"{form}: {counted(len(keys), 'sample')}") for form, keys in ranked]
    form, keys = ranked[-1]
    return Issue(
        "shapes-differ", tuple(items), singles.read, f"part {part}: {len(forms)} shapes; {share(len(keys), singles.read)} are {form}"
    )


def batch_failed(error: BaseException, batch: int, singles: Singles, read: int) -> Issue:
    """Tell why a batch could not be had, whose samples do not raise when they are read by themselves."""
    if not _is_of_collate(error):
        return Issue("sample-raises", (Item((f"batch {batch}",), told(error)),), max(read, singles.read), told(error))
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
                odd.setdefault(key, f"part {part} is {form}" + ("" if form in ("missing", "None") else f", and {usual} elsewhere"))
    items = [Item((f"sample {key}",), detail) for key, detail in odd.items()]
    if not items and "default_collate" in str(error):
        items = [Item((f"part {part}",), why) for part, forms in singles.forms.items() for form in forms if (why := _no_tensor(form))]
    return Issue("collate-fails", tuple(items) or (Item((f"batch {batch}",)),), max(read, singles.read), told(error))


def _no_tensor(form: str) -> str:
    """Say why torch cannot stack values, and what would help; "" where it can."""
    if form == "None":
        return "None: leave it out, or stack the rest in a collate_fn"
    return f"{form}, which no transform makes a tensor: give one, ToTensor() for example" if "PIL" in form else ""


def value_issues(fields: Iterable[Stats], picture: Stats | None, read: int) -> list[Issue]:
    """Tell what the numbers of the batches have shown."""
    bad = [
        (place, f"part {field.name}: {what}")
        for field in fields
        if field.channel_axis or not field.is_mask
        for place, what in field.nonfinite
    ]
    issues = [of_places("value-nonfinite", bad, read)] if bad else []
    return issues if picture is None else issues + picture_issues(picture, read)


def label_issues(labels: Labels, singles: Singles, source: Source, names: Sequence[str] | None) -> list[Issue]:
    """Tell what the labels have shown."""
    issues = []
    where = Item((f"part {labels.name}",))
    if wrong := labels.wrong_indices:
        known = f"0 to {labels.classes - 1}" if labels.classes else "0 or more"
        issues.append(of_places("label-range", wrong, labels.seen, threshold=known))
    if kind := labels.wrong_type(names):
        issues.append(Issue("label-type", (where,), labels.seen, f"labels are {kind}", "int64 class indices"))
    if labels.ignored and not labels.kept:
        issues.append(Issue("label-ignored", (where,), labels.seen, "every label is one that the loss ignores"))
    if labels.zero_rows:
        issues.append(of_places("label-one-hot", labels.zero_rows, labels.seen))
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


def _is_shape(form: str) -> bool:
    return not form.startswith(("a ", "None", "missing"))


def _is_of_collate(error: BaseException) -> bool:
    """Tell whether it was raised where DataLoader puts samples together, by torch's function or the user's own."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(frame.filename == fetch.__file__ and "collate_fn" in (frame.line or "") for frame in frames)


def _is_about_shapes(error: BaseException) -> bool:
    """Tell torch's own complaints about stacking, and numpy's, from others."""
    return bool(re.search(r"equal size|same shape|resize storage|Sizes of tensors|expand|not resizable|inhomogeneous", str(error)))
