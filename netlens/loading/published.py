"""Published weights of torchvision's models: found in torch's own cache or fetched into it, checked, and read without unpickling."""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch.hub
from torch import nn

from netlens.errors import FileProblem, UsageError
from netlens.loading.checkpoints.fit import Fit
from netlens.loading.checkpoints.misfit import Cause, does_not_fit
from netlens.loading.checkpoints.read import read_archive
from netlens.loading.checkpoints.weights import fit_model, on_meta, with_weights
from netlens.loading.download import PIECE, Download, Progress
from netlens.loading.named import NamedModel
from netlens.loading.words import listed, one_line

HASH = re.compile(r"-([a-f0-9]{8,})\.")  # as in torch.hub: the file's name ends in the first digits of its sha256


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """The file of one entry of torchvision's published weights, on this machine."""

    path: Path
    url: str
    entry: str  # "ResNet18_Weights.IMAGENET1K_V1"
    sha256: str  # its first digits, from the file's name, and checked; "" where the name has none
    downloaded: bool  # just now


def published_weights(named: NamedModel, *, progress: Progress | None = None) -> PublishedFile:
    """Return the file of the entry that was asked for, from torch's cache (TORCH_HOME), where it is put if it is not there yet.

    Args:
        named: a model of torchvision, found with `weights`.
        progress: called with the bytes that are there, and with their number in all or None.

    Raises:
        FileProblem: the file cannot be fetched or written, or is not what was published.
    """
    url = str(_entry(named).url)
    path = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(url).path).name)
    found = HASH.search(path.name)
    sha256 = found[1] if found else ""
    cached = _is_cached(path, sha256)
    if not cached:
        Download(url, path, sha256).run(progress or (lambda _done, _total: None))
    return PublishedFile(path, url, str(named.weights), sha256, downloaded=not cached)


def with_published_weights(named: NamedModel, *, progress: Progress | None = None) -> NamedModel:
    """Return the model with a `build` that loads its published values; `loaded` says from where, and how they fit.

    What it builds equals what torchvision's builder makes of the same entry. The file is never unpickled.

    Args:
        named: a model of torchvision, found with `weights`.
        progress: see `published_weights`.

    Raises:
        UsageError: the weights are quantised. ModelNotBuilt: arguments that do not go with the weights; nothing is fetched then.
        FileProblem: see `published_weights`. CheckpointDoesNotFit: other arguments have changed the shapes.
    """
    if type(_entry(named)).__name__.endswith("_QuantizedWeights"):
        what = f"{named.weights} is quantised: its integers are packed, and netlens does not look into these"
        raise UsageError(what, hint="leave --model-arg quantize=True out: the same model is built with its floating weights")
    model = on_meta(named)
    file = published_weights(named, progress=progress)
    archive = read_archive(file.path)
    found = fit_model(model, archive, name=named.name)
    notes = _checked(named, model, found, file)
    return replace(with_weights(named, found, archive), loaded=(f"{file.entry}: {found.coverage()}", *found.notes, *notes))


def _entry(named: NamedModel) -> Any:
    if named.weights is None:
        raise ValueError(f"{named.spec} was found without weights")
    return named.presets[0]


def _is_cached(path: Path, sha256: str) -> bool:
    """Tell whether the file is there, and hold it against the digits in its name: a download that broke off may have left it."""
    try:
        status = path.stat()
        digest = _digest(path, status.st_size, status.st_mtime_ns) if sha256 else ""
    except FileNotFoundError:
        return False
    except OSError as error:
        raise FileProblem(f"{one_line(path)} cannot be read: {error.strerror}", hint="mend that, or set TORCH_HOME=FOLDER") from error
    if not digest.startswith(sha256):
        raise FileProblem(
            f"{one_line(path)} is damaged: its {status.st_size:,} bytes have a sha256 of {digest[: len(sha256)]}...",
            hint=f"delete it, and it will be fetched again: rm {shlex.quote(one_line(path))}",
        )
    return True


@lru_cache(maxsize=32)
def _digest(path: Path, _size: int, _changed: int) -> str:
    """Return the sha256 of a file, computed once in a process as long as the file stays as it is."""
    sha256 = hashlib.sha256()
    with path.open("rb") as content:
        while piece := content.read(PIECE):
            sha256.update(piece)
    return sha256.hexdigest()


def _checked(named: NamedModel, model: nn.Module, found: Fit, file: PublishedFile) -> tuple[str, ...]:
    """Refuse what torchvision would refuse, and return what is left out.

    That is the auxiliary heads of GoogLeNet, which torchvision's builder loads and then sets to None.
    """
    parts = list(dict.fromkeys(tensor.name.partition(".")[0] for tensor in found.unexpected))
    taken_off = all(part in model._modules and model._modules[part] is None for part in parts)
    if found.missing or found.differences or not taken_off:
        remedy = "leave --model-arg out" if named.args else "pip install --upgrade torchvision"
        raise does_not_fit(found, file.path.name, [Cause(f"{named.name} is not built as it was published", remedy)])
    return (f"torchvision takes the auxiliary heads off after loading: {listed(parts)}",) if parts else ()
