"""One function for each kind of checkpoint: from an open file to an Archive."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from netlens.errors import FileProblem
from netlens.loading.checkpoints.archive import Archive, StoredTensor, TensorGroup
from netlens.loading.checkpoints.describe import Description, describe
from netlens.loading.checkpoints.files import OnDisk, in_memory
from netlens.loading.checkpoints.legacy import nested_storage, read_legacy, read_tar, tar_members
from netlens.loading.checkpoints.machine import Damaged, Patience
from netlens.loading.checkpoints.other_files import archive_problem
from netlens.loading.checkpoints.pickles import Reader, read_pickle
from netlens.loading.checkpoints.programs import ExportReader
from netlens.loading.checkpoints.safetensors import parsed, read_safetensors
from netlens.loading.checkpoints.scripts import ScriptFlattener, class_name, read_code
from netlens.loading.checkpoints.stubs import Tensor
from netlens.loading.checkpoints.tensors import odd_tensors, stored
from netlens.loading.checkpoints.zips import Zip, open_zip, place_storages
from netlens.loading.words import listed, one_line

LARGEST_PICKLE = 512 << 20
LARGEST_INDEX = 32 << 20
MOST_SHARDS = 2000
PART = re.compile(r"-(\d{5})-of-(\d{5})\.")

Shard = Callable[[Path], Archive]


def read_zip(path: Path, file: OnDisk) -> Archive:
    """A zip file: of torch.save, torch.jit.save, torch.export.save, or of somebody else."""
    archive = open_zip(file, 0, file.size)
    root, inner = archive.root, list(archive.members)
    exported = any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in inner)
    if exported and not any("aotinductor" in name or name.endswith(".so") for name in inner):
        return _exported(path, file, archive)
    if exported or root + "data.pkl" not in archive.members:
        raise archive_problem(path, "a zip file", inner, f"unzip {one_line(path.name, 100)}")
    if (root + "data.pkl").lower() in archive.twice:
        raise Damaged("it holds two records data.pkl, and readers disagree about which one counts")
    if archive.members[root + "data.pkl"].size > LARGEST_PICKLE:
        raise Damaged(f"its data.pkl is larger than netlens reads ({LARGEST_PICKLE >> 20} MiB)")
    if root + "constants.pkl" in archive.members:
        return _script(path, file, archive)
    pickled = read_pickle(*in_memory(*archive.span(root + "data.pkl")), Reader(nested_storage))
    pickled.oddities += place_storages(archive, root + "data/", pickled.storages)
    others = [name for name in inner if name.lower().endswith("data.pkl") and name != root + "data.pkl"]
    pickled.oddities += [f"it holds a second pickle, {one_line(others[0], 80)}, which torch does not read"] if others else []
    return _archive(path, "torch zip", file.size, describe(pickled), _byteorder(archive))


def _byteorder(archive: Zip) -> str:
    name = archive.root + "byteorder"
    return "big" if name in archive.members and archive.read(name, 1000).strip() == b"big" else "little"


def _archive(path: Path, kind: str, size: int, found: Description, byteorder: str = "little") -> Archive:
    """Put the parts together."""
    tensors = [tensor for group in found.groups for tensor in group.tensors]
    runs = found.runs_code
    if found.modules_only:
        kind, runs = "pickled module", runs or f"the classes of the module: {found.model_class}"
    odd = ["its numbers are big-endian"] if byteorder == "big" else []
    parts = PART.search(path.name)
    if parts and int(parts[2]) > 1:
        odd.append(f"this is part {int(parts[1])} of {int(parts[2])}: the index beside it, or the folder, names all")
    return Archive(
        path,
        kind,
        size,
        found.groups,
        found.scalars,
        found.contents,
        found.foreign,
        model_class=found.model_class,
        runs_code=runs,
        oddities=(*odd, *found.oddities),
        byteorder=byteorder,
        complete=found.complete,
        mappable=byteorder == "little" and all(tensor.place >= 0 or not tensor.storage_bytes for tensor in tensors),
    )


def _exported(path: Path, file: OnDisk, archive: Zip) -> Archive:
    if archive.twice:
        raise Damaged(f"it holds records twice: {listed(archive.twice, 3)}")
    program = ExportReader(archive).read()
    found = Description(tuple(program.groups), program.scalars, foreign=program.foreign, runs_code=program.runs_code)
    found.oddities = program.oddities
    return _archive(path, "exported program", file.size, found, _byteorder(archive))


def _script(path: Path, file: OnDisk, archive: Zip) -> Archive:
    root, code = archive.root, read_code(archive)
    flattener = ScriptFlattener(code)
    pickled = read_pickle(*in_memory(*archive.span(root + "data.pkl")))
    odd = pickled.oddities + place_storages(archive, root + "data/", pickled.storages)
    constants = read_pickle(*in_memory(*archive.span(root + "constants.pkl")), steps=600_000)
    odd += place_storages(archive, root + "constants/", constants.storages)
    named = tuple(stored(name, tensor) for name, tensor in flattener.tensors(pickled.value))
    frozen = [tensor for tensor in constants.value if isinstance(tensor, Tensor)] if isinstance(constants.value, list | tuple) else []
    groups = [TensorGroup("", "weights", named)] if named else []
    if frozen:
        groups.append(TensorGroup("constants", "other", tuple(stored(str(at), one, "constants/") for at, one in enumerate(frozen))))
    at_load = f", {code.at_load} files of it already when it is loaded (__setstate__)" if code.at_load else ""
    odd += [*flattener.oddities, *odd_tensors(named)] + ([] if code.complete else ["its code is larger than netlens reads"])
    found = Description(tuple(groups), model_class=class_name(pickled.value), runs_code=f"the code of TorchScript{at_load}", oddities=odd)
    return _archive(path, "torchscript", file.size, found, _byteorder(archive))


def read_old(path: Path, file: OnDisk) -> Archive:
    """The five pickles."""
    legacy = read_legacy(file.mapped(), file, 0, file.size)
    if legacy.end < file.size:
        legacy.pickled.oddities.append(f"{file.size - legacy.end:,} bytes follow behind its last storage")
    return _archive(path, "torch legacy", file.size, describe(legacy.pickled), "big" if legacy.big_endian else "little")


def read_tarred(path: Path, file: OnDisk) -> Archive:
    """A tar file: torch's oldest format, or an archive around something."""
    names = [member.name for member in tar_members(file, file.size)]
    if not {"pickle", "tensors", "storages"} <= {name.removeprefix("./") for name in names}:
        raise archive_problem(path, "a tar file", names, f"tar xf {one_line(path.name, 100)}")
    return _archive(path, "torch tar", file.size, describe(read_tar(file)))


def read_plain(path: Path, file: OnDisk) -> Archive:
    """A pickle that torch.save did not write."""
    pickled = read_pickle(*in_memory(file, 0, file.size), Reader(nested_storage))
    if pickled.complete and pickled.end < file.size:
        pickled.oddities.append(f"{file.size - pickled.end:,} bytes follow behind its pickle")
    return _archive(path, "plain pickle", file.size, describe(pickled))


def read_tensors(path: Path, file: OnDisk) -> Archive:
    """A file of safetensors."""
    tensors, metadata, odd = read_safetensors(file)
    groups = (TensorGroup("", "weights", tensors),) if tensors else ()
    return _archive(path, "safetensors", file.size, Description(groups, metadata, oddities=odd + odd_tensors(tensors)))


READERS: dict[str, Callable[[Path, OnDisk], Archive]] = {
    "zip": read_zip,
    "tar": read_tarred,
    "torch legacy": read_old,
    "plain pickle": read_plain,
    "safetensors": read_tensors,
}


def read_index(path: Path, file: OnDisk, shard: Shard) -> Archive:
    """The index of several files: every one is looked at.

    Raises:
        FileProblem: one is missing, or the index names a path instead of a file beside it.
    """
    if file.size > LARGEST_INDEX:
        raise Damaged("it is larger than netlens reads")
    names = _weight_map(path, parsed(file[0 : file.size]))
    files = list(dict.fromkeys(names.values()))
    missing = [name for name in files if not (path.parent / name).is_file()]
    if missing:
        what = f"{len(missing)} of the {len(files)} files that {str(path)!r} names are missing: {listed(missing, 4)}"
        raise FileProblem(what, hint="fetch them into the same folder")
    found, patience = dict[str, Archive](), Patience(5.0)
    for name in files:
        found[name] = shard(path.parent / name)
        patience.check()
    tensors = {tensor.name: tensor for name, archive in found.items() for tensor in _of_shard(name, archive)}
    lost = [name for name in names if name not in tensors]
    odd = [f"{len(lost):,} tensors that the index names are in no file: {listed(lost, 3)}"] if lost else []
    extra = len(tensors) - (len(names) - len(lost))
    odd += [f"{extra:,} tensors are in its files, and not in the index"] if extra else []
    ordered = [tensors[name] for name in names if name in tensors] + [one for name, one in tensors.items() if name not in names]
    return Archive(
        path,
        "sharded",
        sum(archive.size for archive in found.values()),
        (TensorGroup("", "weights", tuple(ordered)),) if ordered else (),
        foreign=tuple(dict.fromkeys(one for archive in found.values() for one in archive.foreign)),
        shards=tuple(path.parent / name for name in files),
        runs_code=next((archive.runs_code for archive in found.values() if archive.runs_code), ""),
        oddities=(*odd, *(f"{name}: {text}" for name, archive in found.items() for text in archive.oddities if "this is part" not in text)),
        complete=not lost and all(archive.complete for archive in found.values()),
        mappable=all(archive.mappable for archive in found.values()),
    )


def _weight_map(path: Path, index: dict[str, object]) -> dict[str, str]:
    names = index.get("weight_map")
    if not isinstance(names, dict) or not names:
        hint = "name the checkpoint's file, or the index (…safetensors.index.json) of a checkpoint in several files"
        raise FileProblem(f"{str(path)!r} is a JSON text, not a checkpoint: it has no weight_map", hint=hint)
    for file in names.values():
        if not isinstance(file, str) or file != Path(file).name or file in (".", "..") or "\\" in file or "\0" in file:
            shown = one_line(file, 80) if isinstance(file, str) else "no text"
            hint = "an index may name only files beside it; this one looks like an attempt to read others"
            raise FileProblem(f"{str(path)!r} names {shown!r}, which is no plain file name", hint=hint)
    if len(set(names.values())) > MOST_SHARDS:
        raise Damaged(f"it names {len(set(names.values())):,} files")
    return names


def _of_shard(file: str, archive: Archive) -> list[StoredTensor]:
    """Return a file's tensors, marked with its name."""
    if archive.kind not in ("torch zip", "torch legacy", "safetensors"):
        raise Damaged(f"{file} is {archive.kind}, which no index names")
    tensors = [tensor for group in archive.groups for tensor in group.tensors]
    return [replace(tensor, file=file, storage=f"{file}:{tensor.storage}") for tensor in tensors]
