"""`netlens.gradflow`: gradients of a module and a batch that somebody holds in his hands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from netlens.lenses.gradflow.backward import Batch as Arguments
from netlens.lenses.gradflow.report import GradflowReport
from netlens.lenses.gradflow.session import Known, Session, Settings
from netlens.loading.feeding import Batch
from netlens.loading.labelled import Batches
from netlens.loading.optimizers import parse_optimizer
from netlens.probing.leaves import map_tensors
from netlens.probing.replacing import inner
from netlens.probing.untouched import untouched


def gradflow(
    model: nn.Module,
    x: Any,
    labels: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    loss: str | Callable[[Any, Any], Tensor] | None = None,
    optimizer: str = "sgd",
    lr: float | None = None,
    steps: int = 1,
    overfit: bool = False,
) -> GradflowReport:
    """Look at the gradients of one batch, in the mode and on the device that the model is in; the model leaves as it came.

    Args as for `netlens.gradflow`.
    """
    call = parse_optimizer(optimizer, lr)
    args = tuple(x) if isinstance(x, (tuple, list)) else (x,)
    batch = Batch(args, dict(kwargs or {}), labels=labels)
    data = Batches("tensors", lambda _number: batch, None if labels is None else "given")
    settings = Settings(loss, call.name, call.options, steps=steps, noise=0, overfit=overfit)
    device = next((str(tensor.device) for tensor in (*model.parameters(), *model.buffers())), "cpu")
    with untouched(model), torch.inference_mode(False):
        session = Session(inner(model), settings, Known("the values of the model", None, device), _arguments, lambda: data)
        return session.report(data)


def _arguments(batch: Batch) -> Arguments:
    args, kwargs, labels = map_tensors(
        (batch.args, batch.kwargs, batch.labels), lambda tensor: tensor.clone() if tensor.is_inference() else tensor
    )
    return args, kwargs, labels  # those made in inference mode cannot be part of a graph
