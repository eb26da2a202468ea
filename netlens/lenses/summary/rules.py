"""What is wrong with a model, seen from its summary alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from netlens.findings import Finding, Severity
from netlens.lenses.summary.report import Layer, Operator, SummaryReport, subtree_sums
from netlens.lenses.summary.wording import counted, listed

# Modules that use the weights of their children without calling them, or call them where nobody sees it: not being called means nothing
# below these.
USES_CHILDREN = frozenset(
    {"MultiheadAttention", "TransformerEncoderLayer", "RecursiveScriptModule", "TopLevelTracedModule", "TracedModule"}
)
# Modules that are never called, whoever uses them.
NEVER_CALLED = frozenset({"ParameterList", "ParameterDict", "ParametrizationList", "NonDynamicallyQuantizableLinear"})

# Modules of torch.nn that hold neither parameters nor buffers.
STATELESS = frozenset(
    {
        *("CELU", "ELU", "GELU", "GLU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "LogSigmoid", "LogSoftmax"),
        *("Mish", "RReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softmax", "Softmax2d", "Softmin", "Softplus", "Softshrink"),
        *("Softsign", "Tanh", "Tanhshrink", "Threshold", "ChannelShuffle", "CosineSimilarity", "Flatten", "Fold", "Identity"),
        *("PairwiseDistance", "PixelShuffle", "PixelUnshuffle", "Unflatten", "Unfold", "Upsample", "UpsamplingBilinear2d"),
        *("UpsamplingNearest2d", "Sequential", "ModuleList", "ModuleDict", "BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss"),
        *("HuberLoss", "KLDivLoss", "L1Loss", "MSELoss", "NLLLoss", "SmoothL1Loss"),
    }
)
STATELESS_ENDINGS = (
    *(f"{kind}{rank}d" for kind in ("Pool", "Unpool", "Pad", "Dropout") for rank in (1, 2, 3)),
    "Dropout",
)


def diagnose(report: SummaryReport) -> tuple[Finding, ...]:
    """Return what a reader of the summary should not overlook; a healthy model gives no warning."""
    return (*_unused(report), *_unregistered(report), *_uncounted(report), *_not_run(report))


def _unused(report: SummaryReport) -> Iterator[Finding]:
    """Name the topmost layers of which nothing ran; nothing is said where the forward pass did not reach its end."""
    if report.run.on == "nothing" or report.failure:
        return
    suspicious = subtree_sums(report.layers, _callable_parameters(report.layers))
    # What training kept for backward counts as well: an auxiliary head runs in training only.
    ran = subtree_sums(report.layers, lambda layer: layer.times + layer.saved_bytes + (layer.alias_of is not None))
    tops = _topmost([layer for layer in report.layers if layer.path and suspicious[layer.path] and not ran[layer.path]])
    if tops:
        parameters = subtree_sums(report.layers, lambda layer: layer.parameters)
        yield Finding(
            "unused-module",
            Severity.INFO,
            tops[0].path,
            f"{counted(len(tops), 'module')} with parameters never ran: {listed([_name(layer) for layer in tops])}",
            measured=f"{sum(parameters[layer.path] for layer in tops):,} parameters",
            remedy="remove what is not needed: parameters that get no gradient are saved, moved, and stop DistributedDataParallel",
        )


def _callable_parameters(layers: Sequence[Layer]) -> Callable[[Layer], int]:
    """Own parameters of a layer, or 0 where nobody would call it anyway.

    A parent may multiply with the weight of a child that it does not call (Swin's attention does). It then ran at least as many
    multiply-adds of its own as the child has weights; that is taken as use, and as a rule is.
    """
    using = {layer.path for layer in layers if layer.times and (layer.type in USES_CHILDREN or layer.type.startswith("Parametrized"))}

    macs = {layer.path: layer.macs for layer in layers}

    def own(layer: Layer) -> int:
        multiplied = bool(layer.path) and macs.get(layer.path.rpartition(".")[0], 0) >= layer.parameters
        excused = multiplied or layer.type in NEVER_CALLED or any(above in using for above in _above(layer.path))
        return 0 if excused else layer.parameters

    return own


def _unregistered(report: SummaryReport) -> Iterator[Finding]:
    """Hidden modules that may hold weights; an activation made inside `forward` harms nobody."""
    suspicious = subtree_sums(report.layers, lambda layer: int(_may_hold_weights(layer)))
    hidden = [layer for layer in _topmost([layer for layer in report.layers if not layer.registered]) if suspicious[layer.path]]
    if hidden:
        yield Finding(
            "unregistered-module",
            Severity.WARNING,
            hidden[0].path,
            f"{counted(len(hidden), 'module')} ran without being registered: {listed([_name(layer) for layer in hidden])}",
            remedy="keep modules in an nn.ModuleList or nn.ModuleDict: in a plain list they are neither trained, saved nor moved",
        )


def _may_hold_weights(layer: Layer) -> bool:
    """The weights of a hidden module are in no total, so its type must tell."""
    stateless = layer.type in STATELESS or layer.type.endswith(STATELESS_ENDINGS)
    return bool(layer.parameters or layer.buffers) or not stateless


def _uncounted(report: SummaryReport) -> Iterator[Finding]:
    multiplying = [operator for operator in report.uncounted if operator.multiplies]
    others = [operator for operator in report.uncounted if not operator.multiplies]
    if multiplying:
        message = "MACs are a lower bound: no formula counts "
        yield _operators(Severity.WARNING, message, multiplying, "add their multiply-adds by hand where the total matters")
    if others:
        yield _operators(Severity.INFO, "not counted as MACs: ", others, "")


def _operators(severity: Severity, message: str, operators: Sequence[Operator], remedy: str) -> Finding:
    names = listed([f"{operator.name} x{operator.times:,}" for operator in operators])
    where = operators[0].layers[0] if operators[0].layers else ""
    times = sum(operator.times for operator in operators)
    return Finding("uncounted-operators", severity, where, message + names, measured=f"{times:,} calls", remedy=remedy)


def _not_run(report: SummaryReport) -> Iterator[Finding]:
    if report.run.on == "nothing":
        why = f": {report.run.why}" if report.run.why else ""
        yield Finding(
            "not-run",
            Severity.WARNING,
            "",
            f"the model was not run, so only its parameters are known{why}",
            remedy="give the input that it takes, for example --input 1,3,224,224",
        )


def _topmost(layers: Sequence[Layer]) -> list[Layer]:
    paths = {layer.path for layer in layers}
    return [layer for layer in layers if not any(above in paths for above in _above(layer.path))]


def _above(path: str) -> Iterator[str]:
    """The paths of all layers above: "a" and "" for "a.b"."""
    while path:
        path = path.rpartition(".")[0]
        yield path


def _name(layer: Layer) -> str:
    return layer.path if layer.type in layer.path else f"{layer.path} {layer.type}"  # "<Linear>" is a hidden one
