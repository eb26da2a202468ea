"""Reading what a model returns: which part of it is the answer, and of which kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from netlens.errors import UsageError
from netlens.lenses.gradcam.answers import Answer, Embedding, Size, Target
from netlens.lenses.gradcam.class_answers import ClassMap, ClassScores, OfClasses
from netlens.lenses.gradcam.detections import LOWER, Detections, NothingDetected, detects, lowering
from netlens.loading.suggest import closest
from netlens.loading.words import listed, one_line
from netlens.probing.leaves import Leaf, leaves
from netlens.wording import counted

__all__ = ["Answer", "NothingDetected", "Target", "embeddings", "lowering", "read"]

SCORES = ("logits_per_image", "logits", "out", "scores")  # names of outputs that say what they are, the first one first
UNNAMED = (
    "--against takes what the model returns, {:,} numbers for each picture, as its embedding: if they are scores of classes, give it "
    "the model without its head"
)
VECTORS = ("image_embeds", "pooler_output", "embedding", "embeddings")


def read(
    output: Any,
    *,
    samples: int | None = None,
    size: Size | None = None,
    key: str | None = None,
    reference: Tensor | None = None,
    labels: int | None = None,
    independent: bool = False,
    against: str = "the reference",
    lower: str = LOWER,
) -> Answer:
    """Read what a model returned for one batch.

    Args:
        output: a tensor; a tuple, list, dict or dataclass with tensors; detections. In a graph where `scores` shall be differentiated.
        samples: in the batch, where it is known.
        size: (height, width) of the input; tells (N, H, W) from a sequence, and scales points.
        key: `--output`, the name of the part that is meant: "logits", "1", "aux.0".
        reference: (1, D), from `embeddings`: explain the likeness to it.
        labels: the number of classes, where the model's configuration says it; of use for transformers that detect.
        independent: several classes may be true at once: each has its own probability.
        against: what the picture of the reference is called.
        lower: how to have a detector find more, from `lowering`.

    Raises:
        UsageError: it is not clear what is meant, or nothing in it can be explained.
    """
    if key is None and reference is None and detects(output):
        answer: Answer = Detections(output, labels=labels, size=size, lower=lower)
    elif reference is not None:
        leaf, tensor = _chosen(output, key, samples, VECTORS)
        answer = Embedding(leaf, _vectors(leaf, tensor), reference, against)
        if leaf.rpartition(".")[2] not in VECTORS:
            answer.notes = (UNNAMED.format(answer.numbers),)
    else:
        answer = _of_classes(*_chosen(output, key, samples, SCORES), samples, size, independent, named=key is not None)
    if samples is not None and answer.samples != samples:
        message = f"the model's answer has {counted(answer.samples, 'row')} for {counted(samples, 'sample')}"
        raise UsageError(message, hint="its first dimension must be the samples: choose another with --output KEY, or wrap the model")
    return answer


def _of_classes(leaf: str, tensor: Tensor, samples: int | None, size: Size | None, independent: bool, *, named: bool) -> OfClasses:
    if not named and leaf.rpartition(".")[2] in VECTORS:
        hint = "explain its likeness to another picture, --against PICTURE, or take the model with its head"
        raise UsageError(f"the model's output {leaf!r} is an embedding, and scores no classes", hint=hint)
    if tensor.dim() < 2:
        channels = tensor.numel() if samples == 1 else 1  # of one sample without its dimension
        return ClassScores(leaf, tensor, channels, independent=independent)
    if tensor.dim() == 2 or _is_flat(tensor):
        return ClassScores(leaf, tensor, tensor.shape[1], independent=independent)
    if tensor.dim() == 3 and (size is None or tuple(tensor.shape[1:]) != tuple(size)):
        raise _unreadable(leaf, tensor, "which is a row of numbers for each part of a sequence, not for a picture")
    return ClassMap(leaf, tensor, 1 if tensor.dim() == 3 else tensor.shape[1], independent=independent, size=size)


def embeddings(output: Any, *, samples: int | None = None, key: str | None = None) -> Tensor:
    """Return the vectors, (N, D), that a model returned: the reference of an `Embedding` is one of them.

    Raises:
        UsageError: it is not clear what is meant, or it is no vector.
    """
    return _vectors(*_chosen(output, key, samples, VECTORS)).flatten(1)


def _vectors(leaf: str, tensor: Tensor) -> Tensor:
    if tensor.dim() != 2 and not (tensor.dim() > 2 and _is_flat(tensor)):
        raise _unreadable(leaf, tensor, "which is not one vector for each picture")
    return tensor


def _is_flat(tensor: Tensor) -> bool:
    return all(side == 1 for side in tensor.shape[2:])


def _chosen(output: Any, key: str | None, samples: int | None, preferred: Sequence[str]) -> Leaf:
    """Return the part that is asked for, the only one, the one whose name says it, or the first of several that are alike."""
    every = leaves(output)
    if key is not None:
        return _named(every, key)
    floating = [(name, tensor) for name, tensor in every if tensor.is_floating_point() and tensor.numel()]
    found = [leaf for leaf in floating if samples is None or leaf[1].shape[:1] == (samples,)] or floating
    if not found:
        what = _described(every) if every else f"an object of type {type(output).__name__}"
        raise UsageError(f"the model returns no floating numbers, but {what}", hint="explain a model that returns scores, before argmax")
    for name in preferred:
        if by_name := [leaf for leaf in found if leaf[0].rpartition(".")[2] == name]:
            return by_name[0]
    for ranks in ((1, 2), (4, 5), (0, 3)):
        alike = [leaf for leaf in found if leaf[1].dim() in ranks]
        if len({leaf[1].shape for leaf in alike}) == 1:
            return alike[0]
        if alike:
            break
    hint = f"choose one: --output {one_line(alike[0][0])}"
    raise UsageError(f"the model returns {len(found)} tensors, and any may hold its answer: {_described(found)}", hint=hint)


def _named(every: Sequence[Leaf], key: str) -> Leaf:
    """Return the part of a name, or of one that ends in it."""
    found = [leaf for leaf in every if leaf[0] == key] or [leaf for leaf in every if leaf[0].endswith(f".{key}")]
    if not found:
        near = closest(key, [name for name, _ in every])
        hint = f"did you mean --output {one_line(near)}?" if near else "leave --output out" if len(every) < 2 else "choose one of these"
        raise UsageError(f"there is no output {one_line(key)!r}: the model returns {_described(every)}", hint=hint)
    if not found[0][1].is_floating_point():
        raise UsageError(
            f"the output {one_line(key)!r} holds {found[0][1].dtype}, which has no gradient", hint="choose one of floating numbers"
        )
    return found[0]


def _described(found: Sequence[Leaf]) -> str:
    """Write "logits (1, 10), aux (1, 10)"."""
    return listed((f"{name or str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}" for name, tensor in found))


def _unreadable(leaf: str, tensor: Tensor, why: str) -> UsageError:
    what = f"{f'its output {one_line(leaf)!r}' if leaf else 'it'} has the shape {tuple(tensor.shape)}, {why}"
    return UsageError(
        f"what the model says cannot be read: {what}",
        hint="choose another with --output KEY, or wrap the model in one that returns scores, (N, classes)",
    )
