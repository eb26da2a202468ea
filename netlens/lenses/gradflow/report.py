"""What `netlens gradflow` learns: plain values, which are the JSON document."""

from __future__ import annotations

from dataclasses import dataclass

from netlens.parts import Histogram, Picture


@dataclass(frozen=True, slots=True)
class ParameterFlow:
    """One parameter. Statistics are of the gradient of the mean loss of one optimizer step, of the last step, and of finite elements.

    None: there is no gradient, or it has no meaning here.
    """

    index: int  # in forward order, those that never ran last; the number by which `--layer` takes it
    name: str  # "layer1.0.conv1.weight"
    layer: str  # path of the module that holds it
    type: str  # of that module
    shape: tuple[int, ...]
    elements: int
    status: str  # "gradient"; "frozen": requires_grad is off; "unused": its module never ran; "detached": no path from the loss leads to it
    optimized: bool  # an optimizer has it
    weight_rms: float | None
    mean: float | None  # of |gradient|
    greatest: float | None  # of |gradient|
    rms: float | None  # norm / sqrt(elements): comparable between layers of different size
    norm: float | None
    zeros: float | None  # share of elements that are exactly 0
    nan: int
    infinite: int
    ratio: float | None  # norm of the gradient / norm of the weights
    update: float | None  # norm of the optimizer's real step / norm of the weights, with its state and learning rate, on a copy
    signal: float | None  # signal-to-noise over batches: mean over elements of mean^2 / variance (Liu et al. 2020, 2001.07384)
    cosine: float | None  # of the gradients of successive steps, mean
    histogram: Histogram | None = None  # of the gradient, finite elements


@dataclass(frozen=True, slots=True)
class LayerFlow:
    """The gradient of the loss by what one layer put out, in the last step: where it stops shows here even without parameters.

    Of large outputs `activation_rms`, and on the CPU `mean` and `zeros`, are of an even sample; that all is 0 is exact.
    """

    index: int  # in forward order
    name: str  # as in `netlens featuremaps`: "layer1.0.relu#2" the second call, "block:relu" a function
    type: str
    shape: tuple[int, ...]  # of the output, with the batch
    status: str  # "gradient", "detached" (the loss does not depend on it), "no grad" (made without a graph)
    activation_rms: float | None
    mean: float | None  # of |gradient|
    greatest: float | None
    rms: float | None
    zeros: float | None
    nan: int
    infinite: int


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the optimizer, on the copy."""

    loss: float
    norm: float | None  # of all gradients together
    rms: tuple[float | None, ...]  # of the gradient of each parameter, as in `parameters`


@dataclass(frozen=True, slots=True)
class FirstNonFinite:
    """Where NaN or Inf begins: in the forward pass, the loss, or on the way back."""

    where: str  # "forward", "loss", "backward"
    name: str  # of the layer
    type: str
    operation: str  # "log", "div", "LogSoftmaxBackward0"; "" where it is not known
    nan: int
    infinite: int
    source: str = ""  # "weight fc.weight", "input": it was not finite to begin with; "": the operation made it so


@dataclass(frozen=True, slots=True)
class OutputFacts:
    """What the loss was given."""

    name: str  # leaf of the output
    shape: tuple[int, ...]
    classes: int | None  # where labels are class indices
    label_least: float | None
    label_greatest: float | None
    label_dtype: str
    rows: str  # "scores"; "probabilities" (>= 0, sum to 1), "log probabilities" (logsumexp is 0), "in 0..1", "not negative"
    between: float | None  # variance between samples / mean square of the output: 0, it does not depend on the input
    loss_moves: float | None  # |loss(inputs) - loss(inputs in another order)| / loss: 0, the loss does not depend on the input
    zero_head: bool  # the last layer with weights is all 0
    chance: float | None  # ln(classes): the loss of knowing nothing
    expected: float | None  # loss of the main output alone, comparable with chance


@dataclass(frozen=True, slots=True)
class Noise:
    """Gradients of several batches beside each other (McCandlish et al. 2018, 1812.06162, appendix A)."""

    batches: int
    batch_size: int
    scale: float | None  # B_simple: trace of the covariance / squared norm of the mean gradient, in samples
    low: float | None  # of an interval of 90 %
    high: float | None
    signal: float | None  # median over parameters of `signal`
    nonfinite: int = 0  # of the batches, with a gradient that is not finite: left out of the numbers above


@dataclass(frozen=True, slots=True)
class Look:
    """The rules' second look: after three neutral Adam steps on a copy, gates that begin at zero have opened."""

    ratio: tuple[float | None, ...]  # norm of the gradient / norm of the weights, of each parameter
    zeros: tuple[float | None, ...]
    nonzero_layers: int


@dataclass(frozen=True, slots=True)
class Overfit:
    """`--overfit`: a copy trained on one batch."""

    optimizer: str
    samples: int
    steps: int
    losses: tuple[float, ...]
    target: float  # the loss at which it has learned the batch
    chance: float | None
    passed: bool
    best: float  # of the last five
    stopped: tuple[str, ...]  # parameters whose updates stopped before the loss fell


@dataclass(frozen=True, slots=True)
class RateRange:
    """`--lr-range`: the loss while the learning rate grows from step to step (Smith 2015, 1506.01186)."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]  # smoothed
    low: float | None  # from here the loss falls
    high: float | None  # here it is about to diverge
    steepest: float | None  # where it falls fastest: a rate to begin with

    @property
    def learned(self) -> float | None:
        """The rate at which the loss had fallen to a twentieth: beyond it little is left to learn, and a rate too large may not show."""
        level = self.losses[0] / 20 if self.losses else 0.0
        return next((rate for rate, loss in zip(self.rates, self.losses, strict=True) if loss <= level), None) if level > 0 else None


@dataclass(frozen=True, slots=True)
class Rank:
    """One process of several."""

    rank: int
    device: str
    loss: float
    norm: float | None  # of its own gradients, before they are reduced
    cosine: float | None  # of its own gradient with the mean of all
    parameters_hash: str  # of the parameters before the step: they must be equal


@dataclass(frozen=True, slots=True)
class Stepping:
    """What the calls of the user's own training step did beside the gradients; counts are of calls."""

    calls: int
    passive: int  # no backward pass ran in them
    optimizer: bool  # the function has one
    idle: int  # no optimizer stepped
    still: bool  # nothing else moved the weights in them either
    early: int  # an optimizer stepped before a backward pass had left it gradients
    kept: int  # it stepped with gradients to which those of an earlier step had been added
    cleared: int  # it stepped after the gradients that the backward pass had left were gone
    rebuilt: int  # they trained a model that was not there before
    clipped: tuple[float, float] | None  # norm of the gradients as backward left them, and as the optimizer got them, of the last
    rates: tuple[float, ...]  # learning rates, of the last step of each optimizer, the largest of its groups


@dataclass(frozen=True, slots=True)
class Run:
    """How it was run."""

    kind: str  # "model and loss", "the model's own loss", "step function"
    device: str
    dtype: str
    amp: str | None
    mode: str  # "train", "eval"
    loss: str  # "cross_entropy", "the model's own"
    loss_source: str  # "--loss", "inferred: output (8, 10) and integer labels below 10"
    optimizer: str  # "SGD(lr=0.1)", "the step function's own AdamW"
    batch_size: int | None
    accumulate: int  # batches in a step
    steps: int
    random_inputs: bool  # noise: no real data was given
    random_labels: bool
    processes: int
    peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class GradflowReport:
    """How gradients flow through a model."""

    model: str
    source: str  # of the weights
    initialised: bool | None  # True: nothing has been learned yet; None: not known
    inputs: str
    run: Run
    parameters: tuple[ParameterFlow, ...]
    layers: tuple[LayerFlow, ...]
    steps: tuple[Step, ...]
    output: OutputFacts | None
    first_nonfinite: FirstNonFinite | None
    noise: Noise | None = None
    look: Look | None = None
    overfit: Overfit | None = None
    rate_range: RateRange | None = None
    ranks: tuple[Rank, ...] = ()
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()  # names of the parameters that `--layer` takes; (): all
    stepping: Stepping | None = None  # of a training step of the user's own
