"""The shell around the lenses: exit codes, streams, and what the parser says, shown with a lens made for these tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Shell

# `probe` does what it is told; `other` has two commands. Neither needs torch.
PROBE = '''
from __future__ import annotations
import os, signal, sys
from dataclasses import dataclass
from typing import Annotated
import typer
from netlens.cli import console, emit, options as opt
from netlens.errors import ForwardFailed, ModelNotFound
from netlens.findings import Finding, Severity


@dataclass(frozen=True)
class Report:
    layers: tuple[str, ...]
    loss: float


def lines(report):
    from netlens.drawing.tables import Line
    return [Line(text, "bold red") for text in report.layers]


def command(
    model: opt.Model, model_arg: opt.ModelArg = None, input: opt.Input = None, weights: opt.Weights = None, device: opt.Device = "auto",
    checkpoint: opt.Checkpoint = None, seed: opt.Seed = 0, out: opt.Out = opt.Path("netlens-out"),
    format: opt.Format = opt.ReportFormat.TABLE, fail_on: opt.FailOn = opt.FailLevel.ERROR, traceback: opt.Traceback = False,
    depth: Annotated[int, typer.Option(min=0)] = 3,
) -> int:
    """Look at a model."""
    if model == "noisy":
        print("the model's own print")
    if model == "echo":
        console.write(repr([model_arg, input, weights, device, str(checkpoint), seed, str(out), depth]) + "\\n")
        return 0
    if model == "user":
        raise ModelNotFound("no model named 'a\\nb\\x1b[31m'", hint="did you mean\\n'ab'?")
    if model == "forward":
        try:
            users_code()
        except ValueError as error:
            raise ForwardFailed("layer 'fc' raised", hint="look at it") from error
    if model == "bug":
        raise ZeroDivisionError("in netlens")
    if model == "interrupt":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests with Ctrl-C ignored
        os.kill(os.getpid(), signal.SIGINT)
    if model == "exit":
        sys.exit(1)
    if model == "warn":
        import warnings
        warnings.warn("for the author of the model")
    report = Report(("conv1", "x" * 300) if model != "long" else ("x" * 70,) * 20_000, float("nan"))
    severities = {"bad": [Severity.INFO, Severity.ERROR], "doubtful": [Severity.WARNING]}.get(model, [])
    findings = [Finding("max-params", one, "fc", f"too [b]many[/b] {one.name}", "12", "10", "use fewer") for one in severities]
    draw = lambda width: lines(report if model != "width" else Report((repr(width),), 0.0))
    renderers = emit.Renderers(draw, lambda: "| layer |\\n|---|\\n")
    return emit.emit(
        report, findings, lens="probe", subject={"model": model}, format=format, fail_on=fail_on, renderers=renderers
    )


def users_code():
    raise ValueError("their words")
'''
OTHER = """
from netlens.cli import console


def one() -> None:
    '''Do one thing.'''
    console.write("one\\n")


def two() -> None:
    '''Do two things.'''
    console.write("two\\n")


COMMANDS = {"other": one, "other_two": two}
"""


class Probe(Shell):
    """The command line with the two lenses above instead of the real ones."""

    def prepare(self, *arguments, env=None):
        return super().prepare(*arguments, env={"NETLENS_TEST_LENSES": str(self.folder / "lenses"), **(env or {})})


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    folder = tmp_path_factory.mktemp("probe")
    for name, text in (("probe", PROBE), ("other", OTHER)):
        package = folder / "lenses" / name
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "command.py").write_text(text)
    return Probe(folder)


def two_lines(stderr: str) -> tuple[str, str]:
    """Return what stands after `error: ` and `hint: `, and hold that there is nothing else."""
    assert stderr.endswith("\n")
    error, hint = stderr[:-1].split("\n")
    assert error.startswith("error: ") and hint.startswith("hint: ")
    return error.removeprefix("error: "), hint.removeprefix("hint: ")


def test_done_is_zero_and_only_the_report_is_on_stdout(probe):
    done = probe("probe", "good")
    assert (done.returncode, done.stdout, done.stderr) == (0, "conv1\n" + "x" * 300 + "\n", "")


@pytest.mark.parametrize(
    ("model", "fail_on", "code"),
    [
        ("bad", None, 1),
        ("bad", "warning", 1),
        ("bad", "never", 0),
        ("doubtful", None, 0),
        ("doubtful", "warning", 1),
        ("doubtful", "never", 0),
        ("good", "warning", 0),
    ],
)
def test_findings_reach_fail_on_or_not(probe, model, fail_on, code):
    options = ["--fail-on", fail_on] if fail_on else []
    for form in ("table", "json", "markdown", "github"):
        done = probe("probe", model, "--format", form, *options)
        assert (done.returncode, done.stderr) == (code, ""), form


def test_findings_stand_below_the_table_worst_first_and_as_text(probe):
    lines = probe("probe", "bad").stdout.splitlines()
    assert lines[2:] == [
        "",
        "error    fc: too [b]many[/b] ERROR [max-params]",
        "         measured 12, threshold 10",
        "         remedy: use fewer",
        "",
        "info     fc: too [b]many[/b] INFO [max-params]",
        "         measured 12, threshold 10",
        "         remedy: use fewer",
        "",
        "1 error, 1 info",
    ]


def test_markdown_is_the_table_and_a_list_of_findings(probe):
    assert probe("probe", "good", "--format", "markdown").stdout == "| layer |\n|---|\n"
    lines = probe("probe", "doubtful", "--format", "markdown").stdout.splitlines()
    assert lines[:2] == ["| layer |", "|---|"]
    assert lines[3] == "**1 warning**"
    assert lines[5].startswith("- **warning** `max-params` fc: too \\[b\\]many")


def test_json_is_one_strict_document_in_the_envelope(probe):
    done = probe("probe", "bad", "--format", "json")
    document = json.loads(done.stdout, parse_constant=pytest.fail)
    assert list(document) == ["schema", "netlens", "torch", "subject", "report", "findings"]
    assert document["schema"] == "netlens.probe/1"
    assert document["subject"] == {"model": "bad"}
    assert document["report"] == {"layers": ["conv1", "x" * 300], "loss": "nan"}
    assert [finding["severity"] for finding in document["findings"]] == ["error", "info"]
    assert set(document["findings"][0]) == {"code", "severity", "where", "message", "measured", "threshold", "remedy", "examples"}


def test_github_adds_annotations_to_the_table(probe):
    lines = probe("probe", "bad", "--format", "github").stdout.splitlines()
    assert lines[0] == "conv1"
    assert [line for line in lines if line.startswith("::error ")], lines


@pytest.mark.parametrize("form", ["table", "json"])
def test_the_job_summary_is_written_whatever_the_format(probe, tmp_path, form):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    probe("probe", "bad", "--format", form, env={"GITHUB_STEP_SUMMARY": str(summary)})
    text = summary.read_text()
    assert text.startswith("before\n") and "| layer |" in text and "**error**" in text


def test_what_the_user_must_change_is_two_lines_and_two(probe):
    done = probe("probe", "user")
    assert (done.returncode, done.stdout) == (2, "")
    assert two_lines(done.stderr) == ("no model named 'a b\\x1b[31m'", "did you mean 'ab'?")


def test_the_users_traceback_comes_only_when_asked_for(probe):
    assert len(probe("probe", "forward").stderr.splitlines()) == 2
    for done in (probe("probe", "forward", "--traceback"), probe("probe", "forward", env={"NETLENS_TRACEBACK": "1"})):
        assert done.returncode == 2
        assert 'raise ValueError("their words")' in done.stderr and "ValueError: their words" in done.stderr
        assert "ForwardFailed" not in done.stderr and "netlens/cli" not in done.stderr
        assert done.stderr.splitlines()[-2:] == ["error: layer 'fc' raised", "hint: look at it"]


def test_a_bug_is_three_with_its_traceback_and_the_versions(probe):
    done = probe("probe", "bug")
    assert (done.returncode, done.stdout) == (3, "")
    assert "Traceback" in done.stderr and "ZeroDivisionError: in netlens" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert "bug in netlens 0." in last and "torch" in last and "Python 3." in last


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_ctrl_c_is_130_and_one_line(probe):
    done = probe("probe", "interrupt")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_a_model_that_calls_sys_exit_does_not_look_like_a_finding(probe):
    done = probe("probe", "exit")
    assert done.returncode == 2
    assert "sys.exit(1)" in two_lines(done.stderr)[0]


def test_what_the_model_prints_goes_to_stderr(probe):
    done = probe("probe", "noisy", "--format", "json")
    assert json.loads(done.stdout)["subject"] == {"model": "noisy"}
    assert done.stderr == "the model's own print\n"


def test_warnings_are_shown_only_on_request(probe):
    assert probe("probe", "warn").stderr == ""
    assert "for the author" in probe("probe", "warn", env={"PYTHONWARNINGS": "default"}).stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(("arguments", "code"), [(["probe", "long"], 0), (["probe", "bad"], 1), (["--help"], 0), (["--version"], 0)])
def test_a_reader_that_stops_early_is_no_error_and_changes_no_verdict(probe, arguments, code, unbuffered):
    command, env = probe.prepare(*arguments, env={"PYTHONUNBUFFERED": unbuffered})
    child = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=probe.folder)
    child.stdout.close()  # nobody reads
    assert (child.stderr.read(), child.wait()) == (b"", code)
    child.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_the_users_to_change(probe, unbuffered):
    command, env = probe.prepare("probe", "good", env={"PYTHONUNBUFFERED": unbuffered})
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, env=env, stdout=full, stderr=subprocess.PIPE, encoding="utf-8", cwd=probe.folder, check=False)
    assert done.returncode == 2
    assert "cannot write to stdout" in two_lines(done.stderr)[0]


def test_closed_streams_are_no_bug(probe):
    command, env = probe.prepare("probe", "bad")
    for closed in (1, 2):
        done = subprocess.run(
            command,
            env=env,
            capture_output=True,
            cwd=probe.folder,
            check=False,
            preexec_fn=lambda: os.close(closed),  # noqa: B023
        )
        assert done.returncode == 1, done


def test_a_terminal_without_unicode_still_gets_its_report(probe):
    done = probe("probe", "é", "--format", "json", env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["subject"] == {"model": "é"}


# What the parser says


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["probe", "m", "--formt", "json"], "no option '--formt'", "did you mean '--format'? `netlens probe --help` lists the options"),
        (["probe", "m", "--zzz"], "no option '--zzz'", "`netlens probe --help` lists the options"),
        (["--depth", "2", "probe", "m"], "no option '--depth'", "options come after the command: `netlens probe --depth`"),
        (["probe", "m", "-z"], "no option '-z'", "`netlens probe --help` lists the options"),
        (["prob", "m"], "no command 'prob'", "did you mean `netlens probe m`?"),
        (["othertwo"], "no command 'othertwo'", "did you mean `netlens other-two`?"),
        (["qqqq"], "no command 'qqqq'", "`netlens --help` lists the commands"),
        (["probe"], "missing argument 'MODEL'", "`netlens probe --help` shows how to call it"),
    ],
)
def test_what_the_parser_refuses_is_two_lines_and_two(probe, arguments, error, hint):
    done = probe(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert two_lines(done.stderr) == (error, hint)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["probe", "m", "--format", "jsn"], ["--format", "jsn", "table", "json", "markdown", "github"]),
        (["probe", "m", "--depth", "x"], ["--depth", "int"]),
        (["probe", "m", "--depth", "-1"], ["--depth", "0"]),
        (["probe", "m", "--input"], ["--input", "argument"]),
        (["probe", "m", "extra"], ["extra"]),
        (["probe", "m", "--traceback=yes"], ["--traceback"]),
    ],
)
def test_a_bad_value_is_named_with_its_option(probe, arguments, words):
    done = probe(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    error, hint = two_lines(done.stderr)
    assert [word for word in words if word not in error] == [], error
    assert hint == "`netlens probe --help` shows how to call it"


def test_a_model_instead_of_a_command_is_shown_the_way(netlens):
    done = netlens("resnet18", "--input", "1,3,224,224")
    assert (done.returncode, done.stdout) == (2, "")
    assert two_lines(done.stderr) == (
        "no command 'resnet18'",
        "to look at a model: `netlens summary resnet18 --input 1,3,224,224`",
    )


def test_options_arrive_as_they_were_given(probe):
    given = ["--model-arg", "a=1", "--model-arg", "b=2", "-i", "1,3", "--input", "x=2:int64", "--weights", "DEFAULT", "--device", "cpu"]
    done = probe("probe", "echo", *given, "--checkpoint", "c.pt", "--seed", "7", "--out", "there", "--depth", "0")
    assert done.stdout == "[['a=1', 'b=2'], ['1,3', 'x=2:int64'], 'DEFAULT', 'cpu', 'c.pt', 7, 'there', 0]\n"
    nothing = probe("probe", "echo").stdout
    assert nothing in ("[None, None, None, 'auto', 'None', 0, 'netlens-out', 3]\n", "[[], [], None, 'auto', 'None', 0, 'netlens-out', 3]\n")


def test_a_lens_can_have_several_commands(probe):
    assert probe("other").stdout == "one\n"
    assert probe("other-two").stdout == "two\n"
    assert all(name in probe("--help").stdout for name in ("probe", "other", "other-two", "Do two things."))


def test_help_has_no_colour_in_a_pipe(probe):
    for arguments in (["--help"], ["probe", "--help"], ["-h"], []):
        done = probe(*arguments, env={"FORCE_COLOR": "1", "GITHUB_ACTIONS": "true", "TERM": "xterm-256color"})
        assert (done.returncode, done.stderr) == (0, "")
        assert "Usage: netlens" in done.stdout and "\x1b" not in done.stdout


def test_version_names_netlens_and_the_installed_torch(probe):
    from torch.version import __version__ as torch_version

    from netlens import __version__

    done = probe("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"netlens {__version__} (torch {torch_version}, Python ")
    assert "torch" not in done.modules and "importlib.metadata" not in done.modules


def test_python_m_netlens_is_the_same(probe):
    _, env = probe.prepare("--version")
    done = subprocess.run([sys.executable, "-m", "netlens", "--version"], env=env, capture_output=True, encoding="utf-8", check=False)
    assert done.stdout == probe("--version").stdout


# Width and colour


def test_a_pipe_is_as_wide_as_needed_unless_columns_are_set(probe):
    assert max(map(len, probe("probe", "good").stdout.splitlines())) == 300
    for env in ({"FORCE_COLOR": "1", "TERM": "dumb"}, {"TERM": "dumb"}):
        assert "x" * 300 in probe("probe", "good", env=env).stdout
    assert max(map(len, probe("probe", "good", env={"COLUMNS": "60"}).stdout.splitlines())) == 60


def test_the_lens_is_told_the_width(probe):
    assert probe("probe", "width").stdout == "None\n"
    assert probe("probe", "width", env={"COLUMNS": "60"}).stdout == "60\n"
    assert on_a_terminal(probe, ["probe", "width"], columns=70, env={"TERM": "xterm"}).strip("\r\n") == "\x1b[1;31m70\x1b[0m"


@pytest.mark.parametrize(
    ("env", "coloured"),
    [
        ({}, False),
        ({"GITHUB_ACTIONS": "true", "CI": "true"}, False),
        ({"FORCE_COLOR": "1", "TERM": "xterm"}, True),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, False),
    ],
)
def test_colour_in_a_pipe(probe, env, coloured):
    shown = probe("probe", "good", env=env).stdout
    assert "conv1" in shown
    assert ("\x1b[1;31m" in shown) is coloured


def test_no_color_wins_over_force_color(probe):
    shown = probe("probe", "good", env={"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm"}).stdout
    assert "conv1" in shown and "31m" not in shown


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_on_a_terminal_the_width_is_the_terminals(probe, env, coloured):
    shown = on_a_terminal(probe, ["probe", "good"], columns=70, env={"TERM": "xterm", **env})
    assert ("31m" in shown) is coloured
    assert max(line.count("x") for line in shown.splitlines()) <= 80 - 10 * (env.get("TERM") != "dumb")


def on_a_terminal(shell: Shell, arguments: list[str], columns: int, env: dict[str, str]) -> str:
    """Run netlens on a pseudo-terminal and return what it showed."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    command, environment = shell.prepare(*arguments, env=env)
    child = subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, cwd=shell.folder)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # Linux says end of file with EIO
        pass
    os.close(ours)
    assert child.wait() == 0
    return shown.decode()
