"""What `netlens gradcam` learns: plain values, which are the JSON document."""

from __future__ import annotations

from dataclasses import dataclass

from netlens.parts import Picture


@dataclass(frozen=True, slots=True)
class Class:
    """One class of a prediction."""

    index: int
    name: str | None
    score: float  # before softmax; of a detection its confidence, of an embedding the cosine
    probability: float | None
    box: tuple[float, float, float, float] | None = None  # of a detection: left, top, right, bottom on the photo (else on the input)


@dataclass(frozen=True, slots=True)
class Layer:
    """One place in the network that a map can be made of."""

    index: int  # the number by which `--layer` takes it, in the order in which layers ran
    name: str  # "layer4"; "layer4.1.relu#2" the second call; "features:relu" a function called in its forward
    type: str
    shape: tuple[int, ...]  # of one sample's output
    layout: str  # "channels first", "channels last", "tokens"
    grid: tuple[int, ...]
    channels: int
    chosen: bool
    reason: str  # why it was chosen, or cannot be; "" where nothing is to be said


@dataclass(frozen=True, slots=True)
class Shot:
    """One sample that was looked at."""

    name: str  # "cat.png", "sample 3"
    size: tuple[int, int] | None  # of the photo: height, width
    top: tuple[Class, ...]  # the most probable classes, the first one first
    classes: int | None
    nonfinite: int  # elements of the model's output for it


@dataclass(frozen=True, slots=True)
class Worth:
    """How far a map can be believed, measured. None: could not be, or was not asked for."""

    deletion: float | None = None  # area under the probability curve while pixels are taken away, most important first; small is good
    insertion: float | None = None  # while they are put back into a blurred picture; large is good
    average_drop: float | None = None  # share of the probability that is lost where only the map's pixels remain, 0..1; small is good
    increase: float | None = None  # 1: the probability grew; of many maps their share
    road: float | None = None  # ROAD, least minus most relevant first, mean over shares; large is good
    pointing: float | None = None  # 1: the map's maximum lies in a box of the class; of many maps their share
    energy: float | None = None  # share of the map's sum in boxes of the class


@dataclass(frozen=True, slots=True)
class Heatmap:
    """One map: of one sample, one target and one method."""

    sample: int  # index into `shots`
    target: Class
    asked: str  # what the target was asked by: "top prediction", "cat", "3", "point 40,60" of the photo
    method: str  # a key of choices.METHODS
    layers: tuple[str, ...]  # more than one: fused
    shape: tuple[int, ...]  # (h, w); (t, h, w)
    least: float | None  # of the finite raw numbers, before negative ones are dropped
    greatest: float | None
    positive: float  # share of places that are > 0
    nonfinite: int  # places
    peak: tuple[int, int] | None  # column and row of the photo (else of the input) where it is greatest
    gradient: float | None  # largest |gradient| of the score at the layer; None: the method needs none
    dead: bool  # the layer's output is 0 everywhere
    equals: str | None  # an earlier method whose map of this question is the same, up to a positive factor
    worth: Worth | None = None
    file: str | None = None  # of raw numbers, .npy
    region: float | None = None  # of a class map: share of its places over which the score is summed, and the probability is the mean
    where: str = ""  # the same in words: "box 3,5 to 40,60", "where it wins: 12.5 %", "everywhere, for it wins nowhere", "one place"


@dataclass(frozen=True, slots=True)
class Sanity:
    """What became of the maps when the weights were drawn anew, from the head downwards (Adebayo et al. 2018)."""

    method: str
    steps: tuple[str, ...]  # up to which layer, the head first
    similarity: tuple[float | None, ...]  # mean over maps of the rank correlation with the map of the real weights, after each step


@dataclass(frozen=True, slots=True)
class MethodWorth:
    """The mean over all maps of one method."""

    method: str
    maps: int
    worth: Worth
    seconds: float  # for each map


@dataclass(frozen=True, slots=True)
class Run:
    """How the model was run."""

    device: str
    dtype: str
    autocast: str | None
    channels_last: bool
    preprocessing: str  # "" without pictures
    output: str  # "class scores", "single logit", "class map", "detections", "embedding"; and the leaf, where there are several
    random_inputs: bool  # noise: no real data was given
    peak_bytes: int | None
    top_channels: int | None = None  # Score-CAM was made of so many at most, those that vary most; None: of all


@dataclass(frozen=True, slots=True)
class GradcamReport:
    """Where a model looks."""

    model: str
    source: str  # of the weights
    initialised: bool | None  # True: nothing has been learned yet; None: not known
    inputs: str
    run: Run
    layers: tuple[Layer, ...]  # those that were used; with `--list-layers` all
    shots: tuple[Shot, ...]
    maps: tuple[Heatmap, ...]
    methods: tuple[MethodWorth, ...] = ()  # with `--score`
    sanity: tuple[Sanity, ...] = ()
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()
