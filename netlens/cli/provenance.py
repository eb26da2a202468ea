"""The pictures of one request: where they go, and what each file says about where it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netlens.cli.pictures import OUT, Pictures
from netlens.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from netlens.cli.arrays import Arrays
    from netlens.loading.specs import ModelSpec


@dataclass(frozen=True, slots=True)
class Labelled:
    """Pictures with facts that are known only when the model has been looked at."""

    pictures: Pictures
    facts: Mapping[str, str]  # "Weights": "best.ckpt"; those that are "" are left out

    def reserve(self, names: Iterable[str]) -> None:
        """Refuse names under which files stand that are not ours."""
        self.pictures.reserve(names)

    def save(self, name: str, image: Image, **more: Any) -> str:
        """Write one picture and return its path."""
        known: dict[str, Any] = {key: fact for key, fact in self.facts.items() if fact}
        return self.pictures.save(name, image, **known, **more)


def pictures_of(lens: str, spec: ModelSpec, asked: Mapping[str, Any]) -> Pictures | None:
    """Return where the pictures of a model go: a folder that can be written; None with `--no-pictures`.

    Raises:
        FileProblem: it cannot be written.
    """
    return pictures_named(lens, _stem(spec), asked, {"Model": spec.text, "Seed": str(asked.get("seed") or 0)})


def pictures_named(lens: str, stem: str, asked: Mapping[str, Any], facts: Mapping[str, str]) -> Pictures | None:
    """Return the same for what is called `stem` in file names, with texts that every picture has.

    Raises:
        FileProblem: it cannot be written.
    """
    from netlens.loading.words import user_path

    if not asked.get("pictures", True):
        return None
    return Pictures(
        lens,
        stem,
        out=user_path(asked.get("out") or OUT),  # no shell has done it in pyproject.toml, nor in --out=~/pictures
        overwrite=bool(asked.get("overwrite")),
        show=bool(asked.get("show")),
        facts=facts,
    )


def arrays_of(lens: str, spec: ModelSpec, asked: Mapping[str, Any]) -> Arrays:
    """Return where the raw numbers of a lens go: beside its pictures.

    Raises:
        FileProblem: the folder cannot be written.
    """
    from netlens.cli.arrays import Arrays
    from netlens.loading.words import user_path

    return Arrays(lens, _stem(spec), out=user_path(asked.get("out") or OUT), overwrite=bool(asked.get("overwrite")))


def check_show(asked: Mapping[str, Any]) -> None:
    """Refuse `--show --no-pictures`; asked of the command line alone, for a default to show pictures means those that there are.

    Raises:
        UsageError: both are there.
    """
    if asked.get("show") and not asked.get("pictures", True):
        raise UsageError("--show draws pictures, and --no-pictures makes none", hint="leave one of them out")


def _stem(spec: ModelSpec) -> str:
    """Return what files are named after; a checkpoint with its folder, for many are called best.pt."""
    if spec.source == "checkpoint" and spec.path is not None:
        return "-".join(part for part in (spec.path.parent.name, spec.path.name) if part)
    return spec.attribute or spec.name or spec.text
