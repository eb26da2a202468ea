"""What a checkpoint's weights are most likely weights of, told from names and shapes alone. Standard library only.

A layout is named only where its tensors have names that no other family uses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netlens.lenses.summary.checkpoint_report import Guess, Head

if TYPE_CHECKING:
    from netlens.loading.checkpoints.archive import Archive, StoredTensor

HEADS = frozenset({"fc", "head", "heads", "classifier", "lm_head", "score", "logits", "last_linear", "class_embed", "head_dist"})
SORTED_KINDS = frozenset({"safetensors", "sharded", "distributed"})  # the order of their tensors is not that of the model
CLASSIFIERS = (
    "fc",
    "classifier",
    "head",
    *(f"{stem}.{number}" for stem in ("classifier", "head") for number in range(1, 8)),
    "high_classifier",
)
DEFAULT_CLASSES = 1000  # of torchvision's classifiers of pictures
MOST_PUBLISHED = 5_000  # tensors; no published model has more
MOST_NAMES = 100_000  # looked through for a layout
MOST_HEADS = 20_000  # tensors, from the last, among which the head is looked for
LONGEST_NAME = 300  # characters of a name that could be one of them


@dataclass(frozen=True, slots=True)
class Layout:
    """How one family names its tensors. All of `marks`, which are ends of names, must be there; "#" is the number of a block."""

    words: str
    marks: tuple[str, ...]  # the first one's numbers count the blocks
    width: tuple[int, int] | None = None  # which of the marks has it, in which dimension; None: blocks and width are not told


LAYOUTS = (
    Layout("Segment Anything", ("image_encoder.blocks.#.attn.qkv.weight", "mask_decoder.iou_token.weight"), (0, 1)),
    Layout("Stable Diffusion with CompVis's names", ("model.diffusion_model.input_blocks.#.0.weight",)),
    Layout(
        "CLIP of transformers", ("text_model.encoder.layers.#.self_attn.q_proj.weight", "vision_model.embeddings.patch_embedding.weight")
    ),
    Layout("CLIP with OpenAI's names", ("transformer.resblocks.#.attn.in_proj_weight", "token_embedding.weight", "text_projection")),
    Layout("BERT family of transformers", ("encoder.layer.#.attention.self.query.weight", "embeddings.word_embeddings.weight"), (0, 1)),
    Layout(
        "vision transformer of transformers",
        ("encoder.layer.#.attention.attention.query.weight", "embeddings.patch_embeddings.projection.weight"),
        (0, 1),
    ),
    Layout(
        "vision transformer of transformers", ("layers.#.attention.q_proj.weight", "embeddings.patch_embeddings.projection.weight"), (0, 1)
    ),
    Layout("DistilBERT of transformers", ("transformer.layer.#.attention.q_lin.weight", "embeddings.word_embeddings.weight"), (0, 1)),
    Layout("GPT-2 family", ("h.#.attn.c_attn.weight", "wte.weight"), (1, 1)),
    Layout("GPT-NeoX of transformers", ("layers.#.attention.query_key_value.weight", "embed_in.weight"), (0, 1)),
    Layout("T5 family of transformers", ("encoder.block.#.layer.0.SelfAttention.q.weight", "shared.weight"), (0, 1)),
    Layout(
        "Llama family of transformers",
        ("layers.#.self_attn.q_proj.weight", "layers.#.mlp.gate_proj.weight", "layers.#.input_layernorm.weight", "embed_tokens.weight"),
        (0, 1),
    ),
    Layout("vision transformer with timm's names", ("blocks.#.attn.qkv.weight", "patch_embed.proj.weight", "cls_token"), (0, 1)),
    Layout("ConvNeXt with timm's names", ("stages.#.blocks.0.conv_dw.weight", "stem.0.weight")),
    Layout("YOLO of Ultralytics", ("model.#.conv.weight", "dfl.conv.weight")),
    Layout("ResNet family", ("layer#.0.conv1.weight", "layer4.0.bn1.running_mean", "fc.weight")),
)
_MARKS = frozenset(mark for known in LAYOUTS for mark in known.marks)
_DEPTHS = sorted({mark.count(".") + 1 for mark in _MARKS})
_ENDS = frozenset(tuple(mark.split(".")[-2:]) for mark in _MARKS)  # a cheap test that most names do not pass


def guess(archive: Archive, shown: Sequence[int]) -> Guess:
    """Say what the tensors of the shown groups belong to; the first group that holds weights speaks for them all."""
    tensors = next((archive.groups[index].tensors for index in shown if archive.groups[index].role != "optimizer"), ())
    if not tensors:
        return Guess()
    last = head(tensors, ordered=archive.kind not in SORTED_KINDS)
    models, how = _published(tensors)
    classes = _classes(tensors, models) if how in ("fits", "names") else None
    how = "names" if how == "fits" and classes is None else how
    arguments = {} if classes in (None, DEFAULT_CLASSES) else {"num_classes": str(classes)}
    return Guess(models, how, arguments, "" if models else layout(tensors), last)


def _published(tensors: Sequence[StoredTensor]) -> tuple[tuple[str, ...], str]:
    """Return torchvision's models that have just these tensors, and how far that is known: see `Guess.how`."""
    from netlens.loading.checkpoints.architectures import WHOLE
    from netlens.loading.checkpoints.identify import HEAD, architectures, whole
    from netlens.loading.checkpoints.prefixes import bare

    if len(tensors) > MOST_PUBLISHED or any(len(tensor.name) > LONGEST_NAME for tensor in tensors):
        return (), ""
    entries = [(bare(tensor.name), tensor.shape) for tensor in tensors]
    models = architectures(entries)
    while models and whole(entries) not in WHOLE:
        if len({name.partition(".")[0] for name, _ in entries}) > 1 or not all("." in name for name, _ in entries):
            return models, "body"
        entries = [(name.partition(".")[2], shape) for name, shape in entries]
    layers = sum(len(shape) > 1 for name, shape in entries if HEAD.search(name))  # of several, the inner sizes are not known to fit
    return models, "" if not models else "fits" if layers <= 1 else "names"


def _classes(tensors: Sequence[StoredTensor], models: Sequence[str]) -> int | None:
    """Return the number of classes where the head is one layer, or, in detectors, says which of its layers has it."""
    weights = {tensor.name.removesuffix(".weight"): tensor.shape for tensor in tensors if tensor.name.endswith(".weight")}
    ends = ("box_predictor.cls_score",) if any("rcnn" in model for model in models) else CLASSIFIERS
    found = [(name, shape[0]) for name, shape in weights.items() if len(shape) > 1 and name.endswith(ends) and "aux" not in name.lower()]
    return found[-1][1] if found else None


def layout(tensors: Sequence[StoredTensor]) -> str:
    """Name the family whose names these are: "GPT-2 of transformers, 12 blocks, width 768"; "" where it is not certain."""
    if adapter := _adapter(tensors):
        return adapter
    shapes: dict[str, tuple[int, ...]] = {}
    numbers: dict[str, set[str]] = {}
    for tensor in tensors[:MOST_NAMES]:
        for end, number in _ends(tensor.name):
            shapes.setdefault(end, tensor.shape)
            numbers.setdefault(end, set()).add(number)
    for known in LAYOUTS:
        if all(mark in shapes for mark in known.marks):
            return known.words + _sizes(known, shapes, len(numbers[known.marks[0]]))
    return ""


def _ends(name: str) -> list[tuple[str, str]]:
    """Return the ends of a name that are marks of a layout, each with the number of its block."""
    last = tuple(name.rsplit(".", 2)[-2:])
    if len(name) > LONGEST_NAME or (last not in _ENDS and last[-1:] not in _ENDS):
        return []
    parts = name.split(".")
    found = []
    for depth in _DEPTHS:
        end = ".".join(parts[-depth:])
        if end in _MARKS:
            found.append((end, ""))
        for number in re.finditer(r"\d+", end):
            mark = f"{end[: number.start()]}#{end[number.end() :]}"
            if mark in _MARKS:
                found.append((mark, number[0]))
    return found


def _adapter(tensors: Sequence[StoredTensor]) -> str:
    low_rank = [tensor for tensor in tensors if ".lora_A." in tensor.name or tensor.name.endswith(".lora_A")]
    if not low_rank or any("lora_" not in tensor.name and "modules_to_save" not in tensor.name for tensor in tensors):
        return ""
    ranks = {tensor.shape[0] for tensor in low_rank if tensor.shape}
    rank = f" of rank {ranks.pop()}" if len(ranks) == 1 else ""
    return f"LoRA adapters{rank}: they change a model whose own weights are not in the file"


def _sizes(known: Layout, shapes: dict[str, tuple[int, ...]], blocks: int) -> str:
    if known.width is None:
        return ""
    mark, dimension = known.width
    shape = shapes[known.marks[mark]]
    width = f", width {shape[dimension]:,}" if len(shape) > dimension else ""
    return f", {blocks:,} {'block' if blocks == 1 else 'blocks'}{width}"


def head(tensors: Sequence[StoredTensor], *, ordered: bool) -> Head | None:
    """Find the layer that gives the scores: the last 2-D weight of a layer whose name says so, else the last of all.

    Args:
        tensors: of the weights.
        ordered: they stand in the order of the model; otherwise only a name tells.
    """
    last: Head | None = None
    for tensor in reversed(tensors[-MOST_HEADS:]):
        if len(tensor.shape) != 2 or not tensor.name.endswith("weight") or not tensor.dtype.startswith(("float", "bfloat")):
            continue
        if any(part in HEADS for part in tensor.name.rsplit(".", 3)[-3:-1]):
            return Head(tensor.name, tensor.shape, tensor.shape[0], certain=True)
        if last is None and ordered:
            last = Head(tensor.name, tensor.shape, tensor.shape[0], certain=False)
    return last
