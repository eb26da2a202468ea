"""What `netlens kernels` learns about weights: plain values, which are the JSON document."""

from __future__ import annotations

from dataclasses import dataclass

from netlens.parts import Histogram, Picture


@dataclass(frozen=True, slots=True)
class Change:
    """How far a weight is from the same weight of another checkpoint."""

    relative: float  # ||this - other|| / ||other||; inf where other is zero and this is not
    cosine: float | None  # between the two, flattened; None where one of them is zero
    largest: float  # max |this - other|


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One weight: of a convolution, a linear layer or an embedding. Statistics are of its finite elements; None: there is none."""

    index: int  # the number by which `--layer` takes it
    name: str  # of the layer; with the parameter where that is not called "weight": "encoder.self_attention.in_proj_weight"
    type: str  # "Conv2d"; "" where only a checkpoint tells, and it tells shapes alone
    kind: str  # "conv1d", "conv2d", "conv3d", "linear" or "embedding"
    shape: tuple[int, ...]  # as stored
    dtype: str
    filters: int  # output channels, output features or rows
    fan_in: int  # inputs that one element of the output is a sum of; for an embedding, the length of a row
    groups: int
    transposed: bool
    trainable: bool | None  # None: the checkpoint does not say
    normalised: bool | None  # a normalisation follows, so that its scale does not matter; None: not known
    head: bool  # the last weight of the model
    mean: float | None
    std: float | None  # population
    rms: float | None
    norm: float | None  # Frobenius
    least: float | None
    greatest: float | None
    zeros: int  # elements that are exactly 0
    nan: int
    infinite: int
    initial_std: float | None  # standard deviation that its initialisation gives
    initial_source: str  # "constructor" (measured on a fresh one) or "torch's default"; "" where initial_std is None
    gain: float | None  # RMS * sqrt(fan_in): by how much it scales the RMS of a zero-mean input
    dead: int  # filters with norm <= 1e-3 x the RMS filter norm
    duplicates: int  # filters whose largest signed cosine to another of the same group exceeds `duplicate_cosine`
    duplicate_cosine: float | None  # the threshold, above what random filters reach; None: no threshold tells them apart
    largest_cosine: float | None  # the largest |cosine| between two filters of one group
    stable_rank: float | None  # ||W||_F^2 / sigma_max^2 of the matrix filters x fan_in; grouped convolutions: the lowest group's
    outlier: float | None  # max |w| / (1.4826 median |w|)
    near_zero: float | None  # share of elements with 0 < |w| < 1e-3 RMS; a normal distribution has 0.0008
    valley: float | None  # of a histogram with two modes: 1 - (count in the valley / count at the lower mode); 0 with one mode
    smoothness: float | None  # autocorrelation of neighbours in the kernel: 0 for noise, towards 1 for smooth filters; None: 1 x 1
    smoothness_z: float | None  # the same in standard deviations of independent zero-mean weights
    histogram: Histogram | None
    change: Change | None  # against another checkpoint


@dataclass(frozen=True, slots=True)
class NormStatistics:
    """The running statistics of one normalisation."""

    name: str
    type: str
    features: int
    nonfinite: int  # elements of running mean and variance
    least_variance: float | None
    untouched: bool  # running mean is 0 and variance 1 everywhere
    affine_moved: bool | None  # its weight is not 1 or its bias is not 0 somewhere; None: it has none


@dataclass(frozen=True, slots=True)
class KernelsReport:
    """The weights of one model or checkpoint."""

    model: str  # the class of the model; the file's name where there is only a checkpoint
    source: str  # where the values come from: "as initialised, seed 0", "best.ckpt", "ResNet18_Weights.IMAGENET1K_V1"
    initialised: bool | None  # True: nothing has been learned yet; None: not known
    against: str | None  # the other checkpoint
    layers: tuple[LayerWeights, ...]
    norms: tuple[NormStatistics, ...]
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()
