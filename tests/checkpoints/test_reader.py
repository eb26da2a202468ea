"""The reader looks at every file of the collection, names it rightly, agrees with torch about it, and runs none of it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from netlens.errors import FileProblem
from netlens.loading.checkpoints.archive import KINDS, Archive
from netlens.loading.checkpoints.read import read_archive, read_storage
from tests.checkpoints.listing import load, loaded_tensors, same_values, stored_rows, torch_row, values
from tests.checkpoints.made import FILES, MARKER, Made

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory by /proc")
pytestmark = pytest.mark.filterwarnings("ignore")

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
CHILD = """
import json, resource, sys, time
from pathlib import Path
from netlens.errors import NetlensError
from netlens.loading.checkpoints.read import read_archive
def peak():  # not ru_maxrss: a child inherits that from the process that started it
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
before, start = resource.getrusage(resource.RUSAGE_SELF), peak()
found = {}
for name in json.loads(sys.argv[1]):
    try:
        archive = read_archive(Path(name))
        found[name] = [archive.kind, sum(len(group.tensors) for group in archive.groups)]
    except NetlensError as error:
        found[name] = [error.message, error.hint]
after = resource.getrusage(resource.RUSAGE_SELF)
seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
unwanted = [name for name in ("torch", "numpy", "antigravity", "safetensors") if name in sys.modules]
print(json.dumps({"found": found, "seconds": seconds, "MB": peak() - start, "imported": unwanted}))
"""


def child(*paths: Path) -> dict[str, Any]:
    """Read files in a process of their own."""
    command = [sys.executable, "-c", CHILD, json.dumps([str(path) for path in paths])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@LINUX
def test_memory_is_measured():
    """The measure sees 150 MB that a process takes and gives back."""
    code = CHILD.replace("found = {}", "found = {}; bytearray(150 << 20)", 1)
    done = subprocess.run([sys.executable, "-c", code, "[]"], capture_output=True, text=True, timeout=100, check=True, env=ENVIRONMENT)
    assert 140 < json.loads(done.stdout)["MB"] < 200


def test_collection_is_as_large_as_promised():
    """Over 120 files, over 20 hostile, every kind among them."""
    assert len(FILES) >= 120
    assert sum(made.hostile for made in FILES) >= 20
    assert {made.kind for made in FILES if made.kind} == KINDS.keys()
    assert len({made.name for made in FILES}) == len(FILES)


@pytest.mark.parametrize("made", [made for made in FILES if not made.heavy], ids=lambda made: made.name)
def test_every_file_is_named_rightly(made: Made, files: dict[str, Path]):
    """A kind of KINDS, or one sentence and a hint; odd things are said; no marker."""
    path = files[made.name]
    if made.says:
        with pytest.raises(FileProblem) as caught:
            read_archive(path)
        assert made.says in caught.value.message
        assert caught.value.hint and "\n" not in caught.value.message + caught.value.hint
    else:
        archive = read_archive(path)
        assert archive.kind == made.kind
        assert made.odd == "" or any(made.odd in oddity for oddity in archive.oddities), archive.oddities
        assert made.tensors < 0 or sum(len(group.tensors) for group in archive.groups) == made.tensors
        if made.hostile:
            assert archive.runs_code or any(one.verdict == "hostile" for one in archive.foreign)
    assert not (path.parent / MARKER).exists()


def test_hostile_files_would_leave_a_marker(files: dict[str, Path]):
    """The payloads work: torch without its filter runs one. Otherwise the other tests would show nothing."""
    marker = files["hostile/os_system.pt"].parent / MARKER
    torch.load(files["hostile/os_system.pt"], weights_only=False)
    existed = marker.exists()
    marker.unlink(missing_ok=True)
    assert existed


@LINUX
def test_nothing_is_imported_and_nothing_runs(files: dict[str, Path]):
    """All light files in one fresh process: torch, numpy and what pickles name stay outside; no marker anywhere."""
    light = [files[made.name] for made in FILES if not made.heavy]
    report = child(*light)
    assert report["imported"] == []
    assert len(report["found"]) == len(light)
    assert report["MB"] < 60
    assert not any((path.parent / MARKER).exists() for path in files.values())


@LINUX
@pytest.mark.parametrize("made", [made for made in FILES if made.heavy], ids=lambda made: made.name)
def test_heavy_files_are_bounded(made: Made, files: dict[str, Path]):
    """Under two seconds of work and 200 MB beyond the imports, whatever the file claims."""
    report = child(files[made.name])
    (found,) = report["found"].values()
    assert report["seconds"] < 2
    assert report["MB"] < 200
    assert (made.says in found[0]) if made.says else found[0] == made.kind


@pytest.mark.parametrize("made", [made for made in FILES if made.loads], ids=lambda made: made.name)
def test_tensors_equal_those_of_torch_load(made: Made, files: dict[str, Path]):
    """Names, shapes, types, strides, offsets and values; and the same tensors share memory."""
    path = files[made.name]
    archive = read_archive(path)
    truth = dict(loaded_tensors(load(path)))
    ours = {row[0]: (row, one) for row, one in stored_rows(archive)}
    assert {name: row for name, (row, _) in ours.items()} == {name: torch_row(name, tensor) for name, tensor in truth.items()}
    plain = {name: tensor for name, tensor in truth.items() if ours[name][1].readable}
    assert all(same_values(values(archive, ours[name][1]), tensor.detach()) for name, tensor in plain.items() if not tensor.is_conj())
    shared: dict[int, set[str]] = {}
    for name, tensor in plain.items():
        if tensor.untyped_storage().nbytes():
            shared.setdefault(tensor.untyped_storage().data_ptr(), set()).add(ours[name][1].storage)
    assert all(len(storages) == 1 for storages in shared.values())
    assert len(set().union(*shared.values())) == len(shared)


@pytest.mark.parametrize("made", [made for made in FILES if made.loads], ids=lambda made: made.name)
def test_readable_says_whether_plain_bytes_are_enough(made: Made, files: dict[str, Path]):
    """Strided tensors of plain types are readable; sparse, quantized, nested and meta tensors are not, and why says so."""
    truth = dict(loaded_tensors(load(files[made.name])))
    for row, one in stored_rows(read_archive(files[made.name])):
        tensor = truth[row[0]]
        plain = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta
        assert one.readable == plain
        assert bool(one.why) != plain


def test_lying_tensors_are_not_readable(files: dict[str, Path]):
    """What does not fit its storage must not be read; the rest may."""
    expected = {"beyond": False, "long": False, "missing": False, "expanded": True, "offset": False, "duplicate": False, "renamed": False}
    for name, readable in expected.items():
        archive = read_archive(files[f"lies/{name}.pt"])
        (tensor,) = archive.groups[0].tensors
        assert tensor.readable is readable, name
        assert archive.mappable is (name in ("beyond", "expanded", "offset")), name
        if not readable and tensor.place < 0:
            with pytest.raises(FileProblem):
                read_storage(archive, tensor)


def test_wrappers_are_opened(files: dict[str, Path]):
    """Keys, roles, scalars and options, as a person would read them out of the file."""
    archive = read_archive(files["zip/wrapper.pth"])
    assert [(group.key, group.role) for group in archive.groups] == [("model", "weights"), ("optimizer", "optimizer")]
    assert archive.scalars == {"epoch": "12", "best_acc": "0.71", "arch": "net", "done": "False"}
    lightning = read_archive(files["zip/lightning.ckpt"])
    assert ("state_dict", "weights") in [(group.key, group.role) for group in lightning.groups]
    assert lightning.scalars["pytorch-lightning_version"] == "2.2.0" and lightning.scalars["hyper_parameters.lr"] == "0.1"
    assert {g.key: g.role for g in read_archive(files["zip/ema.pth"]).groups} == {"model": "weights", "ema.shadow": "ema"}
    assert {g.key: g.role for g in read_archive(files["zip/model_ema.pth"]).groups} == {"state_dict": "weights", "state_dict_ema": "ema"}
    assert [group.role for group in read_archive(files["zip/adam.pt"]).groups] == ["optimizer"]
    assert {g.key: g.role for g in read_archive(files["zip/rng.pt"]).groups} == {"model": "weights", "": "other"}
    assert read_archive(files["zip/namespace.pth"]).scalars == {"args.lr": "0.1", "args.name": "run"}
    assert read_archive(files["zip/numpy_scalar.pth"]).scalars == {"best": "0.5", "step": "7"}
    assert read_archive(files["dcp/folder"]).scalars == {"epoch": "3"}


def _verdicts(archive: Archive) -> dict[str, str]:
    return {one.name: one.verdict for one in archive.foreign}


def test_verdicts(files: dict[str, Path]):
    """Well-known classes, classes of the user's own, and what no checkpoint needs."""
    assert _verdicts(read_archive(files["zip/namespace.pth"])) == {"argparse.Namespace": "known"}
    assert _verdicts(read_archive(files["zip/own_options.pth"])) == {"tests.checkpoints.nets.Options": "foreign"}
    assert _verdicts(read_archive(files["hostile/dotted.pt"])) == {"torch.os.system": "hostile"}
    assert _verdicts(read_archive(files["modules/bound.pt"]))["builtins.getattr"] == "known"
    assert _verdicts(read_archive(files["zip/state_dict.pt"])) == {}
    assert read_archive(files["zip/state_dict.pt"]).runs_code == ""
    hostile = [made for made in FILES if made.name.startswith("hostile/") and made.hostile and not made.says and "formula" not in made.name]
    assert all("hostile" in _verdicts(read_archive(files[made.name])).values() for made in hostile)


def test_a_formula_that_is_code_is_noticed(files: dict[str, Path]):
    """torch gives formulas of a .pt2 file to sympy, which evaluates them; honest ones pass."""
    assert "Python" in read_archive(files["hostile/formula.pt2"]).runs_code
    assert read_archive(files["programs/dynamic.pt2"]).runs_code == ""


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path):
    """The message names the reason."""
    path = tmp_path / "secret.pt"
    path.write_bytes(b"x")
    path.chmod(stat.S_IWUSR)
    with pytest.raises(FileProblem, match="permission denied"):
        read_archive(path)
