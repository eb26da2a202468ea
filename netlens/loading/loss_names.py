"""The losses of torch by their names, and what each wants as labels: read without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from netlens.errors import UsageError
from netlens.loading.calls import Call, names_code, own_code, parse_call
from netlens.loading.suggest import did_you_mean
from netlens.loading.words import one_line

EXAMPLE = "write it like --loss cross_entropy, --loss mse, or --loss package.module:function for your own"


class Labels(str, Enum):
    """What a loss wants to be told."""

    CLASSES = "class indices, one for each row of scores"
    VALUES = "numbers, as many as the output has"
    SHARES = "numbers from 0 to 1, as many as the output has"
    SIGNS = "-1 or 1, as many as the output has"
    CLASS_SETS = "rows of class indices that end with -1"
    SEQUENCES = "rows of class indices, shorter than the output's steps"
    PAIR_SIGNS = "-1 or 1 for each pair of the model's two outputs"
    NOTHING = "no labels"


@dataclass(frozen=True, slots=True)
class KnownLoss:
    """One loss of torch."""

    name: str  # "cross_entropy"
    function: str  # in torch.nn.functional
    labels: Labels
    outputs: int = 1  # tensors that it takes from the model
    others: tuple[str, ...] = ()  # names beside those of torch.nn.functional and torch.nn


LOSSES = (
    KnownLoss("cross_entropy", "cross_entropy", Labels.CLASSES, others=("ce", "xent", "softmaxcrossentropy")),
    KnownLoss("nll", "nll_loss", Labels.CLASSES, others=("nllloss2d", "negativeloglikelihood")),
    KnownLoss("bce_with_logits", "binary_cross_entropy_with_logits", Labels.SHARES, others=("bcelogits", "sigmoidcrossentropy")),
    KnownLoss("bce", "binary_cross_entropy", Labels.SHARES),
    KnownLoss("mse", "mse_loss", Labels.VALUES, others=("l2", "meansquarederror")),
    KnownLoss("l1", "l1_loss", Labels.VALUES, others=("mae", "meanabsoluteerror")),
    KnownLoss("smooth_l1", "smooth_l1_loss", Labels.VALUES),
    KnownLoss("huber", "huber_loss", Labels.VALUES),
    KnownLoss("kl_div", "kl_div", Labels.VALUES, others=("kl", "kldivergence")),
    KnownLoss("poisson_nll", "poisson_nll_loss", Labels.VALUES),
    KnownLoss("gaussian_nll", "gaussian_nll_loss", Labels.VALUES, outputs=2),
    KnownLoss("soft_margin", "soft_margin_loss", Labels.SIGNS),
    KnownLoss("hinge_embedding", "hinge_embedding_loss", Labels.SIGNS),
    KnownLoss("multi_margin", "multi_margin_loss", Labels.CLASSES),
    KnownLoss("multilabel_soft_margin", "multilabel_soft_margin_loss", Labels.SHARES),
    KnownLoss("multilabel_margin", "multilabel_margin_loss", Labels.CLASS_SETS),
    KnownLoss("ctc", "ctc_loss", Labels.SEQUENCES),
    KnownLoss("cosine_embedding", "cosine_embedding_loss", Labels.PAIR_SIGNS, outputs=2),
    KnownLoss("margin_ranking", "margin_ranking_loss", Labels.PAIR_SIGNS, outputs=2),
    KnownLoss("triplet_margin", "triplet_margin_loss", Labels.NOTHING, outputs=3),
    KnownLoss("triplet_margin_with_distance", "triplet_margin_with_distance_loss", Labels.NOTHING, outputs=3),
)
# These hold weights of their own, which an optimizer must know: they belong into the model.
WITH_WEIGHTS = ("adaptivelogsoftmaxwith", "linearcrossentropy")


def known_loss(name: str) -> KnownLoss | None:
    """Return the loss that a name of torch means: "cross_entropy", "CrossEntropyLoss", "nn.CrossEntropyLoss", "F.mse_loss"."""
    wanted = _plain(name)
    for loss in LOSSES:
        if wanted in {_plain(loss.name), _plain(loss.function), *loss.others}:
            return loss
    return None


def parse_loss(text: str) -> tuple[KnownLoss | None, Call]:
    """Read `--loss` before torch is imported: "mse", "cross_entropy:ignore_index=255", "pkg.mod:fn", "file.py:fn:gamma=2".

    Returns:
        the loss of torch, or None for the user's own; and how it is called.

    Raises:
        NetlensError: there is no such loss.
    """
    call = parse_call("--loss", text)
    known = known_loss(call.name)
    if known is not None:
        return known, Call(known.name, call.options)
    if _plain(call.name) in WITH_WEIGHTS:
        what = f"{one_line(call.name)} has weights of its own"
        raise UsageError(what, hint="make it part of the model, and let the model return its loss: no --loss is needed then")
    if names_code(call.name):
        return None, own_code("--loss", call)
    names = [loss.name for loss in LOSSES]
    raise UsageError(f"there is no loss {one_line(call.name)!r}", hint=did_you_mean(call.name, names, EXAMPLE))


def _plain(name: str) -> str:
    bare = re.sub(r"^(torch\.)?(nn\.)?((functional|F)\.)?", "", name.strip().replace(":", "."))
    return re.sub(r"[-_ ]", "", bare.lower()).removesuffix("loss")
