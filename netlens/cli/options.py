"""Every option that more than one command takes, once: `from netlens.cli import options as opt`, then `model: opt.Model`.

Defaults stand in the command's signature; types, names and help texts stand here.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class ReportFormat(str, Enum):
    """How the report is written to stdout."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"
    GITHUB = "github"


class FailLevel(str, Enum):
    """The least severity of a finding that makes the exit code 1."""

    ERROR = "error"
    WARNING = "warning"
    NEVER = "never"


class Precision(str, Enum):
    """What floating numbers a model computes in."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    FP64 = "fp64"


class HalfPrecision(str, Enum):
    """What floating numbers torch's autocast chooses where they are precise enough."""

    BF16 = "bf16"
    FP16 = "fp16"
    OFF = "off"  # also where the configuration names one


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        help="A name from torchvision (resnet18), timm:NAME, hf:ID, package.module:attribute, file.py:attribute, or a checkpoint file. "
        "Naming a Python model runs that model's code.",
    ),
]

ModelArg = Annotated[
    list[str] | None,
    typer.Option(
        "--model-arg",
        metavar="NAME=VALUE",
        show_default=False,
        help="An argument of the model's constructor, as a Python literal: num_classes=10. Repeatable.",
    ),
]

Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="NAME",
        show_default=False,
        help="Published torchvision weights: DEFAULT, IMAGENET1K_V2, ... Gives the input size and the class names as well.",
    ),
]

Checkpoint = Annotated[
    Path | None,
    typer.Option("--checkpoint", metavar="FILE", show_default=False, help="Load these weights into the model. Never runs code from FILE."),
]

_CHECKPOINT = "The checkpoint"

Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="KEY",
        show_default=False,
        help="The part of the checkpoint to load, not the one that fits best; or the one to show, or its role (ema, optimizer), or all.",
        rich_help_panel=_CHECKPOINT,
    ),
]

StripPrefix = Annotated[
    str | None,
    typer.Option(
        "--strip-prefix",
        metavar="PREFIX",
        show_default=False,
        help="Take this off the names in the checkpoint, not what fits best; leave out what does not begin with it.",
        rich_help_panel=_CHECKPOINT,
    ),
]

NoStrict = Annotated[
    bool | None,
    typer.Option("--no-strict", show_default=False, help="Take what fits, and leave the rest as built.", rich_help_panel=_CHECKPOINT),
]

TrustCheckpoint = Annotated[
    bool | None,
    typer.Option(
        "--trust-checkpoint",
        show_default=False,
        help="Let a file that is a program (torch.export, TorchScript) run code. Only for files whose maker you trust.",
        rich_help_panel=_CHECKPOINT,
    ),
]

Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="SHAPE",
        show_default=False,
        help="The shape of an input, with a dtype and a name where needed: 1,3,224,224 or 1,128:int64 or input_ids=1,128:int64. "
        "Repeatable, once for each input.",
    ),
]

Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        show_default=False,
        help="Where the model runs: meta (computes nothing), cpu, cuda:0, mps; auto chooses.",
    ),
]

_RUNNING = "How it runs"

ComputeDevice = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        show_default="auto",
        help="Where the model runs: cpu, cuda:1, cuda:auto (the one with most free memory), mps, xpu; auto: an accelerator, else the CPU.",
        rich_help_panel=_RUNNING,
    ),
]

Dtype = Annotated[
    Precision | None,
    typer.Option("--dtype", show_default="as it comes", help="Cast the model and its floating inputs.", rich_help_panel=_RUNNING),
]

Autocast = Annotated[
    HalfPrecision | None,
    typer.Option("--autocast", show_default=False, help="Run under torch's autocast, as mixed training does.", rich_help_panel=_RUNNING),
]

ChannelsLast = Annotated[
    bool | None,
    typer.Option(
        "--channels-last/--no-channels-last",
        show_default=False,
        help="Lay weights and pictures out as NHWC in memory.",
        rich_help_panel=_RUNNING,
    ),
]

AutoBatch = Annotated[
    bool | None,
    typer.Option(
        "--auto-batch/--no-auto-batch", show_default=False, help="Halve the batch until it fits into memory.", rich_help_panel=_RUNNING
    ),
]

Format = Annotated[
    ReportFormat | None,
    typer.Option("--format", "-f", show_default="table", help="How to write the report; github adds workflow annotations to the table."),
]

FailOn = Annotated[
    FailLevel | None,
    typer.Option("--fail-on", show_default="error", help="Exit with 1 when a finding is at least this bad."),
]

Layer = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        "-l",
        metavar="LAYER",
        show_default=False,
        help="Only these layers: a name, a glob (quoted), an index, or a type such as Conv2d. Repeatable.",
    ),
]

Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", min=0, max=2**32 - 1, show_default="0", help="Seed of everything random."),
]

PICTURES = "The pictures"  # the panel of each lens's own options of them

Pictures = Annotated[
    bool,
    typer.Option("--pictures/--no-pictures", help="Write pictures; without them only the table.", rich_help_panel=PICTURES),
]

Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FOLDER", show_default="netlens-out", help="The folder for pictures and other files."),
]

Overwrite = Annotated[
    bool | None,
    typer.Option("--overwrite", show_default=False, help="Replace files in that folder which netlens did not write."),
]

Show = Annotated[
    bool | None,
    typer.Option("--show/--no-show", show_default=False, help="Also draw the most important pictures in the terminal, over SSH as well."),
]

# `netlens.__main__` reads this one from the command line itself, because an error can come before options are parsed.
Traceback = Annotated[
    bool,
    typer.Option("--traceback", show_default=False, help="Where your own code raised, show its traceback (or set NETLENS_TRACEBACK=1)."),
]
