"""`netlens check-data` as a careless user types it: what it answers through each door, what it writes, and how its mistakes end."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from netlens.cli.app import run
from netlens.errors import NetlensError
from tests.conftest import DROPPED, REPOSITORY, Shell
from tests.data_defects import photo

OLD = 1_600_000_000  # seconds: a file that has just been written may change again within the tick of its time, and is not remembered
LEAKED, CUT, PAGE, COPIES = "train/cat/000.jpg", "train/dog/cut.jpg", "train/dog/page.jpg", ("train/cat/003.jpg", "train/cat/again.jpg")

LOADERS = """
import torch
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)
x = torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(0))

def healthy():
    return DataLoader(TensorDataset(x, torch.arange(48) % 4), batch_size=8, shuffle=True)

def from_one():
    return DataLoader(TensorDataset(x, torch.arange(48) % 4 + 1), batch_size=8, shuffle=True)

def val():
    return DataLoader(TensorDataset(x[:33], torch.arange(33) // 9), batch_size=8)

train = val
"""

# Beside the program from its start: it writes down which files of the data are opened, and at the COUNTth of them presses Ctrl-C, or waits.
WATCHER = """
import os, signal, sys, time
opened = 0

def hook(event, arguments):
    global opened
    if event == "open" and str(arguments[0]).endswith(".jpg"):
        opened += 1
        with_lock = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(with_lock, f"{os.path.basename(str(arguments[0]))}\\n".encode())
        os.close(with_lock)
        if os.environ.get("CTRL_C_AT") == str(opened):
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(float(os.environ.get("SLOW", "0")))

if "WATCHED" in os.environ:
    sys.addaudithook(hook)
"""


def pictures(folder: Path, first: int, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:03}.jpg"
        photo(3_000_000 + first + number, 96).save(path, quality=90)
        os.utime(path, (OLD, OLD))


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a healthy training and validation set and a table, which nobody changes."""
    root = tmp_path_factory.mktemp("clean")
    for place, name in enumerate(("train/cat", "train/dog", "val/cat", "val/dog")):
        pictures(root / name, 100 * place, 12)
    rows = [(f"{name}/{number:03}.jpg", name) for name in ("cat", "dog") for number in range(12)]
    (root / "labels.csv").write_text("file,label\n" + "".join(f"{path},{label}\n" for path, label in rows))
    (root / "loaders.py").write_text(LOADERS)
    return root


@pytest.fixture(scope="module")
def faulty(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a leak, a cut picture, a web page and a copy, which nobody changes."""
    root = tmp_path_factory.mktemp("faulty") / "sets"
    shutil.copytree(clean, root)
    shutil.copy(root / LEAKED, root / "val/cat/leak.jpg")
    shutil.copy(root / COPIES[0], root / COPIES[1])
    whole = (root / "train/dog/005.jpg").read_bytes()
    (root / CUT).write_bytes(whole[: len(whole) // 2])
    (root / PAGE).write_bytes(b"<!DOCTYPE html><html><body>404</body></html>")
    return root


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which netlens runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def cli(here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run one command line in this process; NetlensErrors are raised."""
    for name in DROPPED:
        monkeypatch.delenv(name, raising=False)

    def ask(*arguments: object) -> tuple[int, str]:
        line: Sequence[str] = ["check-data", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", ["netlens", *line])
        capfd.readouterr()
        code = run(line)
        return code, capfd.readouterr().out

    return ask


def strict(text: str) -> dict[str, Any]:
    """Read JSON as the standard has it: without NaN and Infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    found: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return found


def told(text: str) -> dict[str, list[list[str]]]:
    """Return the places of each issue of a JSON document."""
    return {issue["code"]: [item["paths"] for item in issue["items"]] for issue in strict(text)["report"]["issues"]}


def state(folder: Path) -> list[tuple[Any, ...]]:
    """Return all that there is in a folder, with what would show that it was touched."""
    entries = [folder, *sorted(folder.rglob("*"))]
    return [(str(path), *os.lstat(path)[:7], path.lstat().st_mtime_ns, path.lstat().st_ctime_ns) for path in entries]


# -- three doors ---------------------------------------------------------------------------------------------------------------------


def torch_free(modules: frozenset[str]) -> bool:
    return not {"torch", "torchvision", "matplotlib"} & modules


def test_healthy_folders_are_fit_to_train_on_and_need_no_torch(netlens: Shell, clean: Path, tmp_path: Path) -> None:
    line = ["check-data", str(clean / "train"), "--val", str(clean / "val"), "--fail-on", "warning"]
    done = netlens(*line, "--show", cwd=tmp_path)
    assert done.returncode == 0 and "\x1b" not in done.stdout
    assert "fit to train on? nothing stands in the way: all 48 files" in done.stdout
    assert "nothing leaks between train and val" in done.stdout and "netlens-out/check-data-train-" in done.stdout
    assert torch_free(done.modules)
    drawn = [f"wrote netlens-out/{path.name}" for path in (tmp_path / "netlens-out").iterdir()]
    *wrote, shown = done.stderr.splitlines()  # in a pipe, to show them is a sentence
    assert sorted(wrote) == sorted(drawn) and shown == "--show needs a terminal; the pictures are in netlens-out/"


def test_a_healthy_table_too(netlens: Shell, clean: Path, tmp_path: Path) -> None:
    done = netlens("check-data", str(clean / "labels.csv"), "--images", str(clean / "train"), "--no-pictures", cwd=tmp_path)
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (0, "", [])
    assert "24 files · 2 classes" in done.stdout and "fit to train on? nothing" in done.stdout
    assert torch_free(done.modules)


def test_faults_of_a_table(cli: Cli, clean: Path) -> None:
    rows = (clean / "labels.csv").read_text().splitlines()
    Path("labels.csv").write_text("\n".join([*rows, "cat/nowhere.jpg,cat", "cat/000.jpg,dog"]) + "\n")
    code, out = cli("labels.csv", "--images", clean / "train", "--no-pictures", "--format", "json")
    assert code == 1
    assert told(out) == {"row-without-file": [["labels.csv:26"]], "label-conflict": [["labels.csv:2", "labels.csv:27"]]}


def test_a_loader_by_its_name(netlens: Shell, clean: Path, tmp_path: Path) -> None:
    line = ["check-data", f"{clean / 'loaders.py'}:healthy", "--classes", "4", "--no-pictures", "--format", "json"]
    done = netlens(*line, cwd=tmp_path)
    assert (done.returncode, told(done.stdout), done.stderr) == (0, {}, "")
    assert strict(done.stdout)["report"]["loaders"][0]["read"] == 48


def test_a_loader_whose_labels_do_not_fit(cli: Cli, clean: Path) -> None:
    """1 to 4, of which 0 to 3 would do: every fourth sample."""
    code, out = cli(f"{clean / 'loaders.py'}:from_one", "--classes", "4", "--samples", "48", "--no-pictures", "--format", "json")
    assert code == 1 and told(out).keys() == {"label-range"}
    assert sorted(told(out)["label-range"]) == sorted([f"sample {index}"] for index in range(3, 48, 4))


@pytest.mark.parametrize(("name", "code", "found"), [("train", 1, {"unshuffled", "last-batch-of-one"}), ("val", 0, set())])
def test_a_loader_that_is_named_val_may_go_in_order(cli: Cli, clean: Path, name: str, code: int, found: set[str]) -> None:
    """33 samples in batches of 8, sorted by label."""
    got, out = cli(f"{clean / 'loaders.py'}:{name}", "--no-pictures", "--format", "json", "--fail-on", "warning")
    assert (got, set(told(out))) == (code, found)


# -- leaks, and exit codes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "code"), [("error", 1), ("never", 0)])
def test_a_leak_between_train_and_val(cli: Cli, clean: Path, level: str, code: int) -> None:
    shutil.copytree(clean / "val", "val")
    shutil.copy(clean / LEAKED, "val/dog/x.jpg")
    got, out = cli(clean / "train", "--val", "val", "--no-pictures", "--format", "json", "--fail-on", level)
    leak = [str(clean / LEAKED), "val/dog/x.jpg"]
    assert got == code and told(out) == {"leak-exact": [leak], "duplicate-labels": [leak]}
    _, text = cli(clean / "train", "--val", "val", "--no-pictures")
    assert "fit to train on? no: " in text and "leak-exact" in text


def test_splits_in_one_folder_are_found_and_compared(cli: Cli, faulty: Path) -> None:
    _, out = cli(faulty, "--no-pictures", "--format", "json")
    assert told(out) == {
        "not-an-image": [[str(faulty / PAGE)]],
        "picture-truncated": [[str(faulty / CUT)]],
        "duplicate-exact": [[str(faulty / path) for path in COPIES]],
        "leak-exact": [[str(faulty / LEAKED), str(faulty / "val/cat/leak.jpg")]],
    }


@pytest.mark.parametrize(("level", "code"), [("error", 0), ("warning", 1)])
def test_a_warning_fails_only_where_it_shall(cli: Cli, clean: Path, level: str, code: int) -> None:
    shutil.copytree(clean / "train", "train")
    shutil.copy("train/cat/000.jpg", "train/cat/x.jpg")
    assert cli("train", "--no-pictures", "--fail-on", level)[0] == code


@pytest.mark.parametrize("form", ["table", "markdown", "github"])
def test_every_format_names_the_places(cli: Cli, faulty: Path, form: str) -> None:
    out = cli(faulty, "--no-pictures", "--format", form)[1]
    assert [name for name in ("cut.jpg", "page.jpg", "leak.jpg", "again.jpg") if name not in out] == []


# -- any number of processes ---------------------------------------------------------------------------------------------------------


def test_the_bytes_are_those_of_one_process(netlens: Shell, faulty: Path, tmp_path: Path) -> None:
    line = ["check-data", str(faulty), "--no-pictures", "--format", "json", "--seed", "0"]
    alone = netlens(*line, "--workers", "1", cwd=tmp_path)
    assert (alone.returncode, alone.stderr, torch_free(alone.modules)) == (1, "", True)
    strict(alone.stdout)
    two = netlens(*line, "--workers", "2", cwd=tmp_path)
    assert (two.returncode, two.stdout, two.stderr) == (1, alone.stdout, "")


def test_two_processes_as_torchrun_starts_them_give_the_same_bytes(netlens: Shell, faulty: Path, tmp_path: Path) -> None:
    dist = pytest.importorskip("torch.distributed")
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("torch was built without gloo")
    line = ["check-data", str(faulty), "--format", "json", "--fix-list", "bad.txt", "--out", "drawn"]
    alone = netlens(*line, cwd=tmp_path)
    listed = (tmp_path / "bad.txt").read_bytes()
    shutil.rmtree(tmp_path / "drawn")
    (tmp_path / "bad.txt").unlink()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        own = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    started = []
    for rank in ("0", "1"):
        command, environment = netlens.prepare(*line, env={**own, "RANK": rank, "LOCAL_RANK": rank})
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    try:
        (first, said), (second, said_by_other) = (process.communicate(timeout=120) for process in started)
    finally:
        for process in started:
            process.kill()
    assert (first, second, said_by_other) == (alone.stdout, "", "") and said == alone.stderr
    assert [process.returncode for process in started] == [1, 0]
    assert (tmp_path / "bad.txt").read_bytes() == listed


# -- lists of files to leave out -----------------------------------------------------------------------------------------------------


def left_out(faulty: Path) -> list[str]:
    """The cut picture and the web page; the later of two copies; of a leak the one in the training set."""
    return sorted(str(faulty / path) for path in (CUT, PAGE, COPIES[1], LEAKED))


def test_a_fix_list_feeds_other_programs(cli: Cli, faulty: Path) -> None:
    cli(faulty, "--no-pictures", "--fix-list", "bad.txt")
    assert Path("bad.txt").read_text() == "".join(f"{path}\n" for path in left_out(faulty))
    fed = subprocess.run("xargs -d '\\n' ls -1 < bad.txt", shell=True, capture_output=True, text=True, check=True)
    assert fed.stdout.splitlines() == left_out(faulty)


def test_a_fix_list_as_csv_gives_the_reasons(cli: Cli, faulty: Path) -> None:
    cli(faulty, "--no-pictures", "--fix-list", "bad.csv")
    with Path("bad.csv").open(newline="") as file:
        found = list(csv.reader(file))
    reasons = {CUT: "picture-truncated", PAGE: "not-an-image", COPIES[1]: "duplicate-exact", LEAKED: "leak-exact"}
    assert found == [["path", "code"], *sorted([str(faulty / path), code] for path, code in reasons.items())]


@pytest.mark.parametrize("name", ["bad.txt", "bad.csv"])
def test_without_its_files_the_set_is_clean(cli: Cli, faulty: Path, name: str) -> None:
    shutil.copytree(faulty, "sets")
    cli("sets", "--no-pictures", "--fix-list", name)
    with Path(name).open(newline="") as file:
        lines = [row[0] for row in csv.reader(file)] if name.endswith("csv") else file.read().splitlines()
    for path in (line for line in lines if line != "path"):
        Path(path).unlink()
    code, out = cli("sets", "--no-pictures", "--fail-on", "warning", "--format", "json")
    assert (code, told(out)) == (0, {})


def test_a_line_break_in_a_name_makes_no_list_that_names_another_file(cli: Cli, clean: Path) -> None:
    """A list is fed to `rm`: the name "cat/000.jpg\\n.jpg", written as it is, would be a line that names a healthy picture."""
    shutil.copytree(clean / "train", "train")
    Path("train/cat/000.jpg\n.jpg").write_bytes(b"")
    Path("train/dog/empty.jpg").write_bytes(b"")
    cli("train", "--no-pictures", "--fix-list", "bad.csv")
    with Path("bad.csv").open(newline="") as file:
        assert list(csv.reader(file))[1:] == [["train/cat/000.jpg\n.jpg", "file-empty"], ["train/dog/empty.jpg", "file-empty"]]
    cli("train", "--no-pictures", "--fix-list", "bad.txt")
    lines = Path("bad.txt").read_text().splitlines()
    assert lines == ["train/dog/empty.jpg"]


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_fix_list_of_nothing_is_empty(cli: Cli, clean: Path, form: str) -> None:
    cli(clean / "train", "--no-pictures", "--fix-list", "bad.txt", "--format", form)
    assert Path("bad.txt").read_bytes() == b""


# -- the cache, and Ctrl-C -----------------------------------------------------------------------------------------------------------


def watched(folder: Path, **options: str) -> dict[str, str]:
    """Return an environment in which each picture that is opened is written down in `folder`/opened."""
    (folder / "watcher").mkdir(exist_ok=True)
    (folder / "watcher" / "sitecustomize.py").write_text(WATCHER)
    return {"PYTHONPATH": os.pathsep.join((str(folder / "watcher"), str(REPOSITORY))), "WATCHED": str(folder / "opened"), **options}


def opened(folder: Path) -> list[str]:
    """Return the names of the pictures that were opened since the last call."""
    file = folder / "opened"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return sorted(lines)


def test_with_a_cache_the_second_run_opens_only_what_has_changed(netlens: Shell, faulty: Path, tmp_path: Path) -> None:
    data = shutil.copytree(faulty, tmp_path / "sets")
    for path in data.rglob("*.jpg"):
        os.utime(path, (OLD, OLD))
    files = sorted(path.name for path in data.rglob("*.jpg"))
    line = ["check-data", "sets", "--no-pictures", "--format", "json", "--cache", "seen", "--workers"]
    first = netlens(*line, "1", cwd=tmp_path, env=watched(tmp_path))
    assert (first.returncode, opened(tmp_path)) == (1, files)
    second = netlens(*line, "2", cwd=tmp_path, env=watched(tmp_path))
    assert (second.returncode, second.stdout, second.stderr, opened(tmp_path)) == (1, first.stdout, "", [])

    (data / "val/dog/007.jpg").write_bytes(b"")
    third = netlens(*line, "1", cwd=tmp_path, env=watched(tmp_path))
    assert opened(tmp_path) == ["007.jpg"]
    assert told(third.stdout) == {**told(first.stdout), "file-empty": [["sets/val/dog/007.jpg"]]}


def many(folder: Path, clean: Path, count: int) -> None:
    """Make a folder of `count` pictures, which are the same by name of 24."""
    folder.mkdir()
    sources = sorted((clean / "train").rglob("*.jpg"))
    for number in range(count):
        os.link(sources[number % 24], folder / f"{number:04}.jpg")


def test_ctrl_c_reports_what_was_seen(netlens: Shell, clean: Path, tmp_path: Path) -> None:
    """While the 18th file is opened."""
    many(tmp_path / "data", clean, 60)
    env = watched(tmp_path, CTRL_C_AT="18")
    done = netlens("check-data", "data", "--no-pictures", "--workers", "1", "--format", "json", cwd=tmp_path, env=env)
    assert done.returncode == 130
    assert strict(done.stdout)["report"]["interrupted"] == 17
    assert done.stderr == "interrupted: the report is about what was seen until then\n"
    text = netlens("check-data", "data", "--no-pictures", "--workers", "1", cwd=tmp_path, env=env)
    assert text.returncode == 130 and "INTERRUPTED after 17 files" in text.stdout


def heeding_ctrl_c() -> None:
    """A shell lets what it starts in the background ignore SIGINT, and so do all children of that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups")
def test_ctrl_c_on_a_terminal_reaches_workers_too(netlens: Shell, clean: Path, tmp_path: Path) -> None:
    """Files that take 20 ms each; after the 20th, as a terminal does it: to every process of the group."""
    many(tmp_path / "data", clean, 1000)
    line = ["check-data", "data", "--no-pictures", "--workers", "2", "--format", "json", "--cache", "seen"]
    command, environment = netlens.prepare(*line, env=watched(tmp_path, SLOW="0.02"))
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=heeding_ctrl_c,
    )  # fmt: skip
    end = time.monotonic() + 60
    while len((tmp_path / "opened").read_text().splitlines() if (tmp_path / "opened").exists() else []) < 20 and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == "interrupted: the report is about what was seen until then\n"
    assert 0 <= strict(out)["report"]["interrupted"] < 1000


# -- where it writes -----------------------------------------------------------------------------------------------------------------


def test_nothing_is_written_inside_the_data(netlens: Shell, cli: Cli, faulty: Path, tmp_path: Path) -> None:
    before = state(faulty)
    line = ["check-data", str(faulty / "train"), "--val", str(faulty / "val"), "--fix-list", "bad.csv", "--cache", "seen", "--workers", "2"]
    done = netlens(*line, cwd=tmp_path)
    assert done.returncode == 1
    assert cli(faulty / "labels.csv", "--images", faulty / "train", "--out", "drawn", "--cache", "seen")[0] == 0
    assert state(faulty) == before
    assert {path.name for path in tmp_path.iterdir()} == {"netlens-out", "drawn", "bad.csv", "seen"}


@pytest.mark.parametrize("option", ["--out", "--fix-list", "--cache"])
@pytest.mark.parametrize("way", ["train/x", "train/../train/cat/x", "link/x", "val/x"])
def test_a_place_inside_the_data_is_refused(cli: Cli, clean: Path, option: str, way: str) -> None:
    shutil.copytree(clean, "sets")
    Path("sets/link").symlink_to(Path("sets/train").resolve())
    before = state(Path("sets"))
    with pytest.raises(NetlensError, match=f"{option} .* lies inside the data") as raised:
        cli("sets/train", "--val", "sets/val", option, f"sets/{way}")
    assert raised.value.hint and state(Path("sets")) == before and [path.name for path in Path.cwd().iterdir()] == ["sets"]


def test_the_folder_of_a_tables_pictures_is_data_too(cli: Cli, clean: Path) -> None:
    shutil.copytree(clean, "sets")
    with pytest.raises(NetlensError, match=r"--out .* lies inside the data"):
        cli("sets/labels.csv", "--images", "sets/train", "--out", "sets/train/drawn")


def test_inside_the_data_the_usual_place_of_pictures_is_refused_as_well(
    cli: Cli, clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(clean / "train", "train")
    monkeypatch.chdir(tmp_path / "train")
    with pytest.raises(NetlensError, match="lies inside the data") as raised:
        cli(".")
    assert "--no-pictures" in raised.value.hint
    assert cli(".", "--no-pictures")[0] == 0


def test_pictures_are_written_and_listed(cli: Cli, faulty: Path) -> None:
    """A sheet for each fault, samples of each split, classes; sizes only where there are several."""
    _, out = cli(faulty, "--out", "drawn", "--format", "json")
    names = [
        *("not-an-image", "picture-truncated", "leak-exact", "duplicate-exact"),
        *("samples-train", "samples-val", "classes"),
    ]
    found = strict(out)["report"]["pictures"]
    assert sorted(found) == sorted(f"drawn/check-data-sets-{name}.png" for name in names)
    assert sorted(found) == sorted(str(path) for path in Path("drawn").iterdir())
    for file in found:
        with Image.open(file) as image:
            assert len(image.convert("RGB").reduce(8).getcolors(1 << 24)) > 5
            texts = image.info
        assert texts["Command"] == shlex.join(["netlens", "check-data", str(faulty), "--out", "drawn", "--format", "json"])
        assert texts["Data"] == str(faulty) and texts["Software"].startswith("netlens ")


def test_without_pictures_there_are_none(cli: Cli, faulty: Path) -> None:
    _, out = cli(faulty, "--no-pictures", "--format", "json")
    assert strict(out)["report"]["pictures"] == [] and list(Path.cwd().iterdir()) == []


# -- mistakes ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "error", "hint"),
    [
        ("sets/trian", "DATA 'sets/trian' is no folder", "did you mean .*train"),
        ("sets/train --val sets/vall", "--val 'sets/vall' is no folder", "did you mean .*val"),
        ("sets/train --val sets/labels.csv", "different kinds: folder and table", "two folders"),
        ("sets/train --val sets/train", "lies in|the same", ""),
        ("sets/train --val sets/train/cat", "lies in", ""),
        ("sets/loaders.py", "does not say what of the file", "loaders.py:"),
        ("sets/train/cat/000.jpg", "is one file, and no table", "name a folder"),
        ("sets/train --classes 0", "leaves no class", "number of classes"),
        ("sets/train --classes cat,cat", "no number of classes", "--classes 10"),
        ("sets/train --images sets", "--images is about a table", "leave --images out"),
        ("sets/train --target-rate 100", "--target-rate is about a Dataset", "leave --target-rate out"),
        ("sets/loaders.py:healthy --workers 2", "--workers is about files", "leave --workers out"),
        ("sets/loaders.py:healthy --target-rate nan", "is no rate", "samples per second"),
        ("sets/loaders.py:nobody", "has no 'nobody'", ""),
        ("sets/labels.csv --images sets/train --label-column breed", "breed", ""),
        ("sets/labels.csv --images sets/trian", "sets/trian", "did you mean"),
        ("sets/train --no-pictures --show", "--no-pictures makes none", "leave one"),
        ("sets/train --fix-list taken.txt", "taken.txt is there already", "--overwrite"),
        ("sets/train --fix-list nowhere/bad.txt", "cannot be written", "folder"),
        ("sets/train --cache taken.txt", "not a cache that netlens wrote", "another file"),
        ("sets/train --format yaml", "yaml", ""),
        ("empty", "holds no files", "name the folder"),
        ("texts", "holds no pictures", "pictures end in"),
    ],
)
def test_a_mistake_ends_in_an_error_that_names_it(cli: Cli, clean: Path, line: str, error: str, hint: str) -> None:
    shutil.copytree(clean, "sets")
    Path("taken.txt").write_text("mine")
    Path("empty").mkdir()
    Path("texts").mkdir()
    Path("texts/a.txt").write_text("a")
    before = state(Path("sets"))
    pictures = [] if "pictures" in line else ["--out", "drawn"]
    with pytest.raises(NetlensError, match=error) as raised:
        cli(*line.split(), *pictures)
    assert raised.value.hint and "\n" not in raised.value.message + raised.value.hint
    assert hint == "" or re.search(hint, raised.value.hint)
    assert Path("taken.txt").read_text() == "mine" and not Path("drawn").exists()
    assert [each for each in state(Path("sets")) if "__pycache__" not in each[0]][1:] == before[1:]


def test_mistakes_are_two_lines_in_a_shell(netlens: Shell, clean: Path, tmp_path: Path) -> None:
    done = netlens("check-data", str(clean / "trian"), cwd=tmp_path)
    first, second = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "") and first.startswith("error: ") and second.startswith("hint: ")
    assert torch_free(done.modules)


def test_defaults_of_the_repository_are_taken(cli: Cli, faulty: Path) -> None:
    Path(".git").mkdir()
    Path("pyproject.toml").write_text('[tool.netlens]\nfail-on = "never"\nformat = "json"\nout = "drawn"\ndevice = "cpu"')
    code, out = cli(faulty)
    assert code == 0 and "leak-exact" in told(out) and Path("drawn").is_dir()
    assert cli(faulty, "--fail-on", "error", "--no-pictures")[0] == 1
