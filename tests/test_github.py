"""What GitHub Actions gets to read: read back here the way its runner reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from netlens.cli import github
from netlens.findings import Finding, Severity

KIB = 1024


def finding(severity: Severity = Severity.ERROR, message: str = "51 parameters, at most 50 allowed", where: str = "") -> Finding:
    """One finding of a limit."""
    return Finding("max-params", severity, where, message, "51", "50", "raise --max-params")


def commands(text: str) -> list[tuple[str, dict[str, str], str]]:
    """Parse workflow commands as actions/runner does (ActionCommand.TryParseV2): a line that begins with `::` is a command."""
    found = []
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line.lstrip().startswith("::"):
            assert line == "", f"not a command: {line!r}"
            continue
        head, _, data = line.lstrip()[2:].partition("::")
        name, _, rest = head.partition(" ")
        pairs = (pair.partition("=") for pair in rest.split(",") if pair)
        found.append((name, {key: plain(value) for key, _, value in pairs}, plain(data)))
    return found


def plain(text: str) -> str:
    """Undo the escapes in the order in which the runner does, `%25` last."""
    for code, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, character)
    return text


# --- annotations ------------------------------------------------------------------------------------------------------------


def test_an_error_is_one_line_as_github_documents_it() -> None:
    bare = Finding("not-run", Severity.ERROR, "", "nothing ran")
    assert github.annotations([bare], "netlens summary", None) == "::error title=netlens summary::not-run: nothing ran\n"
    assert github.annotations([bare], "t", "nets.py") == "::error file=nets.py,title=t::not-run: nothing ran\n"


def test_nothing_found_is_nothing_said() -> None:
    assert github.annotations([], "netlens summary", None) == ""
    assert github.annotations([finding(Severity.INFO)], "netlens summary", None) == ""


def test_the_whole_finding_is_in_the_message() -> None:
    ((kind, properties, text),) = commands(github.annotations([finding(where="fc")], "netlens summary", "nets.py"))
    assert kind == "error"
    assert properties == {"file": "nets.py", "title": "netlens summary"}
    assert text.split("\n") == [
        "max-params: 51 parameters, at most 50 allowed",
        "where: fc",
        "measured: 51",
        "expected: 50",
        "raise --max-params",
    ]


def test_errors_come_before_warnings_in_their_own_order() -> None:
    mixed = [finding(Severity.WARNING, "w1"), finding(message="e1"), finding(Severity.WARNING, "w2"), finding(message="e2")]
    found = commands(github.annotations(mixed, "t", None))
    assert [(kind, text.split("\n")[0]) for kind, _, text in found] == [
        ("error", "max-params: e1"),
        ("error", "max-params: e2"),
        ("warning", "max-params: w1"),
        ("warning", "max-params: w2"),
    ]


@pytest.mark.parametrize(("errors", "warnings", "left"), [(10, 10, 0), (11, 0, 1), (0, 13, 3), (12, 14, 6), (10, 0, 0), (1200, 0, 1190)])
def test_ten_of_a_kind_are_shown_and_the_rest_is_counted(errors: int, warnings: int, left: int) -> None:
    every = [finding()] * errors + [finding(Severity.WARNING)] * warnings + [finding(Severity.INFO)] * 5
    found = commands(github.annotations(every, "t", None))
    kinds = [kind for kind, _, _ in found]
    assert kinds.count("error") == min(errors, 10) and kinds.count("warning") == min(warnings, 10)
    assert kinds.count("notice") == (1 if left else 0)
    if left:
        assert found[-1][0] == "notice" and f"and {left:,} more" in found[-1][2]


HOSTILE = [
    "\n::set-env name=PATH::/tmp",
    "\r\n::stop-commands::x",
    "\r::error::x",
    "%0A::error::x",
    "%",
    "100%25",
    "a::b,c=d:e",
    "::error::x",
    "\u2028::error::x",
    "\x85::error::x",
    "\x0b::error::x\x1b[31m",
    "##[add-path]/tmp",
    "\ud800",
    "été, 模型 ✓",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_untrusted_text_stays_text(text: str) -> None:
    """In every field; and what was printable is read back exactly."""
    hostile = Finding("max-params", Severity.ERROR, text, text, text, text, text)
    output = github.annotations([hostile], text, text)
    assert len(output.splitlines()) == 1
    ((kind, properties, message),) = commands(output)
    assert kind == "error" and set(properties) == {"file", "title"}
    if text.replace("\n", "").replace("\r", "").isprintable():
        assert properties == {"file": text, "title": text}
        assert message == f"max-params: {text}\nwhere: {text}\nmeasured: {text}\nexpected: {text}\n{text}"
    output.encode("utf-8")


def test_a_very_long_message_is_cut() -> None:
    ((_, _, text),) = commands(github.annotations([finding(message="x" * 100_000)], "t", None))
    assert len(text) <= 4000 and text.endswith("...")


# --- the job summary --------------------------------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the runner gives a step."""
    path = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    return path


@pytest.mark.parametrize("value", [None, ""])
def test_without_the_variable_nothing_is_written(value: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    if value is not None:
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", value)
    github.job_summary("# x")
    assert list(tmp_path.iterdir()) == []


def test_a_second_summary_is_appended_after_an_empty_line(page: Path) -> None:
    github.job_summary("| a |\n|---|\n")
    github.job_summary("# ü")
    assert page.read_bytes() == "| a |\n|---|\n\n# ü\n".encode()


def test_what_another_tool_wrote_without_a_last_newline_is_kept_apart(page: Path) -> None:
    page.write_text("text")
    github.job_summary("| a |")
    assert page.read_text() == "text\n| a |\n"


@pytest.mark.parametrize("row", ["| x | 1 |\n", "| ü模 | 1 |\n"])
def test_a_long_summary_is_cut_after_a_whole_line_with_a_note(page: Path, row: str) -> None:
    github.job_summary("| a | b |\n|---|---|\n" + row * 20_000)
    written = page.read_bytes()
    assert 63 * KIB < len(written) <= 64 * KIB
    table, note = written.decode().rstrip("\n").rsplit("\n\n", 1)
    assert "cut" in note
    assert set(table.split("\n")[2:]) == {row.rstrip("\n")}


def test_a_summary_of_just_64_kib_is_whole(page: Path) -> None:
    text = ("x" * 63 + "\n") * (KIB - 1)
    github.job_summary(text)
    assert page.read_text() == text


def test_a_cut_closes_what_it_left_open(page: Path) -> None:
    github.job_summary("<details>\n<summary>layers</summary>\n\n```\n" + "row\n" * 50_000 + "```\n</details>\n")
    text = page.read_text()
    assert text.count("```") == 2 and text.count("<details>") == text.count("</details>") == 1
    assert text.index("</details>") < text.index("cut here")
    assert len(text.encode()) <= 64 * KIB


def test_one_endless_line_leaves_the_note_alone(page: Path) -> None:
    github.job_summary("x" * 100_000)
    assert "cut here" in page.read_text() and "x" * 10 not in page.read_text()


def test_a_full_page_is_left_alone_because_github_would_drop_all_of_it(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page.write_bytes(b"x" * (1024 * KIB - 10))
    github.job_summary("# twelve bytes")
    assert page.stat().st_size == 1024 * KIB - 10
    captured = capsys.readouterr()
    assert captured.out == "" and "full" in captured.err


def test_a_page_that_cannot_be_written_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for bad in (str(tmp_path), str(tmp_path / "no" / "summary.md")):
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", bad)
        github.job_summary("# x")
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.startswith("note: ")


def test_text_that_is_not_unicode_is_written_all_the_same(page: Path) -> None:
    github.job_summary("a \ud800 b")
    assert page.read_text() == "a ? b\n"
