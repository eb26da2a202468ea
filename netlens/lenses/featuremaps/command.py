"""`netlens featuremaps`: what the user may ask; everything is done elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

_PICTURES = "The pictures"
_SAMPLES = "What goes in"

Channels = Annotated[
    str | None,
    typer.Option(
        "--channels", metavar="LIST", show_default="64", help="So many channels, or these: 0,3,8 or 0:16, or all.", rich_help_panel=_PICTURES
    ),
]
Sort = Annotated[
    str | None,
    typer.Option("--sort", metavar="KEY", show_default="index", help="Channels by index, variance or mean.", rich_help_panel=_PICTURES),
]
Scale = Annotated[
    str | None,
    typer.Option(
        "--scale", metavar="WHICH", show_default="common", help="One common scale, or each channel its own.", rich_help_panel=_PICTURES
    ),
]
Attention = Annotated[
    bool | None,
    typer.Option("--attention", show_default=False, help="Also the maps of every attention layer and head.", rich_help_panel=_PICTURES),
]
Query = Annotated[
    str | None,
    typer.Option(
        "--query",
        metavar="TOKEN",
        show_default="class token, or the mean over all",
        help="Whose attention is drawn: ROW,COLUMN of the patches, or the index of a token.",
        rich_help_panel=_PICTURES,
    ),
]
Overlay = Annotated[
    bool | None,
    typer.Option(
        "--mean-maps", show_default=False, help="Also the mean activation of each layer, laid over the picture.", rich_help_panel=_PICTURES
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", metavar="N", min=1, show_default="8", help="Samples in one forward pass.", rich_help_panel=_SAMPLES),
]
Samples = Annotated[
    int | None,
    typer.Option("--samples", metavar="N", min=1, show_default="all", help="At most so many samples of --data.", rich_help_panel=_SAMPLES),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        show_default=False,
        help="A folder of pictures, or a Dataset or DataLoader as package.module:name: for the statistics, all of it in one pass.",
        rich_help_panel=_SAMPLES,
    ),
]
Pictures = Annotated[
    bool,
    typer.Option("--pictures/--no-pictures", help="Write pictures; without them only the table.", rich_help_panel=_PICTURES),
]
