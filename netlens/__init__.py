"""netlens: what is inside a PyTorch model, and what is wrong with it, in one line.

Every lens is a function here; it is imported when it is first called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from netlens.lenses.check_data.report import CheckDataReport
    from netlens.lenses.featuremaps.report import FeaturemapsReport
    from netlens.lenses.gradcam.api import Gradcam
    from netlens.lenses.gradflow.report import GradflowReport
    from netlens.lenses.kernels.report import KernelsReport
    from netlens.lenses.summary.report import SummaryReport

__version__ = "0.1.0"
__all__ = ["__version__", "check_data", "featuremaps", "gradcam", "gradflow", "kernels", "summary"]


def summary(
    model: nn.Module,
    x: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    input_size: Any = None,
    device: str = "auto",
    time: bool = False,
) -> SummaryReport:
    """Shapes, parameters, multiply-adds and memory of `model`; print the report to see the table.

    The model leaves as it came. As a rule it is not run at all: a copy without data runs on the meta device. A forward that raises is
    described in `report.failure`.

    Args:
        model: any module, on any device.
        x: a tensor, a tuple of positional arguments, or a dict of named ones.
        kwargs: named arguments beside `x`.
        input_size: instead of `x`: (1, 3, 224, 224), a list of such, or a dict by argument name. With neither, the first layer tells.
        device: "auto" (meta, then the model's own device), "meta" or "cpu" (only there).
        time: also measure the seconds of each layer, on the model's device.

    Raises:
        netlens.errors.InputError: the input does not describe what the model takes.
    """
    from netlens.lenses.summary.measure import measure
    from netlens.loading.subject import from_instance

    report, _ = measure(from_instance(model, x, kwargs, input_size), device=device, time=time)
    return report


def kernels(
    model: nn.Module, *, layer: str | Sequence[str] | None = None, against: nn.Module | Mapping[str, Tensor] | None = None
) -> KernelsReport:
    """Statistics of every weight of `model`: scale, dead and duplicate filters, rank, smoothness. Draws nothing; the model is only read.

    Args:
        model: any module, on any device.
        layer: only these: names, ends of names, globs, types ("Conv2d"), indices or ranges of them ("0:3").
        against: another state of the same model, or its state dict: how far every weight has moved from there.

    Raises:
        netlens.errors.LayerNotFound: a pattern of `layer` names nothing.
    """
    from netlens.lenses.kernels.measure import kernels as measured

    return measured(model, layer=layer, against=against)


def featuremaps(
    model: nn.Module,
    x: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    input_size: Any = None,
    layer: str | Sequence[str] | None = None,
    attention: bool = False,
) -> FeaturemapsReport:
    """Statistics of what every layer of `model` puts out. Draws nothing; runs in eval mode on its own device, and leaves it as it came.

    Args:
        model: any module, on any device.
        x: a tensor, a tuple of positional arguments, or a dict of named ones; its samples are run in one pass.
        kwargs: named arguments beside `x`.
        input_size: instead of `x`, random numbers of this shape: (8, 3, 224, 224), a list of such, or a dict by argument name. With
            neither, the first layer tells.
        layer: only these: names, globs, types ("Conv2d"), names of functions ("block:relu"), indices or ranges of them ("0:3").
        attention: also how every attention layer spreads what it looks at.

    Raises:
        netlens.errors.InputError: the input does not describe what the model takes.
        netlens.errors.ForwardFailed: the model's own forward raises.
        netlens.errors.LayerNotFound: a pattern of `layer` names nothing.
    """
    from netlens.lenses.featuremaps.api import featuremaps as measured

    return measured(model, x, kwargs=kwargs, input_size=input_size, layer=layer, attention=attention)


def gradcam(
    model: nn.Module,
    x: Any,
    *,
    kwargs: Mapping[str, Any] | None = None,
    target: int | str | Sequence[int | str] | None = None,
    method: str | Sequence[str] = "gradcam",
    layer: int | str | Sequence[int | str] | None = None,
    names: Sequence[str] | None = None,
    output: str | None = None,
    point: tuple[float, float] | None = None,
    against: Tensor | None = None,
) -> Gradcam:
    """Where `model` looks in each sample of `x`. Draws nothing; runs in eval mode on its own device, and leaves it as it came.

    Works for frozen models, inside `no_grad` and `inference_mode`, for tokens and for channels last.

    Args:
        model: any module that scores classes, places, boxes.
        x: a tensor, (N, C, H, W), or a tuple of positional arguments.
        kwargs: named arguments beside `x`.
        target: a class by its index or name, "top3" for the three most probable, or several of these; None: the top prediction.
        method: one or several of "cam", "gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "finercam", "eigencam", "scorecam",
            "ablationcam", "fullgrad", "legrad"; "all": those that the model allows.
        layer: a name, the end of one, a glob or an index; several are fused. None: found by test.
        names: of the classes, in the order of the model's outputs.
        output: which of several outputs is explained: "logits".
        point: of a segmentation, column and row in `x`: this pixel alone.
        against: one sample, (1, C, H, W): what makes the others like it, for a model that puts out embeddings.

    Returns:
        `report`, and `maps`, one for each of `report.maps`: (h, w) on the layer's grid, neither resized nor scaled.

    Raises:
        netlens.errors.UsageError: there is no such class or method, or the output cannot be read.
        netlens.errors.LayerNotFound: there is no such layer.
    """
    from netlens.lenses.gradcam.api import gradcam as made

    return made(
        model, x, kwargs=kwargs, target=target, method=method, layer=layer, names=names, output=output, point=point, against=against
    )


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
    """How gradients flow through `model` for one batch, and what a step would do. Draws nothing; all steps are taken on a copy.

    Args:
        model: any module, in the mode in which it is to be looked at.
        x: a tensor, or a tuple of positional arguments.
        labels: what the loss compares the output with; None: the model computes its loss itself, or labels are drawn at random.
        kwargs: named arguments beside `x`.
        loss: by name, "cross_entropy", or a function of (output, labels); None: the model's own, or inferred.
        optimizer: any of torch.optim by name, with options: "adamw:weight_decay=0.1".
        lr: the learning rate; None: the optimizer's own, 0.1 of SGD.
        steps: all of them on this batch.
        overfit: also train a copy on this batch: does the loss fall?

    Raises:
        netlens.errors.InputError: no loss fits output and labels.
        netlens.errors.ForwardFailed: the model's own forward raises.
    """
    from netlens.lenses.gradflow.api import gradflow as measured

    return measured(model, x, labels, kwargs=kwargs, loss=loss, optimizer=optimizer, lr=lr, steps=steps, overfit=overfit)


def check_data(
    data: Any,
    val: Any = None,
    *,
    test: Any = None,
    classes: int | Sequence[str] | None = None,
    images: str | PathLike[str] | None = None,
    samples: int | None = None,
    target_rate: float | None = None,
    workers: int | None = 1,
) -> CheckDataReport:
    """What is wrong with `data`: files, copies and leaks, labels, and what a loader really delivers. Draws nothing, changes nothing.

    Args:
        data: a folder of pictures, a table of labels (.csv), or a Dataset or DataLoader.
        val: the validation set, of the same kind: compared with `data`, for leaks too.
        test: the test set, compared with both.
        classes: how many the model has, or their names.
        images: the folder of a table's pictures.
        samples: of loaders, at most so many are read.
        target_rate: of loaders, the samples per second that training shall get.
        workers: processes that read files; None: as many as there are CPUs.

    Raises:
        netlens.errors.NetlensError: there is no such folder, table or column, or no picture.
    """
    from netlens.lenses.check_data.api import check_data as checked

    return checked(data, val, test=test, classes=classes, images=images, samples=samples, target_rate=target_rate, workers=workers)
