"""`netlens gradflow`: what the user may ask; everything is done elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from netlens.cli import options as opt
from netlens.cli import sample_options as goes_in

_TRAINING = "How it learns"
_TRIALS = "Does it train at all"

Subject = Annotated[
    str,
    typer.Argument(
        metavar="MODEL|STEP",
        show_default=False,
        help="A model as in `netlens summary`, or a function of yours without arguments that runs one training step and returns the loss.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        show_default=False,
        help="A folder of pictures with a folder for each class, or a Dataset or DataLoader as package.module:name.",
        rich_help_panel=goes_in.SAMPLES,
    ),
]
Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="SHAPE|FILE",
        show_default=False,
        help="Random numbers of a shape, or a file of saved tensors, labels among them (.pt, .npy, .npz). Repeatable.",
        rich_help_panel=goes_in.SAMPLES,
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(
        "--samples", metavar="N", min=1, show_default="all", help="At most so many samples of --data.", rich_help_panel=goes_in.SAMPLES
    ),
]
Loss = Annotated[
    str | None,
    typer.Option(
        "--loss",
        metavar="LOSS",
        show_default="the model's own, or inferred",
        help="A loss of torch by name, with options (cross_entropy:label_smoothing=0.1), or a function of yours: package.module:name.",
        rich_help_panel=_TRAINING,
    ),
]
OptimizerName = Annotated[
    str | None,
    typer.Option(
        "--optimizer",
        metavar="NAME",
        show_default="sgd",
        help="Any optimizer of torch.optim, with options: adamw:weight_decay=0.1.",
        rich_help_panel=_TRAINING,
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--lr", metavar="RATE", show_default="the optimizer's own; 0.1 of SGD", help="The learning rate.", rich_help_panel=_TRAINING
    ),
]
Steps = Annotated[
    int | None, typer.Option("--steps", metavar="N", min=1, show_default="1", help="Optimizer steps, on a copy.", rich_help_panel=_TRAINING)
]
Accumulate = Annotated[
    int | None,
    typer.Option("--accumulate", metavar="N", min=1, show_default="1", help="Batches in one step.", rich_help_panel=_TRAINING),
]
Amp = Annotated[
    str | None,
    typer.Option(
        "--amp",
        metavar="DTYPE",
        show_default=False,
        help="Mixed precision as in training: bf16, or fp16 with a loss scale.",
        rich_help_panel=_TRAINING,
    ),
]
Train = Annotated[
    bool,
    typer.Option("--train/--eval", help="The mode of dropout and batch normalisation.", rich_help_panel=_TRAINING),
]
Noise = Annotated[
    int | None,
    typer.Option(
        "--noise",
        metavar="N",
        min=0,
        show_default="6 with real data",
        help="Compare the gradients of N batches: signal-to-noise, and the noise scale. 0: do not.",
        rich_help_panel=_TRAINING,
    ),
]
Sort = Annotated[
    str | None,
    typer.Option("--sort", metavar="KEY", show_default="order", help="Rows in forward order, or the worst first: order, worst."),
]
OverfitFlag = Annotated[
    bool | None,
    typer.Option("--overfit", show_default=False, help="Train a copy on one batch: does the loss fall?", rich_help_panel=_TRIALS),
]
RangeFlag = Annotated[
    bool | None,
    typer.Option(
        "--lr-range", show_default=False, help="Train a copy with a growing learning rate: which are usable?", rich_help_panel=_TRIALS
    ),
]


def command(
    model: Subject,
    data: Data = None,
    input: Input = None,
    size: goes_in.Size = None,
    mean: goes_in.Mean = None,
    std: goes_in.Std = None,
    samples: Samples = None,
    batch_size: goes_in.BatchSize = None,
    loss: Loss = None,
    optimizer: OptimizerName = None,
    lr: Rate = None,
    steps: Steps = None,
    accumulate: Accumulate = None,
    amp: Amp = None,
    train: Train = True,
    noise: Noise = None,
    overfit: OverfitFlag = None,
    lr_range: RangeFlag = None,
    model_arg: opt.ModelArg = None,
    weights: opt.Weights = None,
    checkpoint: opt.Checkpoint = None,
    key: opt.Key = None,
    strip_prefix: opt.StripPrefix = None,
    no_strict: opt.NoStrict = None,
    trust_checkpoint: opt.TrustCheckpoint = None,
    device: opt.ComputeDevice = None,
    dtype: opt.Dtype = None,
    channels_last: opt.ChannelsLast = None,
    sort: Sort = None,
    pictures: opt.Pictures = True,
    out: opt.Out = None,
    overwrite: opt.Overwrite = None,
    show: opt.Show = None,
    seed: opt.Seed = None,
    format: opt.Format = None,
    fail_on: opt.FailOn = None,
    traceback: opt.Traceback = False,
) -> int:
    """Is it learning, and if not, which layer stops it: where gradients vanish, explode or never arrive, and what a step would do.

    Everything is done on a copy: the model and its file stay as they are. Without --data the model learns noise, and the report says so.
    """
    asked = {name: value for name, value in locals().items() if value is not None}
    from netlens.lenses.gradflow.request import run

    return run(asked)
