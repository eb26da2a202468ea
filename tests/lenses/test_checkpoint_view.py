"""`netlens summary FILE`: its numbers against torch.load and the model itself, its table against its own total, and what it says."""

from __future__ import annotations

import gc
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from netlens.errors import UsageError
from netlens.lenses.summary.checkpoint_measure import layout_of, measure
from netlens.lenses.summary.checkpoint_show import as_markdown, as_text
from netlens.lenses.summary.rows import TableOptions
from netlens.loading.checkpoints.archive import Archive, TensorGroup
from tests import schemas
from tests.conftest import Shell
from tests.lenses.checkpoint_case import by_hand, drawn_rows, look, net, saved, tensors, training

UNTIED = ("head.weight",)  # the second name of the embedding


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one checkpoint in several formats."""
    from safetensors.torch import save_file

    made = tmp_path_factory.mktemp("checkpoints")
    saved(made, net().state_dict(), "zip.pt")
    saved(made, net().state_dict(), "legacy.pt", _use_new_zipfile_serialization=False)
    saved(made, net(), "module.pt")
    saved(made, training(), "last.ckpt")
    save_file({name: tensor for name, tensor in net().state_dict().items() if name not in UNTIED}, made / "net.safetensors")
    return made


def state(path: Path) -> dict[str, Tensor]:
    """Return the weights as torch reads them."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if path.name == "module.pt":
        return net().state_dict()
    return torch.load(path, weights_only=True)


# --- numbers


@pytest.mark.parametrize("name", ["zip.pt", "legacy.pt", "module.pt", "net.safetensors"])
def test_every_tensor_is_what_torch_loads(folder: Path, name: str):
    truth = state(folder / name)
    (group,) = look(folder / name).groups
    found = {t.name: (t.shape, t.dtype, t.elements, t.bytes, t.stride) for t in group.tensors}
    assert found == {
        key: (tuple(t.shape), str(t.dtype).removeprefix("torch."), t.numel(), t.numel() * t.element_size(), t.stride())
        for key, t in truth.items()
    }


@pytest.mark.parametrize("name", ["zip.pt", "legacy.pt", "module.pt", "net.safetensors"])
def test_sums_count_a_tied_tensor_once_and_parameters_are_those_of_the_model(folder: Path, name: str):
    model = net()
    weights = [*model.parameters(), *model.buffers()]
    (group,) = look(folder / name).groups
    assert group.elements == sum(tensor.numel() for tensor in weights)
    assert group.bytes == sum(tensor.numel() * tensor.element_size() for tensor in weights)
    assert group.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert sum(group.dtypes.values()) == group.bytes


def test_a_tied_tensor_names_the_other_one(folder: Path):
    report = look(folder / "zip.pt")
    assert [(t.name, t.tied_to) for t in report.groups[0].tensors if t.tied_to] == [("head.weight", "embed.weight")]
    assert "= embed.weight" in as_text(report)


def test_a_pickled_module_says_which_parameters_are_frozen(folder: Path):
    report = look(folder / "module.pt")
    assert report.groups[0].frozen == 36  # the weight of one Linear(6, 6)
    assert [t.name for t in report.groups[0].tensors if t.trainable is False and t.kind == "parameter"] == ["blocks.0.0.weight"]
    assert "frozen 36" in as_text(report) and report.model_class.endswith("checkpoint_case.Net")


def test_groups_are_told_apart(folder: Path):
    report = look(folder / "last.ckpt")
    values = training()
    assert [(group.key, group.role) for group in report.groups] == [
        ("state_dict", "weights"),
        ("state_dict_ema", "ema"),
        ("optimizer", "optimizer"),
    ]
    assert [group.key for group in report.table] == ["state_dict"]
    moments = [t for entry in values["optimizer"]["state"].values() for t in entry.values()]
    assert report.groups[2].elements == sum(t.numel() for t in moments)
    whole = sum(group.bytes for group in report.groups)
    text = as_text(report)
    assert f"({100 * report.groups[2].bytes / whole:.1f} % of all) · {len(moments)} tensors · --key optimizer" in text
    assert "epoch 12" in text and "lr_schedulers (list of 1)" in text


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(2, 3),
        torch.zeros(()),
        torch.zeros(0, 4),
        torch.zeros(1, 5, 1),
        torch.zeros(3, 4).t(),
        torch.zeros(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        torch.zeros(2, 3, 4, 5, 6).contiguous(memory_format=torch.channels_last_3d),
        torch.zeros(4, 6)[:, ::2],
        torch.zeros(3, 1).expand(3, 4),
        torch.zeros(10).unfold(0, 4, 1),
    ],
    ids=lambda tensor: f"{tuple(tensor.shape)}{tensor.stride()}",
)
def test_layouts_are_those_that_torch_says(tensor: Tensor):
    found = layout_of(tuple(tensor.shape), tensor.stride())
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.dim())
    dense = torch.empty_like(tensor).stride() == tensor.stride()  # the default keeps the strides of what is dense and does not overlap
    assert (found == "contiguous") == tensor.is_contiguous()
    if not tensor.is_contiguous():
        assert (found == "channels_last") == (last is not None and tensor.is_contiguous(memory_format=last))
        assert (found in ("channels_last", "permuted")) == dense
        assert (found == "expanded") == (tensor.untyped_storage().nbytes() < 4 * tensor.numel())


# --- the table


def numbers_of(rows: list[list[str]], header: str) -> list[int]:
    """Return the numbers of a column that are no sums of other rows."""
    place = rows[0].index(header)
    fields = [row[place - len(rows[0])] if len(row) >= len(rows[0]) else row[len(row) - (len(rows[0]) - place)] for row in rows[1:-1]]
    return [int(field.replace(",", "")) for field in fields if "Σ" not in field and field != "–"]


@pytest.mark.parametrize(
    "options", [TableOptions(), TableOptions(depth=1), TableOptions(depth=9), TableOptions(fold=False), TableOptions(top=4)]
)
def test_rows_without_a_sigma_add_up_to_the_total(folder: Path, options: TableOptions):
    text = as_text(look(folder / "net.safetensors"), options=options)  # without remarks, every row has the same fields from the right
    rows = drawn_rows(text)
    for header, truth in (("elements", sum(t.numel() for t in state(folder / "net.safetensors").values())), ("size B", None)):
        total = int(rows[-1][rows[0].index(header) - len(rows[0])].replace(",", ""))
        assert sum(numbers_of(rows, header)) == total
        assert truth is None or total == truth


def test_equal_blocks_are_one_row_in_a_long_table(folder: Path):
    text = as_text(look(folder / "zip.pt"))
    assert "0…11 ×12" in text and "blocks" in text
    assert "×12" not in as_text(look(folder / "zip.pt"), options=TableOptions(fold=False, depth=9))


def test_numbered_names_stand_in_the_order_of_their_numbers():
    names = sorted(f"blocks.{number}.weight" for number in range(12))  # 0, 1, 10, 11, 2: so safetensors sorts
    text = as_text(measure(by_hand(*names)), options=TableOptions(fold=False))
    assert [row[0] for row in drawn_rows(text)[2:-1]] == [f"{number}.weight" for number in range(12)]


def test_names_that_differ_in_more_than_a_number_are_not_folded():
    names = [f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    text = as_text(measure(by_hand(*names)), options=TableOptions(fold=True))
    assert [row[0] for row in drawn_rows(text)[2:-1]] == ["weight", "bias", "running_mean", "running_var"]


def test_a_name_that_is_also_a_prefix_has_a_row_of_its_own():
    rows = drawn_rows(as_text(measure(by_hand("e", "e.f", "a..b", ".c", "d.", "..", ""))))
    assert [row[0] for row in rows[1:-1]] == ["e", "(own)", "f", "a..b", ".c", "d.", ".", "(no name)"]
    assert rows[-1][0] == "total" and rows[-1][1:3] == ["14", "56"]


def test_layers_of_several_tensors_take_one_row_where_the_table_would_be_long():
    from torchvision.models import resnet18

    text = as_text(look_at_state(resnet18()))
    bn1 = next(row for row in drawn_rows(text) if row[0] == "bn1")
    assert bn1[1:3] == ["64 ×4 · ()", "float32, int64"]
    assert "--depth all shows every tensor" in text
    assert "running_mean" in as_text(look_at_state(resnet18()), options=TableOptions(depth=9))


def look_at_state(model: nn.Module, key: str = "", **shown: Any) -> Any:
    """Measure the state dict of a model without a file."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    whole = [name for name, tensor in model.state_dict().items() if not tensor.is_floating_point()]
    listed = tensors({name: shape for name, shape in shapes.items() if name not in whole})
    listed += tensors({name: shapes[name] for name in whole}, "int64", 8)
    order = list(shapes)
    return measure(
        Archive(Path("w.pt"), "torch zip", 1, (TensorGroup(key, "weights", tuple(sorted(listed, key=lambda t: order.index(t.name)))),))
    )


def test_only_and_sort_make_a_list(folder: Path):
    report = look(folder / "zip.pt")
    counters = drawn_rows(as_text(report, options=TableOptions(only=("int64",))))
    assert [row[0] for row in counters[1:-2]] == [f"blocks.{number}.1.num_batches_tracked" for number in range(12)]
    biases = drawn_rows(as_text(report, options=TableOptions(only=("*.0.bias",))))
    assert len(biases[1:-2]) == 12 and biases[-2][0].startswith("rest: ")
    largest = drawn_rows(as_text(report, options=TableOptions(sort="params", top=1)))
    assert largest[1][0] == "embed.weight"  # 60 elements
    with pytest.raises(UsageError, match="no tensor has the type or the name 'float17'"):
        as_text(report, options=TableOptions(only=("float17",)))


def test_key_chooses_what_is_shown(folder: Path):
    assert [group.role for group in look(folder / "last.ckpt", key="ema").table] == ["ema"]
    assert [group.role for group in look(folder / "last.ckpt", key="state_dict_ema").table] == ["ema"]
    text = as_text(look(folder / "last.ckpt", key="all"))
    assert all(key in text for key in ("state_dict", "state_dict_ema", "optimizer"))
    with pytest.raises(UsageError) as caught:
        look(folder / "last.ckpt", key="state_dct")
    assert "did you mean 'state_dict'" in caught.value.hint


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("name", ["zip.pt", "last.ckpt", "module.pt"])
def test_a_line_is_never_longer_than_the_terminal(folder: Path, name: str, width: int):
    assert max(map(len, as_text(look(folder / name), width).split("\n"))) <= width


# --- names from a stranger

HOSTILE = [
    "\x1b[2Jclear",
    "\x07bell",
    "new\nline",
    "\u202egnp.exe",
    "[red]markup[/red]",
    "::error::x",
    "`tick`|pipe",
    "<b>html</b>",
    "\ud800",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_cannot_steer_the_terminal_or_the_page(name: str):
    report = measure(by_hand(name, "plain.weight", scalars={name: name}, contents=((name, name),), oddities=(name,), model_class=name))
    text, page = as_text(report, title=name), as_markdown(report, title=name)
    assert all(char.isprintable() or char in "\n\u00a0" for char in text + page)
    assert not any(line.lstrip().startswith("::") for line in (text + page).split("\n"))  # GitHub would obey it
    assert not re.search(r"(?<![\\`])<b>", page)


def test_a_name_of_ten_thousand_characters_is_cut_in_its_middle():
    long = ["x" * 10_000 + str(number) for number in range(5)]
    report = measure(by_hand(*long, "y." * 5_000 + "z", scalars=dict.fromkeys(long, "v" * 10_000)))
    text = as_text(report)
    assert max(map(len, text.split("\n"))) < 2_000 and len(as_markdown(report)) < 10_000
    assert [row[0][-1] for row in drawn_rows(text)[1:6]] == list("01234")


def test_a_shape_of_any_size_is_shown_and_adds_up():
    stored = tensors({"w": (2, 3)})[0]
    huge = type(stored)("w", (2**40, 2**40), "float32", (0, 0), 0, "0", 4)
    wide = type(stored)("v", (1,) * 64, "float32", (1,) * 64, 0, "1", 4)
    report = measure(Archive(Path("w.pt"), "torch zip", 1, (TensorGroup("", "weights", (huge, wide)),)))
    assert report.groups[0].tensors[0].elements == 2**63 - 1
    assert "(64 dimensions)" in as_text(report) and max(map(len, as_text(report, 80).split("\n"))) <= 80


def flat(number: int) -> str:
    return f"t{number}"


def unlike(number: int) -> str:
    return f"{number * 7_919 % 1_000_003:07d}x"


def nested(number: int) -> str:
    return f"layers.{number // 1000}.experts.{number // 4 % 250}.{'abcd'[number % 4]}.weight"


@pytest.mark.parametrize(("name", "count"), [(flat, 20_000), (unlike, 20_000), (nested, 200_000)])
def test_two_hundred_thousand_tensors_stay_readable_and_fast(name: Any, count: int):
    """The bound is for CPU time on a busy machine; alone it takes less than 1.5 seconds."""
    single = tensors({"w": (3,)})[0]
    stored = tuple(type(single)(name(i), (3 + i % 2 * (name is unlike),), "float32", (1,), 0, str(i), 16) for i in range(count))
    gc.disable()  # as the command does
    start = time.process_time()
    text = as_text(measure(Archive(Path("w.pt"), "torch zip", 1, (TensorGroup("", "weights", stored),))), 80)
    taken = time.process_time() - start
    gc.enable()
    assert taken < 4
    assert len(text.split("\n")) < 140
    total = sum(tensor.numel for tensor in stored)
    assert f"{total:,} elements" in text


# --- the command line


def test_the_default_view_imports_neither_torch_nor_numpy(netlens: Shell, folder: Path):
    for name in ("zip.pt", "net.safetensors", "last.ckpt"):
        done = netlens("summary", name, cwd=folder)
        assert done.returncode == 0 and not {"torch", "numpy", "torchvision"} & done.modules, done.stderr


def test_the_json_document_follows_its_schema(netlens: Shell, folder: Path):
    jsonschema = pytest.importorskip("jsonschema", reason="in the dev extra")
    done = netlens("summary", "last.ckpt", "--format", "json", "--values", cwd=folder)
    document = json.loads(done.stdout, parse_constant=pytest.fail)
    assert (document["schema"], document["subject"]["model"]) == ("netlens.checkpoint/1", "last.ckpt")
    jsonschema.validate(document["report"], json.loads(schemas.path("checkpoint").read_text(encoding="utf-8")))
    names = [tensor["name"] for tensor in document["report"]["groups"][0]["tensors"]]
    assert names == list(net().state_dict())


def test_the_checked_in_schema_is_that_of_the_report():
    assert schemas.path("checkpoint").read_text(encoding="utf-8") == schemas.generated("checkpoint")


MODEL_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "--input": ("1,3",),
    "--time": (),
    "--expect-output": ("1,10",),
    "--max-macs": ("2G",),
    "--max-memory": ("2G",),
    "--lock": ("netlens.lock.json",),
    "--model-arg": ("a=1",),
    "--weights": ("DEFAULT",),
    "--device": ("cpu",),
    "--checkpoint": ("zip.pt",),
}


@pytest.mark.parametrize("option", MODEL_OPTIONS)
def test_what_only_a_model_can_answer_is_refused(netlens: Shell, folder: Path, option: str):
    done = netlens("summary", "zip.pt", option, *MODEL_OPTIONS[option], cwd=folder)
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert lines[0] == f"error: {option} needs a model, and 'zip.pt' is a checkpoint, which is not run"
    assert lines[1].startswith("hint: ") and "--checkpoint zip.pt" in lines[1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--expect-params", "505"), 1, "expect-params"),
        (("--max-params", "100"), 1, "max-params"),
        (("--max-size", "1KB"), 1, "max-size"),
        (("--max-size", "1KB", "--fail-on", "never"), 0, "max-size"),
        (("--max-size", "1MB", "--max-params", "1M"), 0, ""),
        (("--columns", "min"), 2, "add --values"),
        (("--sort", "macs"), 2, "the keys are params"),
        (("--format", "github", "--max-params", "100"), 1, "::error title=netlens checkpoint zip.pt::max-params"),
    ],
)
def test_limits_and_mistakes(netlens: Shell, folder: Path, arguments: tuple[str, ...], code: int, words: str):
    done = netlens("summary", "zip.pt", *arguments, cwd=folder)
    assert done.returncode == code, done.stderr
    assert words in done.stdout + done.stderr


def test_expected_parameters_are_those_of_the_model(netlens: Shell, folder: Path):
    parameters = sum(parameter.numel() for parameter in net().parameters())
    done = netlens("summary", "zip.pt", "--expect-params", str(parameters), cwd=folder)
    assert done.returncode == 0, done.stdout


def test_options_of_a_checkpoint_are_refused_for_a_model(netlens: Shell):
    done = netlens("summary", "resnet18", "--values")
    assert done.returncode == 2 and "--values reads those of a checkpoint" in done.stderr
