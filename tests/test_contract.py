"""What every lens promises. A new lens is held to all of it by its name in LENSES and an entry in EXAMPLES."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from netlens.findings import CODES
from netlens.lenses import LENSES
from tests import schemas
from tests.conftest import REPOSITORY, Result, Shell

PACKAGE = REPOSITORY / "netlens"
FILES = sorted(PACKAGE.rglob("*.py"))
FIVE = ("report.py", "measure.py", "rules.py", "show.py", "command.py")
HEAVY = {"torch", "torchvision", "numpy", "PIL", "matplotlib"}

NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        print("printed by the model")
        return self.fc(x)


class Classes(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


class Trained(Classes):
    def __init__(self):
        super().__init__()
        for parameter in self.parameters():  # the same every time, as of a model that loads them itself
            parameter.data = torch.arange(parameter.numel()).sin().view_as(parameter)


class Pairs(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.full((3, 16, 16), index / 8).sin(), index % 2


class Conv(nn.Conv2d):
    def __init__(self, first=None):
        super().__init__(3, 8, 5)
        if first is not None:
            nn.init.constant_(self.weight[0], float(first))
"""


@dataclass(frozen=True)
class Example:
    """Command lines of one lens, run in a folder with `nets.py`, `two.npz` and pictures in `scenes` and `sick`."""

    good: str  # exit code 0 and no finding
    finding: str  # exit code 1
    early: tuple[str, ...]  # mistakes that are told before torch is imported
    late: tuple[str, ...] = ()  # mistakes that need it


EXAMPLES = {
    "summary": Example(
        good="summary nets.py:Net --input 1,4",
        finding="summary nets.py:Net --input 1,4 --max-params 14",  # Linear(4, 3) has 15
        early=(
            "summary",
            "summary nets.py:Net --no-such-option",
            "summary nets.py:Net --format yaml",
            "summary missing.py:Net",
            "summary ./missing.pt",
            "summary nets.py:Net --input 1,x",
            "summary nets.py:Net --model-arg width",
        ),
        late=("summary nets.py:Nett", "summary nets.py:Net --model-arg width=3 --input 1,4"),
    ),
    "kernels": Example(
        good="kernels nets.py:Conv",
        finding="kernels nets.py:Conv --model-arg first=nan",
        early=(
            "kernels",
            "kernels nets.py:Conv --no-such-option",
            "kernels missing.py:Conv",
            "kernels ./missing.pt",
            "kernels nets.py:Conv --against missing.pt",
            "kernels nets.py:Conv --scale huge",
            "kernels nets.py:Conv --max-filters none",
            "kernels nets.py:Conv --include convolutions",
            "kernels nets.py:Conv --out nets.py",
        ),
        late=("kernels nets.py:Conf", "kernels nets.py:Conv --layer layer5"),
    ),
    "featuremaps": Example(
        good="featuremaps nets.py:Conv --input 4,3,16,16",
        finding="featuremaps nets.py:Conv --input 4,3,16,16 --model-arg first=nan",
        early=(
            "featuremaps",
            "featuremaps nets.py:Conv --no-such-option",
            "featuremaps missing.py:Conv",
            "featuremaps ./missing.pt",
            "featuremaps nets.py:Conv --image missing.png",
            "featuremaps nets.py:Conv --image nets.py",
            "featuremaps nets.py:Conv --input 4,x",
            "featuremaps nets.py:Conv --input 4,3,16,16 --image missing.png",
            "featuremaps nets.py:Conv --input 4,3,16,16 --size 16",
            "featuremaps nets.py:Conv --device tpu",
            "featuremaps nets.py:Conv --device meta",
            "featuremaps nets.py:Conv --dtype fp7",
            "featuremaps nets.py:Conv --scale huge",
            "featuremaps nets.py:Conv --channels some",
            "featuremaps nets.py:Conv --query north",
            "featuremaps nets.py:Conv --out nets.py",
        ),
        late=(
            "featuremaps nets.py:Conf",
            "featuremaps nets.py:Conv --input 4,3,16,16 --layer layer5",
            "featuremaps nets.py:Conv --input 4,4,16,16",
            "featuremaps nets.py:Conv --input 4,3,16,16 --device cuda:99",
        ),
    ),
    "gradcam": Example(
        good="gradcam nets.py:Trained --input 2,3,16,16",
        finding="gradcam nets.py:Classes --input 2,3,16,16 --fail-on warning",  # it has learned nothing
        early=(
            "gradcam",
            "gradcam nets.py:Classes",
            "gradcam nets.py:Classes --no-such-option",
            "gradcam missing.py:Classes --input 1,3,16,16",
            "gradcam nets.py:Classes --image missing.png",
            "gradcam nets.py:Classes --image nets.py",
            "gradcam nets.py:Classes --input 1,x",
            "gradcam nets.py:Classes --input 1,3,16,16 --method gradcat",
            "gradcam nets.py:Classes --input 1,3,16,16 --names missing.txt",
            "gradcam nets.py:Classes --input 1,3,16,16 --boxes missing.json",
            "gradcam nets.py:Classes --input 1,3,16,16 --point here",
            "gradcam nets.py:Classes --input 1,3,16,16 --scale huge",
            "gradcam nets.py:Classes --input 1,3,16,16 --device meta",
            "gradcam nets.py:Classes --input 1,3,16,16 --out nets.py",
        ),
        late=(
            "gradcam nets.py:Classess --input 1,3,16,16",
            "gradcam nets.py:Classes --input 1,3,16,16 --layer layer5",
            "gradcam nets.py:Classes --input 1,3,16,16 --target 3",
            "gradcam nets.py:Classes --input 1,3,16,16 --target cat",
            "gradcam nets.py:Classes --input 1,4,16,16",
            "gradcam nets.py:Classes --input 1,3,16,16 --method legrad",
        ),
    ),
    "gradflow": Example(
        good="gradflow nets.py:Trained --input two.npz --train",
        finding="gradflow nets.py:Conv --input 4,3,16,16 --model-arg first=nan",
        early=(
            "gradflow",
            "gradflow nets.py:Classes --no-such-option",
            "gradflow missing.py:Classes",
            "gradflow nets.py:Classes --input 1,x",
            "gradflow nets.py:Classes --input missing.pt",
            "gradflow nets.py:Classes --input 4,3,16,16 --loss cross_entrop",
            "gradflow nets.py:Classes --input 4,3,16,16 --optimizer adm",
            "gradflow nets.py:Classes --input 4,3,16,16 --lr -1",
            "gradflow nets.py:Classes --input 4,3,16,16 --steps 0",
            "gradflow nets.py:Classes --input 4,3,16,16 --amp fp8",
            "gradflow nets.py:Classes --input 4,3,16,16 --sort size",
            "gradflow nets.py:Classes --input 4,3,16,16 --device meta",
            "gradflow nets.py:Classes --input 4,3,16,16 --out nets.py",
        ),
        late=(
            "gradflow nets.py:Classess",
            "gradflow nets.py:Classes --input 4,4,16,16",
            "gradflow nets.py:Classes --data nets.py:NoData",
        ),
    ),
    "check_data": Example(
        good="check-data scenes",
        finding="check-data sick",
        early=(
            "check-data",
            "check-data scenes --no-such-option",
            "check-data missing",
            "check-data two.npz",
            "check-data nets.py",
            "check-data scenes --val nets.py:Pairs",
            "check-data scenes --val missing",
            "check-data scenes --classes cat",
            "check-data scenes --classes 0",
            "check-data scenes --images scenes",
            "check-data scenes --target-rate 100",
            "check-data nets.py:Pairs --target-rate -1",
            "check-data nets.py:Pairs --cache seen",
            "check-data nets.py:Pairs --device tpu",
            "check-data scenes --workers 0",
            "check-data scenes --out nets.py",
            "check-data scenes --out scenes/pictures",
            "check-data scenes --fix-list scenes/bad.txt",
            "check-data scenes --fix-list nets.py",
        ),
        late=("check-data nothing", "check-data nets.py:Pears", "check-data nets.py:Net"),
    ),
}


# --- Layering: who may import what (DESIGN, section 2)


@dataclass(frozen=True)
class Layer:
    """What the files of one kind may import."""

    own: str  # parts of netlens, at module level; {lens} is the lens that the file belongs to
    foreign: str = ""  # installed packages, at module level, directly or through any other file of netlens
    never: str = ""  # not even inside a function


# These themselves use the standard library alone.
EVERYONE = (
    "netlens netlens.errors netlens.findings netlens.parts netlens.wording netlens.loading.suggest "
    "netlens.data netlens.data.issues netlens.data.facts_types netlens.loaders netlens.loaders.facts"
)
LAYERS = {
    r"netlens/(__init__|errors|findings|parts|wording|jsonable|loading/suggest)\.py": Layer(own="netlens.errors"),
    r"netlens/__main__\.py": Layer(own="netlens.cli", never="torch rich"),
    r"netlens/cli/app\.py": Layer(own="netlens.cli netlens.lenses", foreign="typer", never="torch"),
    r"netlens/cli/lean\.py": Layer(own="netlens.cli"),  # stands in for a part of torch, so it names it, inside a function
    r"netlens/cli/\w+\.py": Layer(own="netlens.cli netlens.jsonable", foreign="typer", never="torch"),
    r"netlens/lenses/(\w+)/(command|request|check|checkpoint_request)\.py": Layer(
        own="netlens.cli netlens.loading netlens.lenses.{lens}", foreign="typer", never="torch"
    ),
    r"netlens/lenses/(\w+)/show\.py": Layer(
        own="netlens.drawing netlens.lenses.{lens}", foreign="rich PIL numpy", never="torch torchvision typer netlens.cli"
    ),
    r"netlens/lenses/(\w+)/measure\.py": Layer(
        own="netlens.probing netlens.data netlens.lenses.{lens}",
        foreign="torch numpy PIL",
        never="rich typer PIL matplotlib netlens.cli netlens.drawing",
    ),
    r"netlens/lenses/(\w+)/(rules|report)\.py": Layer(own="netlens.lenses.{lens}", never="torch rich typer PIL netlens.cli"),
    r"netlens/lenses/(\w+)/\w+\.py": Layer(
        own="netlens.drawing netlens.loading netlens.probing netlens.data netlens.loaders netlens.lenses.{lens}",
        foreign="torch rich PIL numpy",
        never="typer netlens.cli",
    ),
    r"netlens/lenses/__init__\.py": Layer(own=""),
    r"netlens/data/distributed\.py": Layer(
        own="netlens.data netlens.loading", foreign="numpy", never="rich typer netlens.lenses netlens.cli"
    ),
    r"netlens/data/\w+\.py": Layer(
        own="netlens.data netlens.loading", foreign="numpy PIL", never="torch rich typer netlens.lenses netlens.cli netlens.drawing"
    ),
    r"netlens/loaders/\w+\.py": Layer(
        own="netlens.loaders netlens.loading netlens.probing netlens.data",
        foreign="torch numpy",
        never="rich typer netlens.lenses netlens.cli netlens.drawing",
    ),
    r"netlens/drawing/\w+\.py": Layer(
        own="netlens.drawing", foreign="rich PIL numpy", never="torch torchvision typer netlens.lenses netlens.cli"
    ),
    r"netlens/(loading|probing)/(\w+/)?\w+\.py": Layer(
        own="netlens.loading netlens.probing", foreign="torch", never="rich typer netlens.lenses netlens.cli netlens.drawing"
    ),
}  # the first that matches counts


def layer_of(file: Path) -> Layer:
    name = file.relative_to(REPOSITORY).as_posix()
    for pattern, layer in LAYERS.items():
        if match := re.fullmatch(pattern, name):
            return Layer(layer.own.format(lens=match[1] if match.groups() else ""), layer.foreign, layer.never)
    raise AssertionError(f"{name} has no place in the layout of DESIGN, section 2")


def module_of(file: Path) -> str:
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in FILES}


@cache
def imports(file: Path) -> tuple[frozenset[str], frozenset[str]]:
    """Return the modules that `file` imports at module level and those that it imports anywhere; the standard library is left out."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    everywhere = frozenset(found for node in ast.walk(tree) for found in imported(node))
    return frozenset(found for node in at_module_level(tree) for found in imported(node)), everywhere


def at_module_level(node: ast.AST) -> Iterator[ast.AST]:
    """Walk over what runs on import: neither functions nor `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        yield child
        yield from at_module_level(child)


def imported(node: ast.AST) -> Iterator[str]:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"a relative import: {ast.unparse(node)}"
        base = node.module or ""
        names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names]
    yield from (name for name in names if name.partition(".")[0] not in sys.stdlib_module_names)


def within(module: str, packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages.split() if package != "netlens")


@cache
def reach(module: str) -> dict[str, tuple[str, ...]]:
    """Return every installed package that importing `module` imports, each with the way there."""
    found: dict[str, tuple[str, ...]] = {}
    ways = [(module,)]
    seen = {module}
    for way in ways:  # grows while it is walked
        parents = way[-1].split(".")
        direct = set(imports(MODULES[way[-1]])[0]) | {".".join(parents[:end]) for end in range(1, len(parents))}
        for name in sorted(direct - seen):
            if name in MODULES:
                seen.add(name)
                ways.append((*way, name))
            else:
                found.setdefault(name.partition(".")[0], (*way, name))
    return found


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_a_file_imports_only_what_its_layer_may(file):
    layer = layer_of(file)
    direct, anywhere = imports(file)
    own = [name for name in direct if name in MODULES and not within(name, layer.own) and name not in EVERYONE.split()]
    foreign = {name: " -> ".join(way) for name, way in reach(module_of(file)).items() if name not in layer.foreign.split()}
    forbidden = [name for name in anywhere if within(name, layer.never)]
    assert (own, foreign, forbidden) == ([], {}, [])


@pytest.mark.parametrize("lens", LENSES)
def test_a_lens_never_imports_another_lens(lens):
    others = " ".join(f"netlens.lenses.{other}" for other in LENSES if other != lens)
    for file in (PACKAGE / "lenses" / lens).rglob("*.py"):
        assert [name for name in imports(file)[1] if within(name, others)] == [], file


def test_there_is_no_import_cycle():
    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way, module))
        if module not in done:
            for name in imports(MODULES[module])[0]:
                if name in MODULES:
                    visit(name, (*way, module))
            done.add(module)

    done: set[str] = set()
    for module in MODULES:
        visit(module, ())


FOREIGN = """
import os, torch.nn as nn
from typing import TYPE_CHECKING
from netlens import errors
try:
    import timm
except ImportError:
    pass
if TYPE_CHECKING:
    import rich
class A:
    import PIL
    def f(self):
        from numpy import array
"""


def test_the_layering_test_sees_what_it_must_see(tmp_path):
    """Hold the reader of imports against a file whose imports are known."""
    file = tmp_path / "x.py"
    file.write_text(FOREIGN)
    direct, anywhere = imports(file)
    assert direct == {"torch.nn", "netlens.errors", "timm", "PIL"}
    assert anywhere == direct | {"rich", "numpy"}


# --- The shape of the house


@pytest.mark.parametrize("lens", LENSES)
def test_every_lens_has_the_same_five_files(lens):
    assert [name for name in FIVE if not (PACKAGE / "lenses" / lens / name).is_file()] == []


def test_every_folder_of_a_lens_is_registered():
    folders = {file.parent.name for file in (PACKAGE / "lenses").glob("*/__init__.py")}
    assert folders == set(LENSES) == set(EXAMPLES)


def test_every_code_of_a_finding_is_in_the_table_and_used():
    constants, codes = set(), set()
    for file in FILES:
        if file != PACKAGE / "findings.py":
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                constants |= {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()
                codes |= set(code_of(node))
    assert codes - set(CODES) == set(), "reported, but not in findings.CODES"
    assert set(CODES) - constants == set(), "in findings.CODES, but never reported"


def code_of(node: ast.AST) -> Iterator[str]:
    """Yield the code in `Finding("max-params", ...)`, where it stands there as it is."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
        first = [*node.args[:1], *(keyword.value for keyword in node.keywords if keyword.arg == "code")]
        yield from (value.value for value in first if isinstance(value, ast.Constant))


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_everything_public_has_a_docstring(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    if not tree.body:  # an empty __init__.py
        return
    assert ast.get_docstring(tree), "the module"
    assert [name for name, node in public(tree) if not ast.get_docstring(node)] == []


def public(tree: ast.Module | ast.ClassDef) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """Yield the functions, classes and methods that others may use."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            overloaded = any(
                "overload" in ast.unparse(decorator) or "override" in ast.unparse(decorator) for decorator in node.decorator_list
            )
            if not overloaded:
                yield node.name, node
            if isinstance(node, ast.ClassDef):
                yield from ((f"{node.name}.{name}", inner) for name, inner in public(node))


def test_the_console_script_is_there():
    found = re.search(r'^netlens = "([\w.]+):(\w+)"$', (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None and found[1] in MODULES
    assert f"def {found[2]}(" in MODULES[found[1]].read_text(encoding="utf-8")


# --- What the command line keeps


@pytest.fixture(scope="module")
def run(netlens: Shell, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Result]:
    """Run a command line in a folder with `nets.py` and two pictures with their classes, `two.npz`; the same one only once."""
    folder = tmp_path_factory.mktemp("nets")
    (folder / "nets.py").write_text(NETS)
    pixels = np.sin(np.arange(2 * 3 * 16 * 16, dtype=np.float32)).reshape(2, 3, 16, 16)
    np.savez(folder / "two.npz", x=pixels, labels=np.array([0, 2]))
    shutil.copytree(REPOSITORY / "sample_models" / "scenes", folder / "scenes", ignore=shutil.ignore_patterns("*.json"))
    shutil.copytree(folder / "scenes", folder / "sick")
    (folder / "sick" / "13.png").write_bytes(b"")
    (folder / "nothing").mkdir()
    return cache(lambda line, **env: netlens(*shlex.split(line), cwd=folder, env=env))


def mistakes(*, late: bool) -> list[str]:
    return [line for example in EXAMPLES.values() for line in (*example.early, *(example.late if late else ()))]


def goods() -> list[tuple[str, str]]:
    return [(lens, example.good) for lens, example in EXAMPLES.items()]


@pytest.mark.parametrize("line", ["--help", "--version", *(f"{lens.replace('_', '-')} --help" for lens in LENSES), *mistakes(late=False)])
def test_what_needs_no_torch_does_not_import_it(run, line):
    done = run(line)
    assert done.returncode == (0 if line.endswith(("--help", "--version")) else 2), done.stderr
    assert HEAVY & done.modules == set()


@pytest.mark.parametrize("line", ["no-such-command", "--no-such-option", *mistakes(late=True)])
def test_a_mistake_is_two_lines_on_stderr_and_exit_code_2(run, line):
    done = run(line)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 2 and re.match(r"error: \S", lines[0]) and re.match(r"hint: \S", lines[1]), done.stderr


@pytest.mark.parametrize(("lens", "line"), goods())
def test_stdout_is_the_report_and_nothing_else(run, lens, line):
    """The model prints while it runs: that goes to stderr, and the document on stdout stays one document."""
    done = run(f"{line} --format json")
    assert done.returncode == 0, done.stderr
    assert {line for line in done.stderr.splitlines() if not line.startswith("wrote ")} <= {"printed by the model"}
    document = json.loads(done.stdout, parse_constant=pytest.fail)
    assert list(document) == ["schema", "netlens", "torch", "subject", "report", "findings"]
    assert re.fullmatch(rf"netlens\.{lens.replace('_', '-')}/\d+", document["schema"])
    assert (document["findings"], list(document["report"])) == ([], list(schemas.report_type(lens).__dataclass_fields__))


@pytest.mark.parametrize(("lens", "line"), goods())
def test_the_json_document_follows_the_checked_in_schema(run, lens, line):
    jsonschema = pytest.importorskip("jsonschema", reason="in the dev extra")
    schema = json.loads(schemas.path(lens).read_text(encoding="utf-8"))
    jsonschema.validate(json.loads(run(f"{line} --format json").stdout)["report"], schema)


@pytest.mark.parametrize(("lens", "line"), goods())
def test_the_same_question_gives_the_same_bytes(run, lens, line):
    first, second = (run(f"{line} --format json", PYTHONHASHSEED=seed) for seed in "12")
    assert first.stdout == second.stdout != ""


@pytest.mark.parametrize("form", ["table", "markdown", "github"])
@pytest.mark.parametrize(("lens", "line"), goods())
def test_done_is_exit_code_0_in_every_format(run, lens, line, form):
    done = run(f"{line} --format {form}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and "\x1b" not in done.stdout


@pytest.mark.parametrize("line", [example.finding for example in EXAMPLES.values()])
def test_a_finding_is_exit_code_1_unless_it_must_never_be(run, line):
    assert run(line).returncode == 1
    done = run(f"{line} --fail-on never --format json")
    assert (done.returncode, [finding["code"] in CODES for finding in json.loads(done.stdout)["findings"]]) == (0, [True])


@pytest.mark.parametrize("lens", LENSES)
def test_every_command_takes_the_options_that_all_share(run, lens):
    text = run(f"{lens.replace('_', '-')} --help").stdout
    assert [option for option in ("--format", "--fail-on", "--traceback", "--help") if option not in text] == []


# --- README


def readme_commands() -> list[str]:
    """Return every command line of README, which are indented, that starts with `netlens`."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(r"^    (?:\$ )?netlens (.*)", text, re.MULTILINE)


def test_readme_shows_commands():
    assert readme_commands() != []


@pytest.mark.parametrize("line", readme_commands())
def test_the_commands_of_readme_exist(line):
    from typer import Exit
    from typer.main import get_command

    from netlens.cli.app import build

    words = shlex.split(re.split(r" \| | > | && | ; ", line)[0], comments=True)
    group = get_command(build())
    if words[0].startswith("-"):
        with pytest.raises(Exit):
            group.make_context("netlens", words)
    else:
        assert words[0] in group.commands
        if "--help" not in words:
            group.commands[words[0]].make_context(words[0], words[1:])
