"""What the user asks of a checkpoint: read and checked before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from netlens.errors import UsageError
from netlens.loading.checkpoints.archive import Archive
from netlens.loading.checkpoints.groups import checked_group
from netlens.loading.specs import ModelSpec
from netlens.loading.words import user_path

OPTIONS = {"key": "--key", "strip_prefix": "--strip-prefix", "no_strict": "--no-strict", "trust_checkpoint": "--trust-checkpoint"}
PROGRAMS = {
    "exported program": "torch.export.load evaluates texts of the file as expressions, and unpickles what it finds in it",
    "torchscript": "torch.jit.load runs the code in the archive",
}


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


def program_of(spec: ModelSpec, trust: bool) -> Archive | None:
    """Read the program that stands in the model's place; None where the model is no file.

    Raises:
        UsageError: it may not be opened, or is no program. NetlensError: it is no checkpoint.
    """
    if spec.source != "checkpoint" or spec.path is None:
        return None
    from netlens.loading.checkpoints.read import read_archive

    name = spec.path.name
    archive: Archive = read_archive(spec.path)
    if archive.kind not in PROGRAMS:
        hint = f"name the model that they are for: netlens summary MODEL --checkpoint {name}"
        raise UsageError(f"{name} holds weights, not a program: as they are, they cannot be run, trusted or not", hint=hint)
    if not trust:
        raise refused_program(archive)
    return archive


def refused_program(archive: Archive) -> UsageError:
    """Return the refusal to open a program without consent, saying what would run."""
    detail = f" ({archive.runs_code})" if archive.runs_code else ""
    return UsageError(
        f"{archive.path.name} is a program, and opening it runs what it holds: {PROGRAMS[archive.kind]}{detail}",
        hint="where you trust whoever made it: --trust-checkpoint",
    )
