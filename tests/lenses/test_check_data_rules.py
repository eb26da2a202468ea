"""What is said of faults of data: how grave each is, in which order, and in sentences that agree with their numbers."""

from __future__ import annotations

import random
import re

import pytest

from netlens.cli.emit import exit_code, finding_lines, findings_markdown
from netlens.cli.github import annotations
from netlens.cli.options import FailLevel
from netlens.data.issues import Issue, Item
from netlens.data.records import FLAGS
from netlens.drawing.tables import render
from netlens.findings import CODES, Severity
from netlens.lenses.check_data.rulebook import BOOK
from netlens.lenses.check_data.rules import diagnose, ranked, severity, verdict
from tests.lenses.check_data_case import ESCAPE, issue, loaders, many, report, split

# What stops training, or makes its result wrong without a word. Written down by hand: it decides when a pipeline turns red.
ERRORS = re.findall(
    r"\S+",
    """
file-unreadable file-empty not-an-image picture-truncated picture-undecodable picture-too-large folder-unreadable empty-class hidden-class
link-loop row-without-file label-missing label-conflict label-spelling label-type label-range class-index-shift class-unknown leak-exact
leak-near duplicate-labels sample-raises shapes-differ collate-fails value-nonfinite normalised-twice normalised-wrong channels-last
image-dtype label-ignored label-one-hot worker-seeds worker-duplicates worker-dies workers-fail no-batches sample-mutated loader-stuck
""",
)
INFOS = re.findall(
    r"\S+",
    """
mode-palette mode-bilevel mode-grey animated upscaled letterboxed wrong-suffix grey-among-colour modes-mixed odd-size odd-aspect other-file
file-without-row not-normalised channel-order workers-useless
""",
)


def the_one(found: Issue):
    (finding,) = diagnose(report(found))
    return finding


def test_every_code_of_the_data_is_in_the_rulebook_and_has_a_meaning():
    first = list(CODES).index("file-unreadable")
    assert set(BOOK) == {*list(CODES)[first:], "label-range"}
    assert set(FLAGS) <= set(BOOK)


@pytest.mark.parametrize("code", BOOK)
def test_severities_are_those_of_the_plan(code):
    expected = Severity.ERROR if code in ERRORS else Severity.INFO if code in INFOS else Severity.WARNING
    assert severity(many(code, 1)) is expected


@pytest.mark.parametrize("code", BOOK)
@pytest.mark.parametrize("count", [0, 1, 2, 1234])
def test_every_sentence_is_whole(code, count):
    found = the_one(many(code, count, total=9999))
    for text in (found.message, found.remedy):
        assert text and not re.search(r"[{}]|  |\.$", text), text
    if count == 1:
        assert not re.search(r"^1 \w*[^s]s ", found.message), found.message


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (many("picture-truncated", 23), "23 of 1,000 files end before the picture does"),
        (many("picture-truncated", 1), "1 of 1,000 files ends before the picture does"),
        (many("mode-16-bit", 1), "1 of 1,000 pictures has 16 bits a channel"),
        (many("mode-16-bit", 1000), "1,000 of 1,000 pictures have 16 bits a channel"),
        (many("empty-class", 1), "1 class has no picture"),
        (many("empty-class", 2), "2 classes have no picture"),
        (many("skipped-file", 1234), "1,234 pictures are left out by ImageFolder"),
        (issue("duplicate-exact", ("a", "b"), ("c", "d", "e"), total=50), "3 of 50 files are copies of others"),
        (issue("leak-exact", ("a", "b"), total=50), "1 picture is in two splits: what is measured there is memory"),
        (Issue("unshuffled", (), 0), "classes come one after the other"),
        (many("hidden-class", 1), "1 hidden folder is taken as a class"),
        (many("hidden-class", 2), "2 hidden folders are taken as classes"),
        (many("hidden-file", 1), "1 hidden file or folder is among the samples"),
        (many("class-missing", 1), "a split has no picture of some classes"),
    ],
)
def test_sentences_agree_with_their_numbers(found, sentence):
    assert the_one(found).message == sentence


def test_remedies_say_one_or_many():
    assert the_one(many("file-empty", 1)).remedy.startswith("get it again from the source, or leave it out")
    assert the_one(many("file-empty", 2)).remedy.startswith("get them again from the source, or leave them out")
    assert [the_one(many("file-without-row", n)).remedy for n in (1, 2)] == [
        "nothing, if another table names it",
        "nothing, if another table names them",
    ]


def test_the_order_is_by_harm_whatever_the_order_of_the_faults():
    codes = ["dark", "grey-among-colour", "leak-exact", "sample-raises", "exif-rotated", "picture-truncated"]
    issues = [many(code, 3) for code in codes] + [many("dark", 40)]
    random.Random(3).shuffle(issues)
    found = ranked(issues)
    expected = ["sample-raises", "picture-truncated", "leak-exact", "exif-rotated", "dark", "dark", "grey-among-colour"]
    assert [each.code for each in found] == expected and len(found[4].items) == 40
    assert [finding.code for finding in diagnose(report(*issues))] == expected


def test_what_most_pictures_share_is_no_fault_of_single_ones():
    half, more = the_one(many("dark", 500)), the_one(many("dark", 501))
    assert (half.severity, more.severity) == (Severity.WARNING, Severity.INFO)
    assert "nature of the data" in more.message and "nature" not in half.message and "leave" not in more.remedy
    assert the_one(many("mode-16-bit", 1000)).severity is Severity.WARNING, "loading them wrongly is no nature"
    assert the_one(many("picture-truncated", 1000)).severity is Severity.ERROR


def test_hidden_files_stop_training_only_where_they_are_no_pictures():
    assert severity(issue("hidden-file", "./data/cat/.h.jpg")) is Severity.WARNING
    assert severity(issue("hidden-file", "./data/cat/.h.jpg", "./data/cat/._x.jpg")) is Severity.ERROR


def test_only_errors_fail_by_default():
    looks = [many(code, 3) for code in BOOK if code not in ERRORS]
    assert exit_code(diagnose(report(*looks)), FailLevel.ERROR) == 0
    assert exit_code(diagnose(report(*looks)), FailLevel.WARNING) == 1
    assert exit_code(diagnose(report(many("file-empty", 1))), FailLevel.ERROR) == 1


def test_examples_are_the_first_five_places():
    found = the_one(many("blank", 7, detail="spread 0.2 of 255"))
    assert found.examples == tuple(f"./data/cat/{place:04}.jpg: spread 0.2 of 255" for place in range(5))
    assert the_one(Issue("class-imbalance", (Item((), "cat 900, dog 3"),), 2)).examples == ("cat 900, dog 3",)


def test_copies_are_named_as_groups():
    group = tuple(f"{letter}.jpg" for letter in "abcde")
    found = the_one(issue("duplicate-near", group, ("x.jpg", "y.jpg"), detail="96 % alike"))
    assert found.examples == ("a.jpg = b.jpg = c.jpg and 2 more: 96 % alike", "x.jpg = y.jpg: 96 % alike")


def test_places_that_are_not_alike_are_only_listed():
    found = the_one(Issue("shapes-differ", (Item(("sample 1", "sample 4"), "3,10,10: 2 samples"),), 9))
    assert found.examples == ("sample 1, sample 4: 3,10,10: 2 samples",)


def test_what_does_no_harm_as_things_are_is_only_told():
    found = the_one(issue("worker-seeds", "sample 0", latent=True))
    assert found.severity is Severity.INFO and "with more workers, or on another system" in found.message
    assert the_one(issue("worker-seeds", "sample 0")).severity is Severity.ERROR


def test_examples_stand_below_the_message_in_every_format():
    found = diagnose(report(many("picture-truncated", 2, detail="ends after 3,204 of 9,811 bytes", measured="2 files", threshold="0")))
    place = "./data/cat/0000.jpg: ends after 3,204 of 9,811 bytes"
    lines = render(finding_lines(found), 200).splitlines()
    said = next(index for index, line in enumerate(lines) if "[picture-truncated]" in line)
    assert lines[said + 1].strip() == place and lines[said + 3].strip() == "measured 2 files, threshold 0"
    assert f"  - {place}" in findings_markdown(found).splitlines()
    (command,) = annotations(found, "netlens check-data", None).splitlines()
    assert f"%0A{place}%0A" in command


def test_hostile_names_steer_nothing():
    found = diagnose(report(issue("blank", ESCAPE, "x" * 5000, detail=ESCAPE)))
    text = render(finding_lines(found), 200) + annotations(found, "t", None)
    assert "\x1b" not in text and "\u202e" not in text and "[red]cat[/red]" in text
    assert not re.search(r"^\s*::error::gone", text, re.MULTILINE)
    assert max(map(len, found[0].examples)) < 450


def test_the_verdict_names_the_worst():
    issues = [many("dark", 3), many("grey-among-colour", 2)]
    assert verdict(report(*issues)) == ("fit to train on? in doubt: 3 of 1,000 pictures are nearly black", Severity.WARNING)
    said, how = verdict(report(*issues, many("file-empty", 1)))
    assert (said, how) == ("fit to train on? no: 1 of 1,000 files is empty, and 1 more finding", Severity.ERROR)


def test_clean_data_are_told_what_was_checked():
    said, how = verdict(report(many("grey-among-colour", 2), splits=[split("train"), split("val", files=200, decoded=200)]))
    assert how is Severity.INFO and said.startswith("fit to train on? nothing stands in the way: all 1,200 files could be decoded")
    assert "nothing leaks between train and val" in said
    assert "leaks" not in verdict(report())[0] and "classes" not in verdict(report(splits=[split(classes=())]))[0]
    some = report(splits=[split("train"), split("val"), split("test", classes=())])
    assert verdict(some)[0].endswith("nothing leaks between train, val and test, classes and labels of train and val are in order")
    assert verdict(report(splits=[split("train"), split("val")]))[0].endswith("classes and labels are in order")
    assert "the only file could be decoded" in verdict(report(splits=[split(files=1, decoded=1)]))[0]
    assert "10,000 samples were read" in verdict(loaders())[0]
    assert "nothing was found in the 12 files that were seen" in verdict(report(interrupted=12))[0]
