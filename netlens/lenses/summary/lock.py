"""The lock file `netlens.lock.json`: what the models of a repository looked like when somebody last agreed to it.

One file holds many models. It is JSON with one layer a line, so that a text diff is readable, and the same models always give
the same bytes. It is replaced as a whole: whoever reads it sees the old or the new file, never half of one. What is *not*
guaranteed: of two processes that write at the same time, the later one may drop the entry that the earlier one added.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from netlens.errors import FileProblem, UsageError
from netlens.findings import Finding, Severity
from netlens.lenses.summary.lock_entry import LEVELS, Entry, differences, entry_of, from_json, to_json
from netlens.lenses.summary.report import SummaryReport
from netlens.lenses.summary.wording import listed

SCHEMA = "netlens.lock/1"
LARGEST = 256 * 2**20  # bytes; the lock of a model of 10,000 layers takes one megabyte
FOREIGN_HINT = "netlens only overwrites its own lock files: choose another name for --lock, or move that file away"
DAMAGED_HINT = "restore it from version control, or delete it and let netlens write it anew"


@dataclass(frozen=True, slots=True)
class LockOutcome:
    """What came of the comparison."""

    findings: tuple[Finding, ...]
    note: str  # what was written, for the user to read; "" where nothing was
    wrote: bool


def in_ci(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this runs in continuous integration: CI is set, and not to "", "0" or "false"."""
    return environ.get("CI", "").strip().lower() not in ("", "0", "false")


def parse_level(text: str) -> str:
    """Check the value of `--lock-level`."""
    if text not in LEVELS:
        raise UsageError(
            f"--lock-level {text!r} is not a level", hint=f"one of {', '.join(LEVELS)}; each compares more than the one before"
        )
    return text


def model_key(model: str, model_args: Sequence[str] = (), inputs: Sequence[str] = ()) -> str:
    """Return the name of a model in the lock file: as one would type it, with its arguments sorted."""
    words = [model]
    words += [word for argument in sorted(model_args) for word in ("--model-arg", argument)]
    words += [word for text in inputs for word in ("--input", "".join(text.split()))]
    return shlex.join(words)


def compare_with_lock(
    report: SummaryReport, path: Path, key: str, *, level: str = "layers", update: bool = False, ci: bool | None = None
) -> LockOutcome:
    """Compare a report with the entry `key` of a lock file, or write the entry.

    An entry that does not exist is written, but not in continuous integration (`ci`; None asks the environment), where it is an
    error. An entry that differs is an error; with `update` it is rewritten, everywhere, and the differences are information.

    Raises:
        FileProblem: the file cannot be read or written, or is not a lock file.
    """
    ci = in_ci() if ci is None else ci
    models = read_lock(path)
    stored = models.get(key)
    if report.failure:
        return _refused(path, stored is None)
    new = entry_of(report)
    if stored is None and ci and not update:
        return LockOutcome((_missing(path, key, models),), "", wrote=False)
    findings = () if stored is None else _compare(path, key, stored, report, new, level, update)
    if stored is not None and not update:
        return LockOutcome(findings, "", wrote=False)
    if stored == to_json(new):
        return LockOutcome(findings, f"{path} is up to date", wrote=False)
    write_lock(path, {**models, key: to_json(new)})
    done = f"wrote {path}: {'added' if stored is None else 'updated'} {key}"
    return LockOutcome(findings, done if new.output is not None else f"{done} (parameters only: it was not run)", wrote=True)


def _compare(path: Path, key: str, stored: object, report: SummaryReport, new: Entry, level: str, update: bool) -> tuple[Finding, ...]:
    severity = Severity.INFO if update else Severity.ERROR
    try:
        old = from_json(stored, level)
    except ValueError as error:
        if update:
            return (Finding("lock-differs", severity, str(path), f"the entry {key!r} was damaged ({error}) and is replaced"),)
        raise FileProblem(
            f"the entry {key!r} of {path} was changed by hand or by a merge: {error}", hint="run again with --update-lock to write it anew"
        ) from error
    return differences(old, new, level, severity, [layer.path for layer in report.layers])


def _refused(path: Path, missing: bool) -> LockOutcome:
    """A model whose forward raises has no shapes to lock or to compare."""
    message = "the forward pass failed, so the model can be neither compared with its lock nor locked"
    code = "lock-missing" if missing else "lock-differs"
    return LockOutcome((Finding(code, Severity.ERROR, str(path), message, remedy="make the forward pass run first"),), "", wrote=False)


def _missing(path: Path, key: str, models: Mapping[str, object]) -> Finding:
    known = f"it has {listed(sorted(models))}" if models else "there is no such file, or it is empty"
    return Finding(
        "lock-missing",
        Severity.ERROR,
        str(path),
        f"no lock for {key!r}, and in CI none is written",
        measured=known,
        threshold=key,
        remedy="run the same command outside CI, or with --update-lock, and commit the file",
    )


def read_lock(path: Path) -> dict[str, object]:
    """Return the entries of a lock file by key, unchecked; {} where there is no file.

    Raises:
        FileProblem: it cannot be read, or is not a lock file that this version understands.
    """
    text = _read(path)
    if text is None:
        return {}
    document = _document(path, text)
    schema, models = document.get("schema"), document.get("models")
    if not (isinstance(schema, str) and schema.startswith("netlens.lock/")):
        raise FileProblem(f"{path} is not a lock file of netlens", hint=FOREIGN_HINT)
    if schema != SCHEMA:
        raise FileProblem(
            f"{path} was written by another version of netlens ({schema})", hint="install the netlens that wrote it, or a newer one"
        )
    if not isinstance(models, dict):
        raise FileProblem(f"{path} is damaged: it has no table of models", hint=DAMAGED_HINT)
    return models


def _read(path: Path) -> str | None:
    try:
        if not path.exists():
            if path.is_symlink():
                raise FileProblem(f"{path} is a link to a file that does not exist", hint="make the file, or remove the link")
            return None
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise FileProblem(f"{path} is {kind}", hint="--lock takes the name of a file, for example netlens.lock.json")
        if status.st_size > LARGEST:
            raise FileProblem(f"{path} is not a lock file of netlens: it has {status.st_size:,} bytes", hint=FOREIGN_HINT)
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise FileProblem(f"{path} cannot be read: {error.strerror}", hint="check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise FileProblem(f"{path} is not a lock file of netlens: it is not text", hint=FOREIGN_HINT) from error


def _document(path: Path, text: str) -> dict[str, object]:
    try:
        document = json.loads(text, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        if any(line.startswith("<<<<<<< ") for line in text.splitlines()):
            hint = "resolve the merge conflict with either side, then run again with --update-lock"
            raise FileProblem(f"{path} has merge conflict markers", hint=hint) from error
        if SCHEMA.partition("/")[0] not in text:
            raise FileProblem(f"{path} is not a lock file of netlens", hint=FOREIGN_HINT) from error
        raise FileProblem(f"{path} is a damaged lock file: {error}", hint=DAMAGED_HINT) from error
    if not isinstance(document, dict):
        raise FileProblem(f"{path} is not a lock file of netlens", hint=FOREIGN_HINT)
    return document


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name stands twice, as after a merge")
    return table


def write_lock(path: Path, models: Mapping[str, object]) -> None:
    """Replace the lock file by one with these entries; a link stays a link, and the file that it points to is replaced.

    Raises:
        FileProblem: the folder is missing, or something may not be written.
    """
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(0, "it is write-protected")
        _write_through(temporary, to_text(models), target.stat().st_mode if target.exists() else None)
        temporary.replace(target)
    except OSError as error:
        reason = "the folder does not exist" if not target.parent.is_dir() else error.strerror or str(error)
        raise FileProblem(
            f"{path} cannot be written: {reason}", hint="check the folder and its permissions, or choose another --lock"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _write_through(path: Path, text: str, mode: int | None) -> None:
    with path.open("x", encoding="ascii", newline="\n") as file:  # "x" keeps to the umask, which mkstemp does not
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if mode is not None:
        path.chmod(stat.S_IMODE(mode))


def to_text(models: Mapping[str, object]) -> str:
    """Return the file's text: models sorted, and one line for each element of a list."""
    entries = [f"    {json.dumps(key)}: {_entry_text(models[key])}" for key in sorted(models)]
    body = "{\n" + ",\n".join(entries) + "\n  }" if entries else "{}"
    return f'{{\n  "schema": {json.dumps(SCHEMA)},\n  "models": {body}\n}}\n'


def _entry_text(entry: object) -> str:
    if not isinstance(entry, dict):
        return json.dumps(entry)
    lines = [f"      {json.dumps(name)}: {_value_text(value)}" for name, value in entry.items()]
    return "{\n" + ",\n".join(lines) + "\n    }"


def _value_text(value: object) -> str:
    if not isinstance(value, list) or not value:
        return json.dumps(value)
    return "[\n" + ",\n".join(f"        {json.dumps(element)}" for element in value) + "\n      ]"
