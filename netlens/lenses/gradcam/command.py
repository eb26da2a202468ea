"""`netlens gradcam`: what the user may ask; everything is done elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from netlens.cli import options as opt
from netlens.cli import sample_options as goes_in

_TARGETS = "What is explained"
_TRUTH = "How far to believe it"

Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="FILE|SHAPE",
        show_default=False,
        help="A file of saved tensors (.pt, .npy, .npz), or random numbers of a shape. Repeatable.",
        rich_help_panel=goes_in.SAMPLES,
    ),
]
Target = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "-t",
        metavar="CLASS",
        show_default="the top prediction",
        help="A class by its name or index; top3: the three most probable; of a detector #2: its second box. Repeatable.",
        rich_help_panel=_TARGETS,
    ),
]
Names = Annotated[
    str | None,
    typer.Option(
        "--names",
        metavar="FILE|FOLDER",
        show_default=False,
        help="Names of the classes: a name a line, JSON, or a folder with one folder for each class.",
        rich_help_panel=_TARGETS,
    ),
]
Point = Annotated[
    str | None,
    typer.Option(
        "--point", metavar="X,Y", show_default=False, help="Of a segmentation: this pixel of the photo alone.", rich_help_panel=_TARGETS
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        "--against",
        metavar="FILE",
        show_default=False,
        help="A picture: explain what makes the others like it, for a model that puts out embeddings.",
        rich_help_panel=_TARGETS,
    ),
]
Output = Annotated[
    str | None,
    typer.Option("--output", metavar="KEY", show_default=False, help="Which of several outputs is explained.", rich_help_panel=_TARGETS),
]
MethodName = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        "-m",
        metavar="NAMES",
        show_default="gradcam",
        help="cam, gradcam, gradcam++, xgradcam, hirescam, layercam, finercam, eigencam, scorecam, ablationcam, fullgrad, legrad; or all.",
    ),
]
Layer = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        "-l",
        metavar="LAYER",
        show_default="found by test",
        help="A layer by its name, the end of it, a glob (quoted) or an index. Several are fused into one map. Repeatable.",
    ),
]
ListLayers = Annotated[
    bool | None,
    typer.Option("--list-layers", show_default=False, help="List the layers that a map can be made of, and stop there."),
]
TopChannels = Annotated[
    int | None,
    typer.Option(
        "--top-channels",
        metavar="N",
        min=1,
        show_default="all",
        help="Score-CAM of the N channels that vary most: faster, and an approximation.",
    ),
]
Score = Annotated[
    bool | None,
    typer.Option(
        "--score", show_default=False, help="Measure each map: deletion, insertion, average drop, ROAD, boxes.", rich_help_panel=_TRUTH
    ),
]
Boxes = Annotated[
    str | None,
    typer.Option(
        "--boxes",
        metavar="FILE",
        show_default=False,
        help="Where the objects are (JSON of netlens, COCO, Pascal VOC): is the map's maximum in the box?",
        rich_help_panel=_TRUTH,
    ),
]
Sanity = Annotated[
    bool | None,
    typer.Option(
        "--sanity",
        show_default=False,
        help="Draw the weights anew, layer by layer: does the map change, as it must?",
        rich_help_panel=_TRUTH,
    ),
]
Scale = Annotated[
    str | None,
    typer.Option(
        "--scale", metavar="WHICH", show_default="each", help="Each map its own scale, or one common to all.", rich_help_panel=opt.PICTURES
    ),
]
Raw = Annotated[
    bool,
    typer.Option("--raw/--no-raw", help="Also write the numbers of each map, as float32 .npy.", rich_help_panel=opt.PICTURES),
]


def command(
    model: opt.Model,
    image: goes_in.Images = None,
    input: Input = None,
    size: goes_in.Size = None,
    mean: goes_in.Mean = None,
    std: goes_in.Std = None,
    batch_size: goes_in.BatchSize = None,
    target: Target = None,
    names: Names = None,
    point: Point = None,
    against: Against = None,
    output: Output = None,
    method: MethodName = None,
    layer: Layer = None,
    list_layers: ListLayers = None,
    top_channels: TopChannels = None,
    score: Score = None,
    boxes: Boxes = None,
    sanity: Sanity = None,
    model_arg: opt.ModelArg = None,
    weights: opt.Weights = None,
    checkpoint: opt.Checkpoint = None,
    key: opt.Key = None,
    strip_prefix: opt.StripPrefix = None,
    no_strict: opt.NoStrict = None,
    trust_checkpoint: opt.TrustCheckpoint = None,
    device: opt.ComputeDevice = None,
    dtype: opt.Dtype = None,
    autocast: opt.Autocast = None,
    channels_last: opt.ChannelsLast = None,
    auto_batch: opt.AutoBatch = None,
    scale: Scale = None,
    raw: Raw = False,
    pictures: opt.Pictures = True,
    out: opt.Out = None,
    overwrite: opt.Overwrite = None,
    show: opt.Show = None,
    seed: opt.Seed = None,
    format: opt.Format = None,
    fail_on: opt.FailOn = None,
    traceback: opt.Traceback = False,
) -> int:
    """Where the model looks: a heat map on the original photo, for one class or several, by one method or all, and the truth about it."""
    asked = {name: value for name, value in locals().items() if value is not None}
    from netlens.lenses.gradcam.request import run

    return run(asked)
