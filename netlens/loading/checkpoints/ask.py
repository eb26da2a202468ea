"""What the user asks of a checkpoint: read and checked before torch is imported."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netlens.errors import UsageError
from netlens.loading.checkpoints.archive import Archive, StoredTensor
from netlens.loading.checkpoints.groups import candidates, checked_group
from netlens.loading.specs import ModelSpec
from netlens.loading.words import one_line, user_path

OPTIONS = {"key": "--key", "strip_prefix": "--strip-prefix", "no_strict": "--no-strict", "trust_checkpoint": "--trust-checkpoint"}
PROGRAMS = {
    "exported program": "torch.export.load evaluates texts of the file as expressions, and unpickles what it finds in it",
    "torchscript": "torch.jit.load runs the code in the archive",
}
MOST = 5_000  # tensors; no published model has more
PREFIXES = 4  # segments that all names may begin with
USUAL_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class Ask:
    """A checkpoint, and how it is to be loaded."""

    archive: Archive
    key: str | None = None
    strip_prefix: str | None = None
    strict: bool = True
    trust: bool = False

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Ask | None:
        """Read the file that `--checkpoint` names; None where there is no such option.

        Raises:
            NetlensError: it is no checkpoint, has no such key, or an option is given that needs `--checkpoint`.
        """
        from netlens.loading.checkpoints.read import read_archive

        if asked.get("checkpoint") is None:
            alone = next((option for name, option in OPTIONS.items() if asked.get(name)), None)
            if alone is not None:
                raise UsageError(f"{alone} says how to read a checkpoint, and none is given", hint=f"add --checkpoint FILE to {alone}")
            return None
        archive = read_archive(user_path(asked["checkpoint"]))
        checked_group(archive, asked.get("key"))
        return cls(
            archive=archive,
            key=asked.get("key"),
            strip_prefix=asked.get("strip_prefix"),
            strict=not asked.get("no_strict"),
            trust=bool(asked.get("trust_checkpoint")),
        )


def program_of(spec: ModelSpec, trust: bool, lens: str = "summary") -> Archive | None:
    """Read the program that stands in the model's place; None where the model is no file.

    Args:
        spec: the model that the user names.
        trust: the user's consent.
        lens: what the user asked for, which a hint repeats.

    Raises:
        UsageError: it may not be opened, or is no program. NetlensError: it is no checkpoint.
    """
    if spec.source != "checkpoint" or spec.path is None:
        return None
    from netlens.loading.checkpoints.read import read_archive

    archive: Archive = read_archive(spec.path)
    if archive.kind not in PROGRAMS:
        raise refused_weights(archive, lens)
    if not trust:
        raise refused_program(archive)
    return archive


def refused_weights(archive: Archive, lens: str) -> UsageError:
    """Return the refusal to run weights without their model, with the command that would, where names and shapes tell the model."""
    file = one_line(archive.path)
    model = next((words for group in candidates(archive) if (words := _published(group.tensors))), None)
    what = f"they are those of torchvision's {model[0]}" if model else "name the model that they are for"
    command = ["netlens", lens, *(model or ["MODEL"]), "--checkpoint", file]
    return UsageError(
        f"{one_line(archive.path.name)} holds weights, not a program: as they are, they cannot be run, trusted or not",
        hint=f"{what}: {shlex.join(command)}",
    )


def _published(tensors: Sequence[StoredTensor]) -> list[str] | None:
    """Return the words that name torchvision's model of just these tensors: resnet18 --model-arg num_classes=37; None where none is known.

    The shapes of heads are not compared, and only a classifier's tells its classes: its last weight, not that of an auxiliary one.
    """
    from netlens.loading.checkpoints.architectures import WHOLE
    from netlens.loading.checkpoints.identify import HEAD, whole
    from netlens.loading.checkpoints.prefixes import bare

    if len(tensors) > MOST:
        return None
    entries = [(bare(tensor.name), tensor.shape) for tensor in tensors]
    ways = ([(name.split(".", depth)[-1], shape) for name, shape in entries] for depth in range(PREFIXES + 1))
    names = next((found for way in ways if (found := WHOLE.get(whole(way)))), None)
    if names is None:
        return None
    model = names.split()[0]
    heads = [
        shape for name, shape in entries if HEAD.search(name) and name.endswith("weight") and "aux" not in name.lower() and len(shape) > 1
    ]
    if "_fpn" in model or "ssd" in model or not heads or heads[-1][0] == USUAL_CLASSES:
        return [model]
    return [model, "--model-arg", f"num_classes={heads[-1][0]}"]


def refused_program(archive: Archive) -> UsageError:
    """Return the refusal to open a program without consent, saying what would run."""
    detail = f" ({archive.runs_code})" if archive.runs_code else ""
    return UsageError(
        f"{archive.path.name} is a program, and opening it runs what it holds: {PROGRAMS[archive.kind]}{detail}",
        hint="where you trust whoever made it: --trust-checkpoint",
    )
