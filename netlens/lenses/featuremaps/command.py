"""`netlens featuremaps`: what the user may ask; everything is done elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from netlens.cli import options as opt
from netlens.cli import sample_options as goes_in

Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="SHAPE|FILE",
        show_default=False,
        help="Random numbers of a shape, as in `netlens summary`, or a file of saved tensors (.pt, .npy, .npz). Repeatable.",
        rich_help_panel=goes_in.SAMPLES,
    ),
]
Channels = Annotated[
    str | None,
    typer.Option(
        "--channels",
        metavar="LIST",
        show_default="64",
        help="So many channels, or these: 0,3,8 or 0:16, or all.",
        rich_help_panel=opt.PICTURES,
    ),
]
Sort = Annotated[
    str | None,
    typer.Option("--sort", metavar="KEY", show_default="index", help="Channels by index, variance or mean.", rich_help_panel=opt.PICTURES),
]
Scale = Annotated[
    str | None,
    typer.Option(
        "--scale", metavar="WHICH", show_default="common", help="One common scale, or each channel its own.", rich_help_panel=opt.PICTURES
    ),
]
Attention = Annotated[
    bool | None,
    typer.Option("--attention", show_default=False, help="Also the maps of every attention layer and head.", rich_help_panel=opt.PICTURES),
]
Query = Annotated[
    str | None,
    typer.Option(
        "--query",
        metavar="TOKEN",
        show_default="class token, or the mean over all",
        help="Whose attention is drawn: ROW,COLUMN of the patches, or the index of a token.",
        rich_help_panel=opt.PICTURES,
    ),
]
MeanMaps = Annotated[
    bool | None,
    typer.Option(
        "--mean-maps",
        show_default=False,
        help="Also the mean activation of each layer, laid over the picture.",
        rich_help_panel=opt.PICTURES,
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(
        "--samples", metavar="N", min=1, show_default="all", help="At most so many samples of --data.", rich_help_panel=goes_in.SAMPLES
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        show_default=False,
        help="A folder of pictures, or a Dataset or DataLoader as package.module:name: for the statistics, all of it in one pass.",
        rich_help_panel=goes_in.SAMPLES,
    ),
]


def command(
    model: opt.Model,
    image: goes_in.Images = None,
    input: Input = None,
    data: Data = None,
    size: goes_in.Size = None,
    mean: goes_in.Mean = None,
    std: goes_in.Std = None,
    samples: Samples = None,
    batch_size: goes_in.BatchSize = None,
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
    layer: opt.Layer = None,
    channels: Channels = None,
    sort: Sort = None,
    scale: Scale = None,
    mean_maps: MeanMaps = None,
    attention: Attention = None,
    query: Query = None,
    pictures: opt.Pictures = True,
    out: opt.Out = None,
    overwrite: opt.Overwrite = None,
    show: opt.Show = None,
    seed: opt.Seed = None,
    format: opt.Format = None,
    fail_on: opt.FailOn = None,
    traceback: opt.Traceback = False,
) -> int:
    """What each layer makes of its input: pictures, statistics, and the layer where the signal dies, blows up or turns into copies.

    Without --image, --input or --data the model runs on random numbers of the shape that it takes.
    """
    asked = {name: value for name, value in locals().items() if value is not None}
    from netlens.lenses.featuremaps.request import run

    return run(asked)
