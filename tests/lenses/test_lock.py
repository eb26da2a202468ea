"""The lock file: what is written, what is a difference, and what is never overwritten."""

from __future__ import annotations

import json
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from netlens.errors import FileProblem, UsageError
from netlens.findings import Finding, Severity
from netlens.lenses.summary.lock import LockOutcome, compare_with_lock, in_ci, model_key, parse_level, read_lock
from netlens.lenses.summary.report import Run, SummaryReport
from tests.reports import TINY, TINY_LAYERS, TINY_WEIGHTS, call, changed, failed, layer, leaf, report, weight, without_run

KEY = "nets.py:Tiny --input 1,1,4,4"

# The whole file, written by hand from the numbers in tests/reports.py; the digests are compared on their own.
TINY_FILE = """\
{
  "schema": "netlens.lock/1",
  "models": {
    "nets.py:Tiny --input 1,1,4,4": {
      "input": [
        "1,1,4,4:float32"
      ],
      "output": [
        "1,3:float32"
      ],
      "parameters": {"total": 51, "trainable": 51, "buffers": 5},
      "dtypes": {"float32": 55, "int64": 1},
      "digests": DIGESTS,
      "layers": [
        {"path": "", "type": "Tiny", "output": ["1,3"], "parameters": 0},
        {"path": "bn", "type": "BatchNorm2d", "output": ["1,2,2,2"], "parameters": 4},
        {"path": "conv", "type": "Conv2d", "output": ["1,2,2,2"], "parameters": 20},
        {"path": "fc", "type": "Linear", "output": ["1,3"], "parameters": 27}
      ]
    }
  }
}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the lock file of a test is, or will be."""
    return tmp_path / "netlens.lock.json"


def compare(subject: SummaryReport, path: Path, key: str = KEY, *, ci: bool = False, **options: Any) -> LockOutcome:
    """Compare outside CI unless told, whatever the environment of the test run is."""
    return compare_with_lock(subject, path, key, ci=ci, **options)


def against_tiny(subject: SummaryReport, path: Path, **options: Any) -> tuple[Finding, ...]:
    """Lock Tiny, then compare another report with it, as CI does."""
    assert compare(TINY, path).wrote
    before = path.read_bytes()
    outcome = compare(subject, path, ci=True, **options)
    assert not outcome.wrote and path.read_bytes() == before
    return outcome.findings


# --- the file ---------------------------------------------------------------------------------------------------------------


def test_the_file_has_one_layer_a_line_and_is_what_we_wrote_by_hand(path: Path) -> None:
    outcome = compare(TINY, path)
    assert outcome.wrote and outcome.findings == () and str(path) in outcome.note
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    (digests,) = [number for number, line in enumerate(lines) if '"digests"' in line]
    lines[digests] = '      "digests": DIGESTS,\n'
    assert "".join(lines) == TINY_FILE
    stored = json.loads(path.read_bytes())["models"][KEY]["digests"]
    assert list(stored) == ["output", "params", "layers"] and len(set(stored.values())) == 3


def test_equal_reports_give_equal_bytes_whatever_was_written_before(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    for key in ("b", "a", "c"):
        compare(TINY, path, key)
    for key in ("c", "b", "a"):
        compare(TINY, other, key)
    assert path.read_bytes() == other.read_bytes()
    assert list(json.loads(path.read_bytes())["models"]) == ["a", "b", "c"]


def test_what_changes_without_the_model_is_no_difference(path: Path) -> None:
    """Multiply-adds, bytes, times, where it ran and what was noted are not in the lock."""
    rows = tuple(replace(row, macs=row.macs + 7, saved_bytes=9, seconds=0.5, detail="new words") for row in TINY_LAYERS)
    subject = report(layers=rows, run=Run("cpu", "eval", "meta failed"), notes=("a note",), input_source="the first layer")
    assert against_tiny(subject, path) == ()


def test_a_tied_tensor_counts_once_in_the_dtypes(path: Path) -> None:
    compare(report(weights=(*TINY_WEIGHTS, weight("head.weight", 3, 8, tied_to="fc.weight"))), path)
    assert json.loads(path.read_bytes())["models"][KEY]["dtypes"] == {"float32": 55, "int64": 1}


def test_calls_are_counted_so_a_shared_layer_that_runs_less_often_is_a_difference(path: Path) -> None:
    twelve = report(layers=changed("fc", calls=(call((1, 8), (1, 3), times=12),)))
    compare(twelve, path)
    assert json.loads(path.read_bytes())["models"][KEY]["layers"][3]["output"] == ["1,3 x12"]
    (finding,) = compare(report(layers=changed("fc", calls=(call((1, 8), (1, 3), times=6),))), path).findings
    assert (finding.where, finding.measured, finding.threshold) == ("fc", "1,3 x6", "1,3 x12")


def test_names_of_any_alphabet_survive(path: Path) -> None:
    odd = report(layers=(*TINY_LAYERS, layer('schicht "ö"\n\ud800', "Модель")))
    compare(odd, path, "modèle")
    assert path.read_bytes().isascii()
    assert compare(odd, path, "modèle", ci=True).findings == ()


# --- when it is written -----------------------------------------------------------------------------------------------------


def test_in_ci_a_missing_lock_is_an_error_and_nothing_is_written(path: Path) -> None:
    outcome = compare(TINY, path, ci=True)
    (finding,) = outcome.findings
    assert (finding.code, finding.severity, outcome.wrote) == ("lock-missing", Severity.ERROR, False)
    assert list(path.parent.iterdir()) == []


def test_in_ci_a_missing_entry_is_an_error_that_lists_the_others(path: Path) -> None:
    (finding,) = against_tiny(TINY, path, key="nets.py:Tiny --input 2,1,4,4")
    assert finding.code == "lock-missing"
    assert KEY in finding.measured and "2,1,4,4" in finding.message


def test_outside_ci_a_missing_entry_is_added_and_the_others_stay(path: Path) -> None:
    compare(TINY, path)
    first = json.loads(path.read_bytes())["models"][KEY]
    assert compare(without_run(), path, "other").wrote
    models = json.loads(path.read_bytes())["models"]
    assert models[KEY] == first and models["other"]["output"] is None


def test_update_rewrites_and_gives_the_same_differences_as_information(path: Path) -> None:
    subject = report(layers=changed("fc", parameters=54, type="Head"), outputs=(leaf(1, 6),))
    errors = against_tiny(subject, path)
    outcome = compare(subject, path, ci=True, update=True)
    assert outcome.wrote
    assert [(finding.message, finding.severity) for finding in outcome.findings] == [(finding.message, Severity.INFO) for finding in errors]
    assert compare(subject, path, ci=True).findings == ()


def test_update_writes_a_missing_lock_in_ci_too_because_it_was_asked_to(path: Path) -> None:
    outcome = compare(TINY, path, ci=True, update=True)
    assert outcome.wrote and outcome.findings == ()


def test_update_of_an_equal_model_writes_nothing(path: Path) -> None:
    compare(TINY, path)
    os.utime(path, (1, 1))
    outcome = compare(TINY, path, update=True)
    assert not outcome.wrote and "up to date" in outcome.note
    assert path.stat().st_mtime == 1


def test_update_of_another_level_still_writes_every_level(path: Path) -> None:
    compare(TINY, path)
    subject = report(layers=changed("fc", type="Head"))
    assert compare(subject, path, update=True, level="output").wrote
    assert compare(subject, path, ci=True, level="layers").findings == ()


@pytest.mark.parametrize("update", [False, True])
def test_a_model_that_fails_is_neither_locked_nor_passed(path: Path, update: bool) -> None:
    outcome = compare(failed(), path, update=update)
    assert [finding.severity for finding in outcome.findings] == [Severity.ERROR]
    assert not path.exists()
    (finding,) = against_tiny(failed(), path, update=update)
    assert (finding.code, finding.severity) == ("lock-differs", Severity.ERROR)


@pytest.mark.parametrize(
    ("value", "expected"), [("true", True), ("1", True), ("yes", True), ("", False), ("0", False), ("false", False), ("False", False)]
)
def test_ci_is_told_by_its_variable(value: str, expected: bool, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    assert in_ci({"CI": value}) is expected
    monkeypatch.setenv("CI", value)
    compare_with_lock(TINY, path, KEY)
    assert path.exists() is not expected


def test_without_its_variable_it_is_not_ci() -> None:
    assert in_ci({}) is False


# --- differences ------------------------------------------------------------------------------------------------------------


def test_an_equal_model_has_no_difference_at_any_level(path: Path) -> None:
    for level in ("output", "params", "layers"):
        assert against_tiny(TINY, path, level=level) == ()
        path.unlink()


@pytest.mark.parametrize(
    ("subject", "output", "params", "layers"),
    [
        (report(outputs=(leaf(1, 4),)), 1, 1, 1),
        (report(outputs=(leaf(1, 3, dtype="float16"),)), 1, 1, 1),
        (report(inputs=(leaf(1, 1, 8, 8),)), 1, 1, 1),
        (report(totals=replace(TINY.totals, trainable=27)), 0, 1, 1),
        (report(totals=replace(TINY.totals, buffers=6)), 0, 1, 1),
        (report(weights=tuple(replace(row, dtype="float16") for row in TINY_WEIGHTS)), 0, 1, 1),
        (report(layers=changed("fc", type="Head")), 0, 0, 1),
        (report(layers=TINY_LAYERS[:3], totals=TINY.totals), 0, 0, 1),
        (report(layers=changed("fc", calls=())), 0, 0, 1),
    ],
)
def test_each_level_compares_more_than_the_one_before(path: Path, subject: SummaryReport, output: int, params: int, layers: int) -> None:
    for level, number in (("output", output), ("params", params), ("layers", layers)):
        found = against_tiny(subject, path, level=level)
        assert [(finding.code, finding.severity) for finding in found] == [("lock-differs", Severity.ERROR)] * number, level
        path.unlink()


def test_a_wider_layer_names_the_change_of_parameters_and_the_first_layer_that_changed_shape(path: Path) -> None:
    """fc becomes Linear(8, 6): 54 parameters, 27 more; the model's own output changes only because of it."""
    rows = list(changed("fc", parameters=54, trainable=54, calls=(call((1, 8), (1, 6)),)))
    rows[0] = replace(rows[0], calls=(call((1, 1, 4, 4), (1, 6)),))
    output, totals, size, shape = against_tiny(report(layers=tuple(rows), outputs=(leaf(1, 6),)), path)
    assert (output.where, output.measured, output.threshold) == ("output", "1,6:float32", "1,3:float32")
    assert "+27 parameters" in totals.message and "78 parameters" in totals.measured and "51 parameters" in totals.threshold
    assert (size.where, size.measured, size.threshold) == ("fc", "54 parameters", "27")
    assert (shape.where, shape.measured, shape.threshold) == ("fc", "1,6", "1,3")
    assert shape.message.startswith("1 layer changed output shape")
    assert all("--update-lock" in finding.remedy for finding in (output, totals, size, shape))


def test_the_first_layer_that_changed_shape_is_first_in_order_of_definition_not_of_the_alphabet(path: Path) -> None:
    """conv is defined before bn; both change."""
    rows = tuple(replace(row, calls=(call((1, 1, 5, 5), (1, 2, 3, 3)),)) if row.path in ("conv", "bn") else row for row in TINY_LAYERS)
    (finding,) = against_tiny(report(layers=rows), path)
    assert finding.where == "conv"
    assert "first: conv 1,2,2,2 -> 1,2,3,3, bn" in finding.message


def test_a_new_block_is_one_name_and_a_renamed_one_is_new_and_gone(path: Path) -> None:
    block = (layer("neck", "Sequential"), layer("neck.0", "Linear", parameters=6), layer("neck.1", "ReLU"))
    (finding,) = against_tiny(report(layers=(*TINY_LAYERS, *block), totals=TINY.totals), path)
    assert finding.message == "3 layers (6 parameters) are new: neck Sequential"
    path.unlink()
    renamed = report(layers=(*TINY_LAYERS[:3], replace(TINY_LAYERS[3], path="head")))
    new, gone = against_tiny(renamed, path)
    assert (new.where, new.message) == ("head", "1 layer (27 parameters) is new: head Linear")
    assert (gone.where, gone.message) == ("fc", "1 layer (27 parameters) is gone: fc Linear")


def test_many_differences_of_a_kind_are_one_finding_with_ten_names(path: Path) -> None:
    more = tuple(layer(f"x{number}", "Linear", parameters=1) for number in range(24))
    (finding,) = against_tiny(report(layers=(*TINY_LAYERS, *more), totals=TINY.totals), path)
    assert finding.message.startswith("24 layers (24 parameters) are new: x0 Linear, x1 Linear")
    assert finding.message.endswith("x9 Linear and 14 more")


def test_a_model_that_cannot_be_run_any_more_differs(path: Path) -> None:
    found = against_tiny(without_run(), path)
    assert found[0].where == "output" and "not run" in found[0].message


# --- files that are not for netlens to change -------------------------------------------------------------------------------

BROKEN = {
    "empty": "",
    "not JSON": "hello",
    "half": TINY_FILE[:200],
    "a list": "[]",
    "another tool's": '{"lockfileVersion": 3, "packages": {}}',
    "another schema": '{"schema": "other/1", "models": {}}',
    "a schema that is no text": '{"schema": 1, "models": {}}',
    "a newer schema": '{"schema": "netlens.lock/2", "models": {}}',
    "no models": '{"schema": "netlens.lock/1"}',
    "models that are a list": '{"schema": "netlens.lock/1", "models": []}',
    "a name twice": '{"schema": "netlens.lock/1", "models": {"a": {}, "a": {}}}',
    "very deep": "[" * 100_000,
    "merge conflict": '{\n<<<<<<< HEAD\n  "schema": "netlens.lock/1"\n=======\n>>>>>>> b\n}',
    "binary": "\0\1\2",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("update", [False, True])
def test_what_is_not_a_lock_file_is_refused_and_stays_as_it_is(path: Path, content: str, update: bool) -> None:
    path.write_text(content, encoding="utf-8")
    with pytest.raises(FileProblem) as caught:
        compare(TINY, path, update=update)
    assert str(path) in caught.value.message and caught.value.hint
    assert path.read_text(encoding="utf-8") == content
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_not_text_is_refused(path: Path) -> None:
    path.write_bytes(b"\x80\x02\xff")
    with pytest.raises(FileProblem, match="not text"):
        compare(TINY, path, update=True)


def test_a_merge_conflict_and_a_newer_version_say_what_to_do(path: Path) -> None:
    path.write_text(BROKEN["merge conflict"])
    with pytest.raises(FileProblem) as conflict:
        read_lock(path)
    assert "merge conflict" in conflict.value.message and "--update-lock" in conflict.value.hint
    path.write_text(BROKEN["a newer schema"])
    with pytest.raises(FileProblem) as newer:
        read_lock(path)
    assert "netlens.lock/2" in newer.value.message and "newer" in newer.value.hint


ENTRY_FAULTS = {
    "not a table": 3,
    "empty": {},
    "layers of the wrong type": {"layers": 3},
    "a row of the wrong type": {"layers": [3]},
    "a row without a path": {"layers": [{"type": "Tiny", "output": [], "parameters": 0}]},
    "an edited number": {"parameters": {"total": 52, "trainable": 51, "buffers": 5}},
    "no digest": {"digests": {}},
    "texts for numbers": {"dtypes": {"float32": "55"}},
}


@pytest.mark.parametrize("fault", ENTRY_FAULTS.values(), ids=ENTRY_FAULTS.keys())
def test_an_entry_that_was_edited_is_refused_and_update_replaces_it(path: Path, fault: object) -> None:
    compare(TINY, path, "other")
    compare(TINY, path)
    document = json.loads(path.read_bytes())
    document["models"][KEY] = {**document["models"][KEY], **fault} if isinstance(fault, dict) and fault else fault
    path.write_text(json.dumps(document))
    with pytest.raises(FileProblem) as caught:
        compare(TINY, path, ci=True)
    assert KEY in caught.value.message and "--update-lock" in caught.value.hint
    assert compare(TINY, path, "other", ci=True).findings == ()  # the neighbour is not concerned
    outcome = compare(TINY, path, update=True)
    assert outcome.wrote and [finding.severity for finding in outcome.findings] == [Severity.INFO]
    assert compare(TINY, path, ci=True).findings == ()


def test_line_ends_and_a_byte_order_mark_of_an_editor_do_no_harm(path: Path) -> None:
    compare(TINY, path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert compare(TINY, path, ci=True).findings == ()


def test_fields_of_a_later_version_of_the_same_schema_survive_in_other_entries(path: Path) -> None:
    compare(TINY, path, "other")
    document = json.loads(path.read_bytes())
    document["models"]["other"]["macs"] = [96]
    path.write_text(json.dumps(document))
    compare(TINY, path)
    assert json.loads(path.read_bytes())["models"]["other"]["macs"] == [96]
    assert compare(TINY, path, "other", ci=True).findings == ()


def test_a_folder_a_missing_folder_and_a_file_as_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for bad in (tmp_path, tmp_path / "no" / "lock.json", tmp_path / "file" / "lock.json"):
        with pytest.raises(FileProblem) as caught:
            compare(TINY, bad)
        assert caught.value.hint
    assert [child.name for child in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_refused_at_once(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(FileProblem, match="not a regular file"):
        compare(TINY, path)


def test_a_link_stays_a_link_and_its_file_is_written(path: Path, tmp_path: Path) -> None:
    real = tmp_path / "shared" / "real.json"
    real.parent.mkdir()
    compare(TINY, real)
    path.symlink_to(real)
    subject = report(outputs=(leaf(1, 4),))
    assert compare(subject, path, update=True).wrote
    assert path.is_symlink() and compare(subject, real, ci=True).findings == ()


def test_a_link_to_nowhere_or_to_itself_is_refused(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileProblem, match="link"):
        compare(TINY, path)
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(FileProblem):
        compare(TINY, path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anything")
def test_a_write_protected_file_and_folder_are_refused(path: Path) -> None:
    compare(TINY, path)
    path.chmod(0o444)
    with pytest.raises(FileProblem, match="write-protected"):
        compare(report(outputs=(leaf(1, 4),)), path, update=True)
    path.parent.chmod(0o555)
    try:
        with pytest.raises(FileProblem):
            compare(TINY, path.with_name("new.json"))
    finally:
        path.parent.chmod(0o755)


def test_a_write_that_fails_leaves_the_old_file_and_no_scraps(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(TINY, path)
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileProblem, match="No space left"):
        compare(report(outputs=(leaf(1, 4),)), path, update=True)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_a_new_file_follows_the_umask_and_a_rewritten_one_keeps_its_mode(path: Path) -> None:
    previous = os.umask(0o027)
    try:
        compare(TINY, path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o664)
        compare(report(outputs=(leaf(1, 4),)), path, update=True)
        assert stat.S_IMODE(path.stat().st_mode) == 0o664
    finally:
        os.umask(previous)


def test_writers_at_the_same_time_always_leave_a_whole_file(path: Path) -> None:
    compare(TINY, path)
    wrong: list[BaseException] = []

    def write(name: str) -> None:
        try:
            for number in range(20):
                compare(TINY, path, f"{name}{number}")
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert json.loads(path.read_bytes())["schema"] == "netlens.lock/1"
    for thread in threads:
        thread.join()
    assert wrong == []
    assert list(path.parent.iterdir()) == [path]


# --- keys and levels --------------------------------------------------------------------------------------------------------


def test_the_key_is_what_one_would_type() -> None:
    assert model_key("resnet18") == "resnet18"
    assert model_key("resnet18", inputs=["1, 3,224,224"]) == "resnet18 --input 1,3,224,224"
    assert model_key("m:Net", ["width=8", "act='re lu'"], ["ids=1,8:int64", "1,2"]) == (
        """m:Net --model-arg 'act='"'"'re lu'"'"'' --model-arg width=8 --input ids=1,8:int64 --input 1,2"""
    )
    assert model_key("m", ["a=1", "b=2"]) == model_key("m", ["b=2", "a=1"])
    assert model_key("m", inputs=["1", "2"]) != model_key("m", inputs=["2", "1"])


def test_an_unknown_level_is_refused_with_the_known_ones() -> None:
    assert parse_level("params") == "params"
    with pytest.raises(UsageError) as caught:
        parse_level("weights")
    assert "output, params, layers" in caught.value.hint
