"""One request: what the command line and the configuration file ask of the check-data lens, checked, and how it is answered."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlens.cli import console
from netlens.cli.config import with_defaults
from netlens.cli.emit import Renderers, emit
from netlens.cli.files import one_line, write
from netlens.cli.options import FailLevel, ReportFormat
from netlens.cli.provenance import Labelled, check_show, pictures_named
from netlens.errors import FileProblem, UsageError
from netlens.lenses.check_data.doors import Door, door_of
from netlens.lenses.check_data.report import CheckDataReport
from netlens.loading.asked import AskedModel
from netlens.loading.device import parse_compute_device
from netlens.loading.words import user_path

if TYPE_CHECKING:
    from netlens.cli.pictures import Pictures
    from netlens.lenses.check_data.fix_list import FixList
    from netlens.lenses.check_data.found import Found

FROM_CONFIG = ("format", "fail_on", "seed", "out", "show", "device")
SETS = {"data": "train", "val": "val", "test": "test"}  # options that name a set, and what it is called beside others
SUBJECT = ("data", "val", "test", "classes", "images", "path_column", "label_column", "samples", "target_rate", "model", "seed")
ONLY = {
    "table": ("images", "path_column", "label_column"),
    "loader": ("samples", "target_rate", "model", "model_arg", "device"),
    "files": ("workers", "cache", "fix_list"),
}
NEEDS = {"table": "a table of labels", "loader": "a Dataset or a DataLoader", "files": "files"}


@dataclass(frozen=True, slots=True)
class Request:
    """Everything is checked that can be checked without torch."""

    sets: tuple[tuple[str, Door], ...]  # by name; "" where there is only one
    classes: int | tuple[str, ...] | None
    asked: Mapping[str, Any]
    model: AskedModel | None  # that eats what a loader gives

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Request:
        """Check what is asked.

        Raises:
            NetlensError: any of it cannot be.
        """
        named = [(SETS[option], door_of(asked[option], f"--{option}")) for option in SETS if asked.get(option) is not None]
        kinds = {door.kind for _, door in named}
        if len(kinds) > 1:
            raise UsageError(
                "the sets are of different kinds: " + " and ".join(sorted(kinds)), hint="name two folders, two tables or two loaders"
            )
        _check_options(asked, named[0][1].kind)
        rate = asked.get("target_rate")
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            raise UsageError(f"--target-rate {rate:g} is no rate", hint="give samples per second, for example 1200")
        if rate is not None and asked.get("model"):
            raise UsageError("--target-rate and --model both say what training eats", hint="leave one of them out")
        if asked.get("device") is not None:
            parse_compute_device(asked["device"], "check-data")
        return cls(
            sets=tuple(named) if len(named) > 1 else (("", named[0][1]),),
            classes=classes_of(asked.get("classes")),
            asked=asked,
            model=AskedModel.of(asked, "check-data") if asked.get("model") else None,
        )

    @property
    def kind(self) -> str:
        """What all sets are: "folder", "table" or "loader"."""
        return self.sets[0][1].kind

    @property
    def title(self) -> str:
        """What the user called the data."""
        return str(self.asked["data"])

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders into which nothing is written, for they are the user's data."""
        images = [self.asked["images"]] if self.asked.get("images") else []
        return tuple(str(door.path) for _, door in self.sets if door.kind == "folder") + tuple(images)


def _check_options(asked: Mapping[str, Any], kind: str) -> None:
    given = {name for name, value in asked.items() if value not in (None, False)}
    for needed, names in ONLY.items():
        fits = kind == needed or (needed == "files" and kind != "loader")
        wrong = [name for name in names if name in given and not fits and name != "device"]  # a device may come from the configuration
        if wrong:
            option = "--" + wrong[0].replace("_", "-")
            raise UsageError(f"{option} is about {NEEDS[needed]}, and DATA is a {kind}", hint=f"leave {option} out")
    if "model_arg" in given and "model" not in given:
        raise UsageError("--model-arg has no model to go to", hint="add --model MODEL, or leave it out")


def classes_of(text: str | None) -> int | tuple[str, ...] | None:
    """Read `--classes`: a number, names with commas between them, a file of names, or a folder with one for each.

    Raises:
        NetlensError: it is none of these.
    """
    if text is None:
        return None
    if text.strip().isdecimal():
        if (count := int(text)) < 1:
            raise UsageError("--classes 0 leaves no class", hint="give the number of classes, for example 10")
        return count
    file = bool(text.strip()) and os.path.lexists(user_path(text))
    names = _names_in(text) if file else tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names) or (len(names) < 2 and not file):
        wrong, do = "is no number of classes, no list of names and no file", "for example --classes 10 or --classes cat,dog"
        if file:
            wrong, do = "has a name that is empty or stands there twice", "give each class a line of its own"
        raise UsageError(f"--classes {one_line(text)!r} {wrong}", hint=do)
    return names


def _names_in(file: str) -> tuple[str, ...]:
    from netlens.loading.class_names import read_names

    try:
        return read_names(file).names
    except FileProblem as problem:  # which names the option of other commands
        raise FileProblem(problem.message.replace("--names", "--classes", 1), hint=problem.hint) from problem


def run(asked: Mapping[str, Any]) -> int:
    """Answer one command line on stdout, and return the exit code.

    Raises:
        NetlensError: something the user must change.
    """
    check_show(asked)
    asked = with_defaults(asked, FROM_CONFIG)
    request = Request.of(asked)
    folder, fix_list = _places(request)
    found = _loaders(request) if request.kind == "loader" else _files(request)
    if found is None:  # another process reports
        return 0
    report, problem = (found.report, None) if folder is None else _drawn(request, found, folder)
    form = ReportFormat(asked.get("format") or "table")
    code = _emit(request, report, form, FailLevel(asked.get("fail_on") or "error"))
    if folder is not None:
        folder.finish(form)
    if fix_list is not None:
        write(fix_list.path, fix_list.content(report.issues), fix_list.check, "choose another file: --fix-list FILE")
        console.note(one_line(fix_list.told(report.issues)))
    if problem is not None:
        raise problem
    if report.interrupted is not None:
        console.note("interrupted: the report is about what was seen until then")
        return 130
    return code


def _places(request: Request) -> tuple[Pictures | None, FixList | None]:
    """Check everything that will be written, before anything is read."""
    from netlens.lenses.check_data.fix_list import FixList, outside

    asked = request.asked
    for option in ("fix_list", "cache"):
        if asked.get(option) is not None:
            outside(user_path(asked[option]), request.folders, "--" + option.replace("_", "-"))
    folder = pictures_named("check-data", _stem(request), asked, {"Data": request.title, "Seed": str(asked.get("seed") or 0)})
    if folder is not None:
        outside(folder.out, request.folders, "--out")
    if asked.get("fix_list") is None:
        return folder, None
    fix_list = FixList(user_path(asked["fix_list"]), bool(asked.get("overwrite")))
    fix_list.check(fix_list.path)
    return folder, fix_list


def _stem(request: Request) -> str:
    door = request.sets[0][1]
    return door.name if door.path is None else door.path.resolve().name


def _files(request: Request) -> Found | None:
    from netlens.lenses.check_data.run import checked_files

    # torchrun starts the same command several times: one bar is enough
    quiet = os.environ.get("RANK", "0") != "0"
    with console.counting("reading", "files", quiet=quiet) as progress:
        found = checked_files(request, progress)
    if found is not None and console.is_terminal(sys.stderr):
        console.note(found.pace)
    return found


def _loaders(request: Request) -> Found | None:
    if os.environ.get("RANK", "0") != "0":  # each process would look at the same loader
        return None
    from netlens.cli.lean import import_torch

    import_torch()
    from netlens.lenses.check_data.run_loaders import checked_loaders

    with console.download("fetching weights") as progress, console.progress("reading") as step:
        return checked_loaders(request, progress, step)


def _drawn(request: Request, found: Found, folder: Pictures) -> tuple[CheckDataReport, FileProblem | None]:
    """Draw the pictures; what ends that, a full disk for example, does not take with it what hours of reading found."""
    from netlens.lenses.check_data.album import draw
    from netlens.lenses.check_data.fix_list import apart

    seed, pictures, problem = int(request.asked.get("seed") or 0), list[str](), None
    with console.progress("drawing") as step:
        try:
            if found.listing is not None:
                apart(folder.out, found.listing.paths)
            pictures.extend(draw(found.report, found.listing, found.shown, Labelled(folder, {}), step, title=request.title, seed=seed))
        except FileProblem as error:
            problem = error
    return replace(found.report, pictures=tuple(pictures)), problem


def _emit(request: Request, report: CheckDataReport, form: ReportFormat, fail_on: FailLevel) -> int:
    import netlens.lenses.check_data.show as show
    from netlens.lenses.check_data.rules import diagnose

    subject = {name: str(value) if isinstance(value, Path) else value for name, value in request.asked.items() if name in SUBJECT}
    return emit(
        report,
        diagnose(report),
        lens="check-data",
        subject={"model": request.title, **subject, "file": None},
        format=form,
        fail_on=fail_on,
        renderers=Renderers(
            table=lambda width: show.table(report, width, title=request.title),
            markdown=lambda: show.as_markdown(report, title=request.title),
        ),
    )
