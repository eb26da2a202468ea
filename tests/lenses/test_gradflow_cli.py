"""`netlens gradflow` as a careless user types it: what it answers, what it writes, and how its mistakes end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from netlens.cli.app import run
from netlens.errors import NetlensError

REPOSITORY = Path(__file__).parents[2]
SICK = REPOSITORY / "sample_models" / "sick.py"

MODELS = """
import sys
import torch
from torch import nn
import torch.nn.functional as F

class Plain(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, width, 3), nn.Linear(width, 3)
    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))

class Normed(Plain):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(8)
    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))

class Own(Plain):
    def forward(self, x, labels=None):
        scores = super().forward(x)
        return {"loss": 3 * F.cross_entropy(scores, labels), "scores": scores} if labels is not None else scores

class Unused(Plain):
    def __init__(self):
        super().__init__()
        self.extra = nn.Linear(2, 2)

class Dead(Plain):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(8, 8)
        nn.init.constant_(self.inner.bias, -50)
    def forward(self, x):
        hidden = torch.relu(self.conv(x)).mean((2, 3))
        return self.head(hidden + torch.relu(self.inner(hidden)))

class Raises(Plain):
    def forward(self, x):
        super().forward(x)
        raise ValueError("first line\\nsecond line")

class Exits(Plain):
    def forward(self, x):
        sys.exit(0)

class Prints(Plain):
    def forward(self, x):
        print("hello")
        return super().forward(x)

class Nothing(Plain):
    def forward(self, x):
        super().forward(x)

def frozen(): return Plain().requires_grad_(False)

def focal(scores, labels):
    return (F.cross_entropy(scores, labels, reduction="none") ** 2).mean()

def fails(scores, labels):
    raise KeyError("lost")

def word(scores, labels):
    return "low"

class Pairs(torch.utils.data.Dataset):
    def __len__(self): return 12
    def __getitem__(self, i):
        return torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(i)) + i % 3, i % 3

class NoLabels(Pairs):
    def __getitem__(self, i): return super().__getitem__(i)[0]

class Lost(Pairs):
    def __getitem__(self, i):
        if i == 4: raise KeyError("lost")
        return super().__getitem__(i)

def loader():
    return torch.utils.data.DataLoader(Pairs(), batch_size=4)

class Steady(torch.optim.SGD):
    pass
"""

Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "gf_models.py").write_text(MODELS)
    torch.save({"x": pictures(), "labels": torch.arange(12) % 3}, tmp_path / "x.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run one command line in this process; NetlensErrors are raised."""

    def ask(line: str, *more: str) -> tuple[int, str]:
        arguments: Sequence[str] = ["gradflow", *line.split(), *more]
        monkeypatch.setattr(sys, "argv", ["netlens", *arguments])
        capfd.readouterr()
        code = run(arguments)
        return code, capfd.readouterr().out

    return ask


def document(cli: Cli, line: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli(f"{line} --no-pictures --format json")[1])
    return found


def report(cli: Cli, line: str) -> dict[str, Any]:
    found: dict[str, Any] = document(cli, line)["report"]
    return found


def pictures() -> Tensor:
    """The samples of `Pairs`, in their order."""
    return torch.stack([torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(i)) + i % 3 for i in range(12)])


# -- what a training loop by hand says -----------------------------------------------------------------------------------------------


class Hand(nn.Module):
    """`Plain` and `Normed` once more: built in the same order, so that seed 0 gives the same weights."""

    def __init__(self, *, normed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 3)
        self.norm = nn.BatchNorm2d(8) if normed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))

    def differentiated(self, x: Tensor, labels: Tensor, loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy) -> float:
        self.zero_grad()
        value = loss(self(x), labels)
        value.backward()
        return float(value.detach())


X, LABELS = pictures(), torch.arange(12) % 3


def norms(model: nn.Module) -> dict[str, float]:
    return {name: float(np.linalg.norm(each.grad.double().numpy())) for name, each in model.named_parameters() if each.grad is not None}


def of(found: dict[str, Any], column: str) -> dict[str, float]:
    return {row["name"]: row[column] for row in found["parameters"]}


def near(numbers: dict[str, float], rel: float = 1e-4) -> Any:
    return pytest.approx(numbers, rel=rel, abs=1e-7)


def test_gradients_are_those_of_a_backward_pass_on_the_saved_tensors(cli):
    found, hand = report(cli, "gf_models.py:Plain --input x.pt --batch-size 12"), Hand()
    assert found["steps"][0]["loss"] == pytest.approx(hand.differentiated(X, LABELS), rel=1e-5)
    assert of(found, "norm") == near(norms(hand))
    rows = {row["name"]: row for row in found["parameters"]}
    for name, parameter in hand.named_parameters():
        gradient, weight = parameter.grad.double().numpy(), parameter.detach().double().numpy()
        assert rows[name]["mean"] == pytest.approx(np.abs(gradient).mean(), rel=1e-4)
        assert rows[name]["greatest"] == pytest.approx(np.abs(gradient).max(), rel=1e-4)
        assert rows[name]["ratio"] == pytest.approx(np.linalg.norm(gradient) / np.linalg.norm(weight), rel=1e-4)
        assert rows[name]["zeros"] == (gradient == 0).mean()
    assert found["run"]["loss_source"] == "inferred: output (12, 3) and integer labels below 3"
    assert (found["run"]["random_inputs"], found["run"]["random_labels"], found["noise"]) == (False, False, None)


@pytest.mark.parametrize(
    ("options", "make"),
    [
        ("", lambda parameters: torch.optim.SGD(parameters, lr=0.1)),
        ("--lr 0.02", lambda parameters: torch.optim.SGD(parameters, lr=0.02)),
        ("--optimizer adamw:weight_decay=0.3 --lr 0.002", lambda parameters: torch.optim.AdamW(parameters, lr=0.002, weight_decay=0.3)),
        ("--optimizer rmsprop", torch.optim.RMSprop),
        ("--optimizer gf_models.py:Steady --lr 0.5", lambda parameters: torch.optim.SGD(parameters, lr=0.5)),
    ],
)
def test_steps_are_those_of_the_optimizer_asked_for(cli, options, make):
    found, hand = report(cli, f"gf_models.py:Plain --input x.pt --batch-size 12 --steps 3 {options}"), Hand()
    optimizer, losses = make(hand.parameters()), []
    for _ in range(3):
        losses.append(hand.differentiated(X, LABELS))
        before = {name: parameter.detach().clone() for name, parameter in hand.named_parameters()}
        optimizer.step()
    moved = {name: float((each.detach() - before[name]).norm() / before[name].norm()) for name, each in hand.named_parameters()}
    assert [step["loss"] for step in found["steps"]] == pytest.approx(losses, rel=1e-4)
    assert of(found, "update") == near(moved, 1e-3)
    assert found["run"]["optimizer"].lower().startswith(type(optimizer).__name__.lower()[:3] if "Steady" not in options else "steady")


def test_batches_of_one_step_are_averaged(cli):
    found, hand = report(cli, "gf_models.py:Plain --data gf_models.py:loader --accumulate 3"), Hand()
    assert found["steps"][0]["loss"] == pytest.approx(hand.differentiated(X, LABELS), rel=1e-5)
    assert of(found, "norm") == near(norms(hand))
    assert (found["run"]["accumulate"], found["run"]["batch_size"]) == (3, 4)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_normalisation_is_in_the_mode_asked_for(cli, mode):
    found, hand = report(cli, f"gf_models.py:Normed --input x.pt --batch-size 12 --{mode}"), Hand(normed=True).train(mode == "train")
    hand.differentiated(X, LABELS)
    named = {"conv": of(found, "norm")["conv.weight"], "head": of(found, "norm")["head.weight"]}
    assert named == near({"conv": norms(hand)["conv.weight"], "head": norms(hand)["head.weight"]}, 1e-3)
    assert found["run"]["mode"] == mode


def test_mixed_precision_is_that_of_training(cli):
    found, hand = report(cli, "gf_models.py:Plain --input x.pt --batch-size 12 --amp bf16"), Hand()
    exact = hand.differentiated(X, LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(hand(X), LABELS)
    assert found["steps"][0]["loss"] == pytest.approx(loss.item(), rel=1e-6) != pytest.approx(exact, rel=1e-6)
    assert (found["run"]["amp"], found["run"]["dtype"]) == ("bf16", "float32")


@pytest.mark.parametrize(
    ("options", "loss", "said"),
    [
        ("--loss cross_entropy:label_smoothing=0.5", lambda o, y: F.cross_entropy(o, y, label_smoothing=0.5), "--loss"),
        ("--loss CrossEntropyLoss", F.cross_entropy, "--loss"),
        ("--loss multi_margin", F.multi_margin_loss, "--loss"),
        ("--loss gf_models.py:focal", lambda o, y: (F.cross_entropy(o, y, reduction="none") ** 2).mean(), "--loss"),
    ],
)
def test_losses_by_name_and_of_the_user(cli, options, loss, said):
    found, hand = report(cli, f"gf_models.py:Plain --input x.pt --batch-size 12 {options}"), Hand()
    assert found["steps"][0]["loss"] == pytest.approx(hand.differentiated(X, LABELS, loss), rel=1e-5)
    assert of(found, "norm") == near(norms(hand)) and found["run"]["loss_source"] == said


def test_a_model_that_computes_its_loss_itself(cli):
    found, hand = report(cli, "gf_models.py:Own --input x.pt --batch-size 12"), Hand()
    assert found["steps"][0]["loss"] == pytest.approx(3 * hand.differentiated(X, LABELS), rel=1e-5)
    assert (found["run"]["kind"], found["run"]["loss"]) == ("the model's own loss", "the model's own")


# -- data ----------------------------------------------------------------------------------------------------------------------------


def test_labels_of_a_folder_of_pictures_are_its_folders(cli, folder):
    for place, name in enumerate(("ant", "bee", "cow")):
        (folder / "train" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (6, 6), (80 * place, 100, 20 * number)).save(folder / "train" / name / f"{number}.png")
    found = report(cli, "gf_models.py:Plain --data train --size 6 --mean 0 --std 1 --batch-size 6")
    x = torch.tensor([(80 * place, 100, 20 * number) for place in range(3) for number in range(2)]) / 255
    hand = Hand()
    loss = hand.differentiated(x[:, :, None, None].expand(-1, -1, 6, 6), torch.arange(6) // 2)
    assert found["steps"][0]["loss"] == pytest.approx(loss, rel=1e-5)
    assert (found["output"]["label_least"], found["output"]["label_greatest"]) == (0, 2)
    assert found["inputs"] == "--data train" and not found["run"]["random_labels"]


def test_a_data_set_is_shuffled_and_a_whole_batch_of_it_is_all_of_it(cli):
    found, hand = report(cli, "gf_models.py:Plain --data gf_models.py:Pairs --batch-size 12"), Hand()
    assert found["steps"][0]["loss"] == pytest.approx(hand.differentiated(X, LABELS), rel=1e-5)
    assert found["noise"] is None  # there is one batch
    few = report(cli, "gf_models.py:Plain --data gf_models.py:Pairs --batch-size 4")
    assert few["output"]["label_greatest"] > few["output"]["label_least"]


def test_noise_is_measured_over_batches_that_differ(cli):
    line = "gf_models.py:Plain --data gf_models.py:loader"
    assert report(cli, line)["noise"]["batches"] == report(cli, f"{line} --noise 9")["noise"]["batches"] == 3
    assert report(cli, f"{line} --noise 0")["noise"] is None
    found = report(cli, f"{line} --noise 3")["noise"]
    gradients = []
    for start in (0, 4, 8):
        hand = Hand()
        hand.differentiated(X[start : start + 4], LABELS[start : start + 4])
        gradients.append(np.concatenate([each.grad.double().numpy().ravel() for each in hand.parameters()]))
    spread = np.var(gradients, axis=0, ddof=1).sum()
    assert found["scale"] == pytest.approx(4 * spread / (np.square(np.mean(gradients, axis=0)).sum() - spread / 3), rel=1e-3)


def test_an_incomplete_batch_is_not_compared_with_the_others(cli):
    assert report(cli, "gf_models.py:Plain --input x.pt --batch-size 5 --noise 3")["noise"]["batches"] == 2  # of 5, 5 and 2
    assert report(cli, "gf_models.py:Plain --input x.pt --batch-size 8 --noise 3")["noise"] is None


def test_without_data_the_report_says_that_it_is_noise(cli):
    code, out = cli("gf_models.py:Plain --input 4,3,6,6 --no-pictures")
    assert code == 0 and "RANDOM INPUTS AND LABELS" in out
    found = report(cli, "gf_models.py:Plain --input 4,3,6,6")["run"]
    assert found["random_inputs"] and found["random_labels"]


# -- trials, table, pictures ---------------------------------------------------------------------------------------------------------


def test_trials_are_reported_and_drawn(cli, folder):
    code, out = cli("gf_models.py:Normed --data gf_models.py:Pairs --batch-size 4 --overfit --lr-range --steps 2 --format json")
    found = json.loads(out)["report"]
    tried, rates = found["overfit"], found["rate_range"]
    assert code == 0 and tried["samples"] == 12 and tried["passed"] and tried["best"] < tried["losses"][0]
    assert len(rates["rates"]) == len(rates["losses"]) and rates["rates"] == sorted(rates["rates"])
    drawn = {path.name for path in (folder / "netlens-out").iterdir()}
    assert drawn == {f"gradflow-Normed-{name}.png" for name in ("flow", "ratios", "steps", "histograms", "overfit", "lr-range")}
    assert {picture["file"].rpartition("/")[2] for picture in found["pictures"]} == drawn


def test_every_picture_says_where_it_comes_from(cli, folder):
    line = "gf_models.py:Plain --input x.pt --seed 3 --out maps"
    cli(line)
    files = list((folder / "maps").iterdir())
    assert len(files) == 3
    for file in files:
        with Image.open(file) as image:
            texts, pixels = image.info, np.asarray(image.convert("RGB"))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 5
        assert texts["Command"] == f"netlens gradflow {line}" and texts["Software"].startswith("netlens ")
        assert (texts["Model"], texts["Seed"], texts["Inputs"]) == ("gf_models.py:Plain", "3", "--input x.pt")
        assert (texts["Loss"], texts["Optimizer"], texts["Dtype"]) == ("cross_entropy", "SGD(lr=0.1)", "float32")


def test_rows_come_in_forward_order_or_the_worst_first(cli):
    line = "gf_models.py:Dead --input x.pt --no-pictures --fail-on never"

    def rows(out: str) -> list[str]:
        table = out.split("# ")[1].splitlines()[2:]
        return [row.split()[1] for row in table if row[:1].isdigit()]

    assert rows(cli(line)[1]) == ["conv.weight", "conv.bias", "inner.weight", "inner.bias", "head.weight", "head.bias"]
    assert rows(cli(f"{line} --sort worst")[1])[0] == "inner.weight"


def test_the_same_question_gives_the_same_bytes_and_another_seed_others(cli, folder):
    answers = []
    for seed in (0, 0, 1):
        _, out = cli(f"gf_models.py:Plain --data gf_models.py:Pairs --batch-size 4 --seed {seed} --steps 2 --format json")
        answers.append((out, {path.name: path.read_bytes() for path in (folder / "netlens-out").iterdir()}))
    assert answers[0] == answers[1] and answers[0][1]
    assert answers[0][0] != answers[2][0]


def test_what_the_model_prints_is_not_in_the_report(cli):
    json.loads(cli("gf_models.py:Prints --input x.pt --no-pictures --format json")[1])


@pytest.mark.parametrize("form", ["table", "markdown", "github"])
def test_every_format_names_the_layer_that_stops_it(cli, form):
    _, out = cli(f"gf_models.py:Dead --input x.pt --no-pictures --format {form}")
    assert "inner" in out and "gradient" in out


# -- exit codes ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("gf_models.py:Plain --input x.pt --fail-on warning", 0),
        ("gf_models.py:Unused --input x.pt", 0),  # a warning: less than half of what can learn
        ("gf_models.py:Unused --input x.pt --fail-on warning", 1),
        ("gf_models.py:Plain --input x.pt --lr 1e6", 1),
        ("gf_models.py:Plain --input x.pt --lr 1e6 --fail-on never", 0),
        (f"{SICK}:nan_weight --input 4,3,64,64", 1),
    ],
)
def test_the_exit_code_is_that_of_the_gravest_finding(cli, line, code):
    assert cli(f"{line} --no-pictures")[0] == code


def test_defaults_of_the_repository_are_taken_and_the_command_line_overrides_them(cli, folder):
    (folder / ".git").mkdir()
    (folder / "pyproject.toml").write_text('[tool.netlens]\nfail-on = "never"\nbatch-size = 3\ndtype = "fp64"')
    line = "gf_models.py:Plain --data gf_models.py:Pairs"
    found = report(cli, line)["run"]
    assert (found["batch_size"], found["dtype"]) == (3, "float64")
    assert cli(f"{line} --no-pictures --lr 1e6")[0] == 0
    assert cli(f"{line} --no-pictures --lr 1e6 --fail-on error --batch-size 4 --dtype fp32")[0] == 1


# -- mistakes ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("gf_models.py:Plain --input none.pt", "no file 'none.pt'"),
        ("gf_models.py:Plain --input 4,4,6,6", r"layer `conv` Conv2d expects \(N, 3, H, W\), got \(4, 4, 6, 6\)"),
        ("gf_models.py:Plain --input x.pt --data gf_models.py:Pairs", "both say what goes in"),
        ("gf_models.py:Plain --input x.pt --samples 2", "--samples limits --data"),
        ("gf_models.py:Plain --input x.pt --loss cross_entrop", "cross_entrop"),
        ("gf_models.py:Plain --input x.pt --loss cross_entropy:label=3", "cross_entropy has no option 'label'"),
        ("gf_models.py:Plain --input x.pt --loss mse", "mse"),
        ("gf_models.py:Plain --input wrong.pt", "label"),
        ("gf_models.py:Plain --input x.pt --loss gf_models.py:nope", "has no 'nope'"),
        ("gf_models.py:Plain --input x.pt --loss gf_models.py:fails", "raised KeyError: 'lost'"),
        ("gf_models.py:Plain --input x.pt --loss gf_models.py:word", "gf_models.py:word"),
        ("gf_models.py:Plain --input x.pt --optimizer adm", "no optimizer 'adm'"),
        ("gf_models.py:Plain --input x.pt --optimizer adamw:beta=3", "AdamW has no option 'beta'"),
        ("gf_models.py:Plain --input x.pt --optimizer adamw:lr=1 --lr 1", "both give a learning rate"),
        ("gf_models.py:Plain --input x.pt --optimizer lbfgs", "LBFGS computes the loss many times"),
        ("gf_models.py:Plain --input x.pt --optimizer sparseadam", "SparseAdam cannot take a step"),
        ("gf_models.py:Plain --input x.pt --optimizer muon", "Muon cannot be made"),
        ("gf_models.py:Plain --input x.pt --lr nan", "no number of 0 or more"),
        ("gf_models.py:Plain --input x.pt --amp fp8", "fp8"),
        ("gf_models.py:Plain --input x.pt --sort size", "size"),
        ("gf_models.py:Plain --input x.pt --device meta", "computes nothing"),
        ("gf_models.py:Plain --input x.pt --no-pictures --show", "--no-pictures makes none"),
        ("gf_models.py:Plain --data gf_models.py:NoLabels", "gives no labels"),
        ("gf_models.py:Plain --data gf_models.py:Lost", r"sample 4 of .* raised KeyError: 'lost'"),
        ("gf_models.py:Raises --input x.pt", "the forward of Raises raised: ValueError: first line second line"),
        ("gf_models.py:Nothing --input x.pt", "no floating numbers"),
        ("gf_models.py:frozen --input x.pt", "no parameters that are not frozen"),
    ],
)
def test_a_mistake_ends_in_an_error_that_names_it(cli, folder, line, error):
    torch.save({"x": X, "labels": LABELS + 1}, "wrong.pt")
    with pytest.raises(NetlensError, match=error) as raised:
        cli(line)
    assert raised.value.hint and "\n" not in raised.value.message and not (folder / "netlens-out").exists()


@pytest.mark.parametrize("name", ["Exits", "Raises"])
def test_mistakes_are_two_lines_in_a_shell(netlens, folder, name):
    done = netlens("gradflow", f"gf_models.py:{name}", "--input", "x.pt", cwd=folder)
    first, second = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "") and first.startswith("error: ") and second.startswith("hint: ")
