"""`netlens kernels`: what the user may ask; everything is done elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netlens.cli import options as opt

Against = Annotated[
    Path | None,
    typer.Option("--against", metavar="FILE", show_default=False, help="Compare with another checkpoint: draws both, says what moved."),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        "--include",
        metavar="KIND",
        show_default=False,
        help="Also draw linear or embedding weights. Repeatable.",
        rich_help_panel=opt.PICTURES,
    ),
]
MaxFilters = Annotated[
    str | None,
    typer.Option(
        "--max-filters", metavar="N", show_default="64", help="At most so many filters of a layer, or all.", rich_help_panel=opt.PICTURES
    ),
]
Sort = Annotated[
    str | None,
    typer.Option("--sort", metavar="KEY", show_default="index", help="Filters by index, or by norm.", rich_help_panel=opt.PICTURES),
]
Scale = Annotated[
    str | None,
    typer.Option(
        "--scale", metavar="WHICH", show_default="common", help="One common scale, or each filter its own.", rich_help_panel=opt.PICTURES
    ),
]
Reduce = Annotated[
    str | None,
    typer.Option(
        "--reduce",
        metavar="HOW",
        show_default="every channel",
        help="One tile a filter: the mean over its input channels, the largest channel, or pc1, the first principal component.",
        rich_help_panel=opt.PICTURES,
    ),
]
Fft = Annotated[
    bool | None,
    typer.Option("--fft", show_default=False, help="Also the frequency spectra of the filters at the input.", rich_help_panel=opt.PICTURES),
]


def command(
    model: opt.Model,
    model_arg: opt.ModelArg = None,
    weights: opt.Weights = None,
    checkpoint: opt.Checkpoint = None,
    key: opt.Key = None,
    strip_prefix: opt.StripPrefix = None,
    no_strict: opt.NoStrict = None,
    trust_checkpoint: opt.TrustCheckpoint = None,
    against: Against = None,
    layer: opt.Layer = None,
    include: Include = None,
    max_filters: MaxFilters = None,
    sort: Sort = None,
    scale: Scale = None,
    reduce: Reduce = None,
    fft: Fft = None,
    pictures: opt.Pictures = True,
    out: opt.Out = None,
    overwrite: opt.Overwrite = None,
    show: opt.Show = None,
    seed: opt.Seed = None,
    format: opt.Format = None,
    fail_on: opt.FailOn = None,
    traceback: opt.Traceback = False,
) -> int:
    """Filters and weights: draws them, and says which are dead, copies of each other, or of the wrong scale.

    MODEL may be a checkpoint: no code is needed, and none from the file is run.
    """
    asked = {name: value for name, value in locals().items() if value is not None}
    from netlens.lenses.kernels.request import run

    return run(asked)
