"""What a path is, by the file system and its first bytes: a kind of checkpoint, or the sentence that names what it is instead."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from netlens.errors import FileProblem
from netlens.loading.checkpoints.legacy import MAGIC
from netlens.loading.checkpoints.other_files import by_magic, by_text
from netlens.loading.checkpoints.safetensors import looks_like_safetensors
from netlens.loading.words import listed, one_line

HEAD = 512
CHECKPOINTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".pt2", ".tar", ".pkl", ".model", ".index.json")
SUFFIXES = {  # what the suffix promises, where it promises something
    ".safetensors": ("safetensors",),
    ".pt2": ("exported program",),
    ".pkl": ("plain pickle", "torch zip", "torch legacy", "pickled module"),
    ".ckpt": ("torch zip", "torch legacy", "torch tar", "pickled module"),
    ".pth": ("torch zip", "torch legacy", "torch tar", "pickled module", "torchscript"),
    ".bin": ("torch zip", "torch legacy", "torch tar", "pickled module"),
    ".onnx": (),
    ".h5": (),
    ".npz": (),
    ".gguf": (),
}
OLD_PICKLE = re.compile(rb"(\(dp?\d*\n|\(lp?\d*\n|\(i[\w.]+\n\w+\n|c[\w.]+\n[\w.]+\n|[\]}(]\(|\(c[\w.]+\n[\w.]+\n|[IFLSV][^\n]*\n[.p])")


def regular_file(path: Path) -> os.stat_result:
    """Return the status of a file, or of a folder.

    Raises:
        FileProblem: it is not there, not readable, or no file at all.
    """
    name = repr(str(path))
    try:
        status = path.stat()
    except FileNotFoundError as error:
        if path.is_symlink():
            what = f"{name} is a link to {one_line(path.readlink(), 200)!r}, which does not exist"
            raise FileProblem(what, hint="restore the file that it points to, or name that file") from error
        raise FileProblem(f"no file {name}", hint="paths start at the current folder") from error
    except OSError as error:
        raise FileProblem(f"{name} cannot be reached: {error.strerror}", hint="check the path and its permissions") from error
    except ValueError as error:
        raise FileProblem(f"{name} is no path", hint="check the path") from error
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise FileProblem(f"{name} is {_special(status.st_mode)}, not a file", hint="name the checkpoint's file")
    if not os.access(path, os.R_OK):
        raise FileProblem(f"{name} may not be read: permission denied", hint=f"ask its owner, or: chmod u+r {one_line(path.name, 100)}")
    return status


def _special(mode: int) -> str:
    kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"), (stat.S_ISSOCK, "a socket"))
    return next((what for test, what in kinds if test(mode)), "something special")


def kind_of(path: Path, head: bytes, size: int) -> str:
    """Return what a file is by its first bytes: "zip", "tar", "torch legacy", "safetensors", "index" or "plain pickle".

    Raises:
        FileProblem: it is no checkpoint.
    """
    name = repr(str(path))
    if not size:
        raise FileProblem(f"{name} is empty", hint="the download or the copy failed, or the disk was full: get the file again")
    if not head.strip(b"\0"):
        raise FileProblem(f"{name} holds only zeros", hint="the download or the copy did not finish: get the file again")
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return "zip"
    if head[:1] == b"\x80" and head.find(MAGIC, 2, 24) > 0:
        return "torch legacy"
    if looks_like_safetensors(head, size):
        return "safetensors"
    if problem := by_magic(path, head, size):
        raise problem
    if head[257:262] == b"ustar":
        return "tar"
    if head[:1] == b"\x80" and head[1:2] <= b"\5":
        return "plain pickle"
    if _is_index(path, head):
        return "index"
    if OLD_PICKLE.match(head):
        return "plain pickle"
    raise by_text(path, head, size)


def _is_index(path: Path, head: bytes) -> bool:
    """Whether a file is the index of a sharded checkpoint: it names shards, or is called so."""
    return head.lstrip()[:1] == b"{" and (path.name.endswith(".index.json") or b'"weight_map"' in head)


def odd_suffix(path: Path, kind: str) -> list[str]:
    """Return a sentence where the name promises something else; that is no problem, because names are not believed."""
    expected = SUFFIXES.get(path.suffix.lower())
    if expected is None or kind in expected:
        return []
    return [f"the name ends with {path.suffix}, but the file is something else ({kind}); its bytes were believed"]


def folder_problem(path: Path) -> FileProblem:
    """Say what a folder without a checkpoint is, and what in it could be meant."""
    name, inside = repr(str(path)), sorted(child.name for child in _first(path))
    if "saved_model.pb" in inside or "keras_metadata.pb" in inside:
        hint = "convert it in TensorFlow: netlens reads PyTorch's formats"
        return FileProblem(f"{name} is a TensorFlow SavedModel, not a PyTorch checkpoint", hint=hint)
    if "data.pkl" in inside and "data" in inside:
        hint = f"pack it again: cd {one_line(path.parent, 100)} && zip -0 -r {path.name[:50]}.pt {path.name[:50]}"
        return FileProblem(f"{name} is a checkpoint of torch.save that was unpacked", hint=hint)
    if any(child.endswith(".distcp") for child in inside):
        hint = "`.metadata` is written last: the save did not finish, or the file was not copied (its name begins with a dot)"
        return FileProblem(f"{name} is a distributed checkpoint without its .metadata", hint=hint)
    found = [child for child in inside if child.lower().endswith(CHECKPOINTS)]
    hint = f"name one of its files: {listed(found, 4)}" if found else "name the checkpoint's file"
    return FileProblem(f"{name} is a folder, not a checkpoint", hint=hint)


def _first(path: Path, most: int = 5000) -> list[Path]:
    found = []
    for child in path.iterdir():
        found.append(child)
        if len(found) >= most:
            break
    return found
