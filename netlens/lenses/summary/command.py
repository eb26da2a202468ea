"""`netlens summary` and `netlens check`: what the user may ask; everything is done elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netlens.cli import options as opt

_LIMITS = "Checks (exit code 1 where one fails)"
_TABLE = "The table"

ExpectOutput = Annotated[
    list[str] | None,
    typer.Option(
        "--expect-output",
        metavar="SHAPE",
        help="The output must be like 1,1000 or *,1000 or logits=1,1000. Repeatable.",
        rich_help_panel=_LIMITS,
    ),
]
ExpectParams = Annotated[
    str | None, typer.Option("--expect-params", metavar="N", help="Parameters: 11689512, 11.7M or 11.7M+-1%.", rich_help_panel=_LIMITS)
]
MaxParams = Annotated[
    str | None, typer.Option("--max-params", metavar="N", help="At most so many parameters: 12M.", rich_help_panel=_LIMITS)
]
MaxMacs = Annotated[
    str | None,
    typer.Option("--max-macs", metavar="N", help="At most so many multiply-adds in a forward pass: 2G.", rich_help_panel=_LIMITS),
]
MaxSize = Annotated[
    str | None,
    typer.Option("--max-size", metavar="BYTES", help="At most so many bytes of weights and buffers: 50MB.", rich_help_panel=_LIMITS),
]
MaxMemory = Annotated[
    str | None,
    typer.Option("--max-memory", metavar="BYTES", help="At most so much memory for training with Adam: 24GiB.", rich_help_panel=_LIMITS),
]
Lock = Annotated[
    Path | None,
    typer.Option(
        "--lock", metavar="FILE", help="Compare with this lock file; write it where there is none, but not in CI.", rich_help_panel=_LIMITS
    ),
]
UpdateLock = Annotated[bool | None, typer.Option("--update-lock", help="Write the lock file anew.", rich_help_panel=_LIMITS)]
LockLevel = Annotated[
    str | None, typer.Option("--lock-level", metavar="LEVEL", help="Compare output, params or layers (default).", rich_help_panel=_LIMITS)
]
Depth = Annotated[str | None, typer.Option("--depth", metavar="N", help="Levels of the tree, or all.", rich_help_panel=_TABLE)]
Columns = Annotated[
    str | None,
    typer.Option("--columns", metavar="NAMES", help="name,params chooses; +saved,-memory changes the usual ones.", rich_help_panel=_TABLE),
]
Sort = Annotated[
    str | None,
    typer.Option("--sort", metavar="KEY", help="A list, the largest first, by params, macs, memory or time.", rich_help_panel=_TABLE),
]
Top = Annotated[int | None, typer.Option("--top", metavar="N", min=1, help="A list of the N largest layers.", rich_help_panel=_TABLE)]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="TYPE", help="Layers of these types: Conv2d or '*norm*'. Repeatable.", rich_help_panel=_TABLE),
]
Fold = Annotated[
    bool | None,
    typer.Option("--fold/--no-fold", help="Show equal neighbours as one row; by default in long tables.", rich_help_panel=_TABLE),
]
Values = Annotated[
    bool | None,
    typer.Option("--values", help="Of a checkpoint: read its values, too, and report what is not finite.", show_default=False),
]
Time = Annotated[bool | None, typer.Option("--time", help="Also run the model for real, and show the median time of each layer.")]


def summary(
    model: opt.Model,
    input: opt.Input = None,
    model_arg: opt.ModelArg = None,
    weights: opt.Weights = None,
    checkpoint: opt.Checkpoint = None,
    key: opt.Key = None,
    strip_prefix: opt.StripPrefix = None,
    no_strict: opt.NoStrict = None,
    trust_checkpoint: opt.TrustCheckpoint = None,
    device: opt.Device = None,
    time: Time = None,
    values: Values = None,
    depth: Depth = None,
    columns: Columns = None,
    sort: Sort = None,
    top: Top = None,
    only: Only = None,
    fold: Fold = None,
    expect_output: ExpectOutput = None,
    expect_params: ExpectParams = None,
    max_params: MaxParams = None,
    max_macs: MaxMacs = None,
    max_size: MaxSize = None,
    max_memory: MaxMemory = None,
    lock: Lock = None,
    update_lock: UpdateLock = None,
    lock_level: LockLevel = None,
    format: opt.Format = None,
    fail_on: opt.FailOn = None,
    traceback: opt.Traceback = False,
) -> int:
    """Shapes, parameters, multiply-adds and memory of a model, exactly and without running it for real.

    A checkpoint file is shown as it is: its tensors and what else is in it. No code from it is ever run.

    FLOPs = 2 x MACs. Where the forward pass fails, the table ends at the layer that raised, and the exit code is 2.
    """
    asked = {name: value for name, value in locals().items() if value is not None}
    from netlens.lenses.summary.request import run

    return run(asked)


def check(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these models.", show_default=False)] = None,
    update_lock: UpdateLock = None,
    format: opt.Format = None,
    fail_on: opt.FailOn = None,
    traceback: opt.Traceback = False,
) -> int:
    """Check every model of [tool.netlens.models] in pyproject.toml against its limits and its lock: one line for CI.

    Runs the code of the models that are named there.
    """
    from netlens.lenses.summary.check import run

    return run(tuple(names or ()), update_lock=bool(update_lock), format=format, fail_on=fail_on)


COMMANDS = {"summary": summary, "check": check}
