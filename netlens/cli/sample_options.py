"""Options of the commands that run a model on pictures, once: what goes in, and how it is prepared."""

from __future__ import annotations

from typing import Annotated

import typer

SAMPLES = "What goes in"  # the panel of each lens's own options of it

Images = Annotated[
    list[str] | None,
    typer.Option(
        "--image", metavar="FILE", show_default=False, help="A picture, a folder or a quoted glob. Repeatable.", rich_help_panel=SAMPLES
    ),
]

Size = Annotated[
    str | None,
    typer.Option(
        "--size", metavar="N|H,W", show_default=False, help="The size of the input, in place of the model's own.", rich_help_panel=SAMPLES
    ),
]

Mean = Annotated[
    str | None,
    typer.Option("--mean", metavar="VALUES", show_default=False, help="Subtracted from pictures in 0..1.", rich_help_panel=SAMPLES),
]

Std = Annotated[
    str | None,
    typer.Option("--std", metavar="VALUES", show_default=False, help="What pictures are then divided by.", rich_help_panel=SAMPLES),
]

BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", metavar="N", min=1, show_default="8", help="Samples in one forward pass.", rich_help_panel=SAMPLES),
]
