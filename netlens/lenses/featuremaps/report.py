"""What `netlens featuremaps` learns about activations: plain values, which are the JSON document."""

from __future__ import annotations

from dataclasses import dataclass

from netlens.parts import Histogram, Picture


@dataclass(frozen=True, slots=True)
class LayerActivity:
    """What one layer put out, over all samples. Statistics are of finite elements; None: there is none, or it has no meaning here."""

    index: int  # the number by which `--layer` takes it, in the order in which layers ran
    name: str  # path; "layer1.0.relu#2" the second call, "layer1.0:relu" a function called in its forward, "lstm.0" a part of the output
    type: str  # "Conv2d"; "relu" for a function
    shape: tuple[int, ...]  # of one sample's output, without the batch dimension
    layout: str  # "channels first" (C, H, W), "channels last" (H, W, C), "tokens" (L, C), "features" (C,), "sequence" (L, C)
    grid: tuple[int, ...] | None  # spatial size of a map: (H, W); of tokens folded back
    prefix: int  # tokens before those of the grid (class token, registers)
    channels: int
    samples: int
    elements: int  # looked at in all
    activation: str | None  # "relu", "sigmoid", "tanh", "gelu", ... where the layer is one
    after_norm: bool  # an activation that a normalisation feeds
    final: bool  # nothing with parameters runs after it
    mean: float | None
    std: float | None  # population
    rms: float | None
    least: float | None
    greatest: float | None
    percentiles: tuple[float, ...] | None  # 1, 5, 25, 50, 75, 95, 99; of a strided sample where `histogram.sampled`
    zeros: float | None  # share of elements that are exactly 0
    nan: int
    infinite: int
    dead: int | None  # channels that are never positive (relu-like activations), over all samples and places
    constant: int | None  # channels whose value never changes, over all samples and places
    saturated: float | None  # share: tanh with 1 - y^2 < 0.05, sigmoid with 4 y (1 - y) < 0.05
    effective_rank: float | None  # participation ratio tr(C)^2 / tr(C^2) of the covariance C of the channels
    correlation: float | None  # mean |correlation| between two different channels
    between: float | None  # variance between samples at a place / mean square; 0: the output does not depend on the sample
    within: float | None  # variance over places inside a sample / mean square
    concentration: float | None  # share of the squared activation that the strongest tenth of the places holds; 0.1 is even
    histogram: Histogram | None


@dataclass(frozen=True, slots=True)
class AttentionLayer:
    """One attention layer, over all samples."""

    index: int
    name: str
    heads: int
    queries: int
    keys: int
    grid: tuple[int, int] | None  # of the keys
    prefix: int
    entropy: tuple[float, ...]  # a head: mean entropy of its rows / ln(keys that may be attended to)
    distance: tuple[float, ...] | None  # a head: mean distance that it looks over, in tokens of the grid


@dataclass(frozen=True, slots=True)
class OutputFacts:
    """The main output of the model."""

    name: str  # "" or the leaf: "logits"
    shape: tuple[int, ...]
    between: float | None  # variance between samples / mean square
    nonfinite: int
    classes: int | None  # where it looks like scores of classes
    top_probability: float | None  # mean over samples of the largest softmax probability
    entropy: float | None  # mean entropy of softmax / ln(classes)
    predicted: int | None  # different classes among the predictions


@dataclass(frozen=True, slots=True)
class NonFinite:
    """The first module whose output is not finite although its input is."""

    name: str
    type: str
    nan: int
    infinite: int
    sample: int
    weights: bool  # its own parameters are not finite


@dataclass(frozen=True, slots=True)
class Run:
    """How the model was run."""

    device: str
    dtype: str
    autocast: str | None
    channels_last: bool
    samples: int
    random_inputs: bool  # the samples are noise: no real data was given
    input_rms: float | None  # root mean square of all floating inputs
    batch_statistics: bool  # BatchNorm without statistics of its own normalised by each batch, as in training
    preprocessing: str  # "ResNet18_Weights.IMAGENET1K_V1: resize 256, crop 224, mean ..., std ..."; "" without pictures
    peak_bytes: int | None  # of the device's memory, where it tells


@dataclass(frozen=True, slots=True)
class FeaturemapsReport:
    """The activations of one model on some samples."""

    model: str
    source: str  # of the weights: "as initialised with seed 0 ...", "best.ckpt"
    initialised: bool | None
    inputs: str  # "cat.png and 3 more", "--input 8,3,224,224: normal random numbers, seed 0"
    run: Run
    layers: tuple[LayerActivity, ...]
    attention: tuple[AttentionLayer, ...]
    output: OutputFacts | None
    first_nonfinite: NonFinite | None
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()
