"""The benchmark's own arithmetic, words and arguments; nothing here measures netlens."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.benchmarks import contestants
from tests.benchmarks.arguments import parse
from tests.benchmarks.bars import Bar, bars, missed
from tests.benchmarks.children import Cost, Outcome, run_child
from tests.benchmarks.inprocess import best_of
from tests.benchmarks.page import markdown, parts
from tests.benchmarks.results import Inside, Machine, Results
from tests.benchmarks.rounds import Job, Series, Spread, measured, ratio, steps

MIB = 1 << 20


def series(who: str, model: str, wall: float = 1, cpu: float = 1, mib: float = 100) -> Series:
    return Series(Job(who, f"the {who}", model, (who,)), (Cost(wall, cpu, int(mib * MIB)),))


def results(processes: Sequence[Series], found: Sequence[Bar] = (), inside: Sequence[Inside] = (), **missing: str) -> Results:
    machine = Machine("3.11.7", {"torch": "2.15.0"}, 2, 0.5, 1.25)
    return Results(machine, 3, processes, (), inside, found, missing)


# Statistics


def test_a_spread_is_the_middle_between_the_ends():
    assert Spread.of([9.0, 1.0, 2.0]) == Spread(2.0, 1.0, 9.0)
    assert Spread.of([4.0, 1.0, 2.0, 9.0]) == Spread(3.0, 1.0, 9.0)  # (2 + 4) / 2
    assert Spread.of([]) is None


def test_a_ratio_divides_medians_and_knows_no_ratio_of_nothing():
    assert ratio(Spread(3, 1, 100), Spread(2, 0.5, 50)) == 1.5
    assert ratio(None, Spread(2, 2, 2)) is None
    assert ratio(Spread(2, 2, 2), None) is None
    assert ratio(Spread(2, 2, 2), Spread(0, 0, 0)) is None


# Taking turns


def recorder(log: list[str], cost: Callable[[str, int], Outcome]) -> Callable[[Sequence[str], Path], Outcome]:
    def run(command: Sequence[str], folder: Path) -> Outcome:
        log.append(command[0])
        return cost(command[0], log.count(command[0]))

    return run


def test_jobs_take_turns_after_one_unmeasured_run_of_each_contestant(tmp_path: Path):
    """a1, b1: the first of each contestant warms up. The number of a run is its cost, so the costs tell which runs were kept."""
    jobs = [Job("a", "", "1", ("a1",)), Job("b", "", "1", ("b1",)), Job("a", "", "2", ("a2",))]
    log: list[str] = []
    ticks: list[None] = []

    found = measured(jobs, 2, tmp_path, lambda: ticks.append(None), recorder(log, lambda _, n: Outcome(Cost(n, n, n), "", "")))

    assert log == ["a1", "b1", "a1", "b1", "a2", "a1", "b1", "a2"]
    assert [[cost.wall for cost in one.costs] for one in found] == [[2, 3], [2, 3], [1, 2]]
    assert len(ticks) == len(log) == steps(jobs, 2)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_job_that_fails_is_told_and_not_run_again(tmp_path: Path, at: int):
    """at 1: in the warm-up; later: after runs that went well, which say nothing any more."""
    jobs = [Job("good", "", "", ("good",)), Job("bad", "", "", ("bad",))]
    log: list[str] = []

    def cost(name: str, n: int) -> Outcome:
        return Outcome(None, "exit code 1: no", "") if name == "bad" and n == at else Outcome(Cost(1, 1, 1), "", "")

    good, bad = measured(jobs, 5, tmp_path, run=recorder(log, cost))

    assert len(good.costs) == 5 and good.failure == ""
    assert bad.costs == () and bad.failure == "exit code 1: no" and bad.wall is None
    assert log.count("bad") == at


# Children


def test_a_child_costs_what_it_burns(tmp_path: Path):
    """0.3 s of CPU and 64 MiB, and then 0.3 s of sleep, which is wall time only."""
    program = """
import time
block = bytearray(b"x") * (64 << 20)
while time.process_time() < 0.3: pass
time.sleep(0.3)
print("done")
"""
    outcome = run_child([sys.executable, "-c", program], tmp_path)

    assert outcome.failure == "" and outcome.stdout == "done\n"
    assert outcome.cost is not None
    assert 0.29 < outcome.cost.cpu <= outcome.cost.wall - 0.29
    assert 64 * MIB < outcome.cost.peak < 4096 * MIB


def test_much_output_does_not_block_a_child(tmp_path: Path):
    outcome = run_child([sys.executable, "-c", "import sys; print('o' * 300_000); sys.stderr.write('e' * 300_000)"], tmp_path)
    assert len(outcome.stdout) == 300_001 and outcome.failure == ""


@pytest.mark.parametrize(
    ("program", "failure"),
    [
        ("import sys; sys.exit(3)", "exit code 3"),
        (
            "import atexit; atexit.register(print, 'bye', file=__import__('sys').stderr); raise ValueError('no such model\\n\\n')",
            "exit code 1: ValueError: no such model",
        ),
        ("import sys; sys.exit('error: no model\\nhint: none')", "exit code 1: hint: none"),
        ("import os; os.kill(os.getpid(), 9)", "killed by signal 9"),
    ],
)
def test_a_child_that_fails_is_an_answer(tmp_path: Path, program: str, failure: str):
    outcome = run_child([sys.executable, "-c", program], tmp_path)
    assert outcome.cost is None and outcome.failure == failure


def test_a_child_that_hangs_is_ended(tmp_path: Path):
    assert run_child([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, limit=0.2).failure == "killed by signal 9"


def test_a_command_that_does_not_exist_is_an_answer(tmp_path: Path):
    assert run_child([str(tmp_path / "nothing")], tmp_path).failure == f"{tmp_path / 'nothing'}: No such file or directory"


# Inside a process


def test_the_best_of_the_rounds_counts_and_a_tool_that_fails_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch):
    """A clock that the tool itself moves on: 9 (unmeasured), 5, 3, 4."""
    clock = [0.0]
    durations = iter([9.0, 5.0, 3.0, 4.0])
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def tool() -> str:
        clock[0] += next(durations)
        return ""

    def broken() -> str:
        raise KeyError("weight")

    assert best_of({"tool": tool, "broken": broken}, rounds=3) == ({"tool": 3.0}, {"broken": "KeyError: 'weight'"})


# Promises


def verdicts(found: Sequence[Bar]) -> dict[str, tuple[float | None, str]]:
    return {bar.what: (bar.measured, bar.verdict) for bar in found}


def test_promises_are_the_medians_divided():
    processes = [
        series("netlens", "vit_h_14", wall=2.2, cpu=2.0, mib=900),
        series("torch", "vit_h_14", wall=1, cpu=1, mib=700),
        series("torchvision", "vit_h_14", wall=2, cpu=4, mib=850),
        series("torchinfo", "vit_h_14", wall=8, cpu=8, mib=3000),
    ]
    static = [Series(Job("netlens --help", "netlens --help", "", ()), (Cost(0.3, 0.16, 1), Cost(0.2, 0.14, 1), Cost(0.2, 0.15, 1)))]

    assert verdicts(bars(processes, static)) == {
        "vit_h_14: wall time / import torch, torchvision": (1.1, "ok"),
        "vit_h_14: CPU time / import torch, torchvision": (0.5, "ok, and the summit"),
        "vit_h_14: wall time / torchinfo": (pytest.approx(0.275), "MISSED"),
        "vit_h_14: CPU time / torchinfo": (0.25, "ok"),
        "vit_h_14: peak memory beyond import torch, torchvision": (50.0, "ok"),
        "vit_h_14: peak memory beyond import torch alone": (200.0, "MISSED"),
        "netlens --help: CPU time": (0.15, "ok"),
    }


def test_a_promise_without_its_parts_is_neither_kept_nor_missed():
    found = bars([series("netlens", "resnet18"), Series(Job("torchvision", "", "resnet18", ()), (), "exit code 1")], [])
    assert [(bar.measured, bar.verdict) for bar in found] == [(None, "not measured")] * 3
    assert missed(found) == []


def test_the_summit_is_below_the_bare_import_not_at_it():
    assert Bar("", 1.0, 1.1, "x", summit=1.0).verdict == "ok"
    assert Bar("", 0.999, 1.1, "x", summit=1.0).verdict == "ok, and the summit"
    assert Bar("", 1.101, 1.1, "x", summit=1.0).verdict == "MISSED"


# The page


def table(text: str, header: str) -> list[list[str]]:
    """Return the cells of the Markdown table whose first header is `header`, without header and rule."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"| {header} "))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_each_row_shows_what_netlens_takes_of_it():
    """1.5 s against 6 s is 0.25 x; 1 s of CPU against 8 s is 0.13 x (0.125, rounded half to even is 0.12)."""
    processes = [series("netlens", "resnet18", 1.5, 1, 700), series("torchinfo", "resnet18", 6, 8, 1234.4)]
    assert table(markdown(results(processes)), "model") == [
        ["resnet18", "the netlens", "1.50", "1.50 - 1.50", "1.00", "1.00 - 1.00", "700", "", ""],
        ["resnet18", "the torchinfo", "6.00", "6.00 - 6.00", "8.00", "8.00 - 8.00", "1,234", "0.25 x", "0.12 x"],
    ]


def test_what_failed_is_a_row_without_numbers_and_a_line_with_its_last_words():
    failed = Series(Job("fvcore", "fvcore", "resnet18", ()), (), "exit code 1: KeyError: 'a|b'")
    text = markdown(results([series("netlens", "resnet18"), failed]))
    assert table(text, "model")[1] == ["resnet18", "fvcore", "–", "–", "–", "–", "–", "–", "–"]
    assert "**fvcore, resnet18 failed: exit code 1: KeyError: 'a\\|b'**" in text


def test_a_missing_peer_is_named_with_the_command_that_installs_it():
    text = markdown(results([series("netlens", "resnet18")], fvcore="pip install fvcore"))
    assert "fvcore is not installed, so it is not measured: pip install fvcore" in text


def test_a_busy_machine_is_told_by_imports_that_wait():
    """1.5 s for 1 s of CPU is a wait, 1.1 s is not; that torchinfo takes longer than its CPU time says nothing."""
    processes = [
        series("torch", "a", wall=1.5),
        series("torch", "b", wall=1.1),
        series("torchvision", "a"),
        series("torchinfo", "a", wall=9),
    ]
    assert "Busy machine: 1 of 3 bare imports" in markdown(results(processes))
    assert "Busy" not in markdown(results(processes[1:]))


def test_a_missed_promise_is_said_loudly():
    found = [Bar("help", 0.2, 0.15, "s"), Bar("memory", 40.2, 100, "MiB"), Bar("wall", None, 1.1, "x")]
    text = markdown(results([], found))
    assert table(text, "promise") == [
        ["help", "0.15 s", "0.20 s", "MISSED"],
        ["memory", "100 MiB", "40 MiB", "ok"],
        ["wall", "1.10 x", "–", "not measured"],
    ]
    assert text.endswith("**MISSED: 1 of 3 promises: help**\n")


def test_kept_promises_are_counted_without_those_that_nobody_measured():
    found = [Bar("memory", 40.2, 100, "MiB"), Bar("wall", None, 1.1, "x")]
    assert markdown(results([], found)).endswith("**All 1 promises that were measured are kept; 1 could not be measured.**\n")


def test_models_inside_a_process_in_milliseconds():
    inside = [
        Inside("a", {"netlens": 0.0105, "torchinfo": 0.021}, {}, compiler=True, best_of=5),
        Inside("b", {"netlens": 0.5}, {"torchinfo": "IndexError: no"}, compiler=True, best_of=5),
    ]
    text = markdown(results([], inside=inside))
    assert "best of 5, half of them with one thread; torch.\\_dynamo is loaded" in text
    assert table(text, "model") == [["a", "10.5", "21.0", "0.50 x"], ["b", "500.0", "–", "–"]]
    assert "in one process: torchinfo, b failed: IndexError: no" in text


@pytest.mark.parametrize(("width", "spreads"), [(None, 2), (200, 2), (80, 0)])
def test_a_narrow_terminal_keeps_the_medians(width: int | None, spreads: int):
    from netlens.drawing.tables import Sheet, total_width

    sheet = next(part for part in parts(results([series("netlens", "regnet_y_128gf")]), width) if isinstance(part, Sheet))
    headers = [column.header for column in sheet.columns]
    assert headers.count("from - to") == spreads and {"wall s", "CPU s", "MiB"} <= set(headers)
    assert width is None or total_width(sheet.narrowest()) <= width


def test_the_json_document_has_the_runs_and_the_verdicts():
    found = json.loads(json.dumps(results([series("netlens", "resnet18", wall=1.5)], [Bar("help", 0.2, 0.15, "s")]).document()))
    assert found["processes"][0]["costs"] == [{"wall": 1.5, "cpu": 1, "peak": 100 * MIB}]
    assert found["bars"][0]["verdict"] == "MISSED"
    assert found["machine"]["load_after"] == 1.25


# Who is measured


def test_the_models_name_is_the_only_thing_that_changes_in_a_call():
    for name in contestants.DEFAULT:
        one, other = (contestants.CONTESTANTS[name].command(model) for model in ("resnet18", "vit_h_14"))
        assert [text.replace("resnet18", "vit_h_14") for text in one] == other
        assert "MODEL" not in " ".join(one)
        compile(one[2] if one[0] == sys.executable else "", name, "exec")


def test_packages_that_are_not_there_come_with_their_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(contestants, "find_spec", lambda package: None)
    monkeypatch.setattr(contestants, "netlens_script", lambda: tmp_path / "netlens")
    assert contestants.missing(contestants.DEFAULT) == {
        "netlens": "pip install --editable .",
        "torchinfo": "pip install 'torchinfo==1.8.0'",
        "fvcore": "pip install fvcore",
    }


# Arguments


def test_without_arguments_the_three_models_and_five_runs():
    asked = parse([])
    assert (asked.repeats, asked.format) == (5, "table")
    assert asked.models == ("resnet18", "vit_h_14", "regnet_y_128gf")
    assert asked.only == ("netlens", "torch", "torchvision", "torchinfo", "fvcore")


def test_lists_are_read_once_and_contestants_keep_their_order():
    asked = parse(["--repeats", "2", "--models", "resnet18, vgg11,resnet18", "--only", "torchinfo,netlens", "--inside", "none"])
    assert (asked.repeats, asked.models, asked.only, asked.inside) == (2, ("resnet18", "vgg11"), ("netlens", "torchinfo"), ())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--repeats", "0"], "'0' is not a number of runs"),
        (["--only", "netlens,thop"], "'thop' is none of netlens, torch,"),
        (["--only", ","], "',' is none of"),
        (["--models", "resnet18(),x"], "'resnet18()' is not a model's name"),
        (["--format", "xml"], "invalid choice: 'xml'"),
    ],
)
def test_what_cannot_be_read_is_said(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_the_measuring_process_imports_no_torch():
    """Its own size is the least that a child's peak can be."""
    program = "import sys, tests.benchmarks.__main__; print({'torch', 'numpy', 'torchvision'} & set(sys.modules))"
    outcome = run_child([sys.executable, "-c", program], Path(__file__).parents[1])
    assert (outcome.failure, outcome.stdout) == ("", "set()\n")
