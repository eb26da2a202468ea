"""`netlens check-data`: what the user may ask; everything is done elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netlens.cli import options as opt

SETS, TABLES, LOADERS, WORK = "Sets", "A table of labels", "A Dataset or a DataLoader", "How it works"

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        show_default=False,
        help="A folder of pictures, a table of labels (.csv, .tsv), or a Dataset or DataLoader: package.module:name or file.py:name. "
        "Naming Python code runs it.",
    ),
]
Val = Annotated[
    str | None,
    typer.Option(
        "--val", metavar="DATA", show_default=False, help="The validation set: compared with DATA, for leaks too.", rich_help_panel=SETS
    ),
]
Test = Annotated[
    str | None,
    typer.Option("--test", metavar="DATA", show_default=False, help="The test set, compared with the others.", rich_help_panel=SETS),
]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="N|NAMES",
        show_default=False,
        help="How many classes the model has, or their names: cat,dog or a file with one on each line.",
        rich_help_panel=SETS,
    ),
]
Images = Annotated[
    str | None,
    typer.Option("--images", metavar="FOLDER", show_default="that of the table", help="Where the pictures are.", rich_help_panel=TABLES),
]
PathColumn = Annotated[
    str | None,
    typer.Option("--path-column", metavar="NAME", show_default="found", help="The column with names of files.", rich_help_panel=TABLES),
]
LabelColumn = Annotated[
    str | None,
    typer.Option("--label-column", metavar="NAME", show_default="found", help="The column with labels.", rich_help_panel=TABLES),
]
Samples = Annotated[
    int | None,
    typer.Option("--samples", metavar="N", min=1, show_default="10000", help="Read at most so many samples.", rich_help_panel=LOADERS),
]
TargetRate = Annotated[
    float | None,
    typer.Option(
        "--target-rate",
        metavar="N",
        show_default=False,
        help="Samples per second that training shall get: is the loader fast enough, and how many workers would be?",
        rich_help_panel=LOADERS,
    ),
]
EatenBy = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        show_default=False,
        help="The same for what a training step of this model takes on this machine.",
        rich_help_panel=LOADERS,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=1, show_default="all CPUs", help="Processes that read files.", rich_help_panel=WORK),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="FILE",
        show_default=False,
        help="Keep here what was seen: files that have not changed are not read again.",
        rich_help_panel=WORK,
    ),
]
FixList = Annotated[
    Path | None,
    typer.Option(
        "--fix-list",
        metavar="FILE",
        show_default=False,
        help="Write the files that a clean set would leave out, one on each line; as .csv with the reasons. Of copies one stays, of copies "
        "with different labels none.",
    ),
]


def command(
    data: Data,
    val: Val = None,
    test: Test = None,
    classes: Classes = None,
    images: Images = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    samples: Samples = None,
    target_rate: TargetRate = None,
    model: EatenBy = None,
    model_arg: opt.ModelArg = None,
    device: opt.ComputeDevice = None,
    workers: Workers = None,
    cache: Cache = None,
    fix_list: FixList = None,
    pictures: opt.Pictures = True,
    out: opt.Out = None,
    overwrite: opt.Overwrite = None,
    show: opt.Show = None,
    seed: opt.Seed = None,
    format: opt.Format = None,
    fail_on: opt.FailOn = None,
    traceback: opt.Traceback = False,
) -> int:
    """What is wrong with the data, before it costs a training run: files, copies and leaks, labels, and what a loader really delivers.

    Files are only read. Folders and tables need no torch.
    """
    asked = {name: value for name, value in locals().items() if value is not None}
    from netlens.lenses.check_data.request import run

    return run(asked)
