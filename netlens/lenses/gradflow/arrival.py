"""Rules on where gradients arrive: nowhere, not at some parameters, as exact zeros, or at what no optimizer has. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from netlens.findings import Finding, Severity
from netlens.lenses.gradflow.diagnosis import LATE, UNDERFLOW, Flow, Ill
from netlens.lenses.gradflow.rates import RATE
from netlens.lenses.gradflow.sizes import VANISHING
from netlens.wording import counted, share, short

MOST = 0.5  # share of trainable elements without a gradient: error
LEAST = {"float16": 1e-6}  # RMS of gradients next to which others are rounded to 0; ours
LEAST_OTHERWISE = 1e-30  # float32 and bfloat16 reach down to 1e-38, and norms add up squares
DEAD = 0.25  # share of weights with a gradient of exact zeros: error
CUTS = "look for detach(), .data, .item(), argmax, numpy or torch.no_grad() there"


def no_grad(flow: Flow) -> Iterator[Ill]:
    """Tell that no parameter gets a gradient, and what that may come from."""
    if flow.arrives or not (flow.parameters or flow.report.layers):
        return
    where, message, remedy = _nowhere(flow)
    says = f"no parameter gets a gradient: {message}" if flow.parameters else message
    finding = Finding("no-grad", Severity.ERROR, where, says, f"0 of {counted(len(flow.parameters), 'parameter')}", "", remedy)
    yield Ill(finding, says, "no gradient", flow.having("detached"), layer=where)


def _nowhere(flow: Flow) -> tuple[str, str, str]:
    """Return where the path is cut, what is wrong there, and the remedy."""
    trainable = [each for each in flow.parameters if each.status != "frozen"]
    layers = flow.report.layers
    tracked = [place for place, layer in enumerate(layers) if layer.status == "detached"]
    if flow.parameters and not trainable:
        return "", "all are frozen", "set requires_grad_(True) on what is to be trained"
    if trainable and all(each.status == "unused" for each in trainable):
        return "", "the forward pass uses none of those that are not frozen", "look whether forward calls the layers that it builds"
    if layers and not tracked:
        return "", "the forward pass runs without a graph", "look for torch.no_grad() or inference_mode() around it, or in it"
    if tracked and tracked[-1] + 1 < len(layers):
        lost = layers[tracked[-1] + 1].name
        return lost, f"the graph ends before `{short(lost)}`", CUTS
    return "", "the loss is not connected to the output of the model", f"{CUTS}, in the loss and after the last layer"


def unreached(flow: Flow) -> Iterator[Ill]:
    """Tell of parameters that never ran, and of those that ran while no path leads from the loss to them."""
    yield from _unused(flow)
    detached = flow.having("detached")
    spare = detached if _is_guess(flow, detached) else [place for place in detached if _is_auxiliary(flow.parameters[place].layer)]
    for severity, places in ((_grave(flow, detached), [place for place in detached if place not in spare]), (Severity.INFO, spare)):
        if places:
            yield _detached(flow, places, severity)


def _unused(flow: Flow) -> Iterator[Ill]:
    places = flow.having("unused")
    if not places:
        return
    severity = Severity.INFO if all(_is_auxiliary(flow.parameters[place].layer) for place in places) else _grave(flow, places)
    mode = " in eval mode" if flow.report.run.mode == "eval" else ""
    remedy = "call these layers, remove them, or freeze them; DistributedDataParallel stops at them without find_unused_parameters=True"
    says = f"{_so_many(flow, places)} never used{mode}: {flow.named(places)}"
    finding = Finding("unused-parameters", severity, short(flow.common(places)), says, *_measured(flow, places), remedy)
    yield Ill(finding, says, "unused", places)


def _detached(flow: Flow, places: Sequence[int], severity: Severity) -> Ill:
    cut, first = flow.cut(places), places[0]
    so_many = f"{_so_many(flow, places)} cut off from the loss: {flow.named(places)}"
    if severity is Severity.INFO and _is_guess(flow, places):
        why, remedy = (
            "the loss that netlens chose does not depend on what they put out",
            "name the loss with --loss, where they are to be trained",
        )
    elif severity is Severity.INFO:
        why, remedy = "an auxiliary head by its name, which this loss leaves out", "add its loss where it is to be trained"
    elif cut is None or flow.before(first):
        why = "the loss does not depend on what they put out"
        remedy = f"make their output part of the loss, or freeze them; {CUTS}"
    else:
        before, after = (short(layer.name) for layer in cut)  # which may be a branch beside it
        why, remedy = (
            f"the path is cut after `{before}`, before `{after}` or a later layer",
            f"{CUTS}; if it is meant, freeze what is before it",
        )
    layer = cut[0].name if cut and not flow.before(first) else ""
    finding = Finding("detached-parameters", severity, short(flow.common(places)), f"{so_many}; {why}", *_measured(flow, places), remedy)
    return Ill(finding, so_many, "detached", tuple(places), layer=layer)


def _so_many(flow: Flow, places: Sequence[int]) -> str:
    """Begin a sentence: "2 of 62 parameters are"."""
    return f"{len(places):,} of {counted(len(flow.parameters), 'parameter')} {'is' if len(places) == 1 else 'are'}"


def _measured(flow: Flow, places: Sequence[int]) -> tuple[str, str]:
    return f"{share(flow.share(places))} of the trainable elements", f"any (warning), more than {share(MOST)} (error)"


def _grave(flow: Flow, places: Sequence[int]) -> Severity:
    return Severity.ERROR if flow.share(places) > MOST else Severity.WARNING


def _is_auxiliary(layer: str) -> bool:
    """Tell a head that helps training along, as those of GoogLeNet, FCN and DARTS are called; most losses leave it out."""
    return any(part.lower().startswith("aux") for part in layer.split("."))


def _is_guess(flow: Flow, places: Sequence[int]) -> bool:
    """Tell what comes last in a model whose loss and labels netlens made up, as the pooler of a BERT without a head: no layer follows."""
    run = flow.report.run
    made_up = run.random_labels and run.loss_source.startswith("inferred")
    return made_up and bool(places) and flow.before(places[0]) and flow.cut(places) is None


def not_updated(flow: Flow) -> Iterator[Ill]:
    """Tell of parameters that get a gradient, and are in no group of the optimizer."""
    places = tuple(place for place in flow.having("gradient") if not flow.parameters[place].optimized)
    if not places or not flow.report.run.optimizer:
        return
    says = f"{_so_many(flow, places)} in no group of the optimizer, and never updated: {flow.named(places)}"
    remedy = "give it model.parameters() after the model is complete and on its device; freeze what is not to be trained"
    finding = Finding("not-updated", Severity.ERROR, short(flow.common(places)), says, f"{len(places):,} with a gradient", "0", remedy)
    yield Ill(finding, says, "no optimizer", places)


def grad_zero(flow: Flow) -> Iterator[Ill]:
    """Tell of weights whose gradient is exactly 0, and of the layer that stops it; of what opens only that it does."""
    if flow.dead:
        yield _dead(flow)
    elif flow.opening and not (flow.report.output is not None and flow.report.output.zero_head):
        told = "three steps later they have one" if flow.report.look else "a scale, gate or branch that begins at 0 hides them"
        says = f"the first gradient of {counted(len(flow.opening), 'weight')} is 0, by design: {told}"
        finding = Finding("grad-zero", Severity.INFO, "", f"{says}: {flow.named(flow.opening)}", remedy="nothing")
        yield Ill(finding, says, "opens later", flow.opening)


def _dead(flow: Flow) -> Ill:
    dead, weights = flow.dead, flow.weights
    severity = Severity.ERROR if len(dead) >= DEAD * len(weights) else Severity.WARNING
    noise = flow.report.run.random_inputs and flow.report.initialised is False
    severity = Severity(severity - 1) if noise else severity
    where, here, there, remedy = _stopped(flow)
    kind = LATE if len(flow.died) == len(dead) else UNDERFLOW if _underflows(flow) else ""
    if kind == LATE:
        again, remedy = ", where the first step had one", RATE
    else:
        again = ", also after three steps" if flow.report.look else ""
        remedy = f"it is too small for its data type: {VANISHING}" if kind else remedy
    count = f"{len(dead):,} of {counted(len(weights), 'weight')} {'gets' if len(dead) == 1 else 'get'} a gradient of exactly 0{again}"
    lists = f": {flow.named(dead)}" if len(dead) < len(weights) else ""
    message = f"{here}, and {count}{lists}" + (" - on noise: look again with real samples" if noise else "")
    threshold = f"any (warning), {share(DEAD)} of the weights (error)"
    finding = Finding("grad-zero", severity, short(where), message, share(len(dead), len(weights)), threshold, remedy)
    return Ill(finding, f"{there}, and {count}", "dead", dead, ("zeros",), where, kind=kind)


def _underflows(flow: Flow) -> bool:
    """Whether the gradient shrinks towards the dead weights until its data type has no number for it."""
    living = (flow.parameters[place].rms for place in flow.weights if place > flow.dead[-1])
    return 0 < (next(filter(None, living), None) or 0) < LEAST.get(flow.report.run.dtype, LEAST_OTHERWISE)


def _stopped(flow: Flow) -> tuple[str, str, str, str]:
    """Return the layer to blame, what is said beside its name, the same as a sentence, and the remedy."""
    blamed = flow.culprit
    if blamed is not None and blamed.activation_rms == 0 and flow.all_zero(blamed.name):
        says = "puts out 0 everywhere, since all its weights are 0"
        return (
            blamed.name,
            f"it {says}",
            f"`{short(blamed.name)}` {says}",
            "initialise its weights, and those of all layers but the last, other than 0",
        )
    if blamed is not None and blamed.activation_rms == 0:
        remedy = "look at the biases before it (a large negative one silences a ReLU), lower the learning rate, or use LeakyReLU or GELU"
        return blamed.name, "it puts out 0 everywhere", f"`{short(blamed.name)}` puts out 0 everywhere", remedy
    if blamed is None and len(flow.dead) == len(flow.weights):
        remedy = "look at the loss: a softmax of one class, a clamp, or labels that are all ignored"
        return "", *("the gradient of the loss is 0 already",) * 2, remedy
    where = blamed.name if blamed is not None else flow.parameters[flow.dead[-1]].layer
    remedy = "look for saturation, rounding, clamping or weights that are all 0 there: `netlens featuremaps` shows what it puts out"
    return where, "no gradient gets back past it", f"no gradient gets back past `{short(where)}`", remedy
