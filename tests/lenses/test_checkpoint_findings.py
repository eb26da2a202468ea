"""What the view of a checkpoint finds: values against torch, waste against file sizes, guesses against the models themselves."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from netlens.findings import CODES, Finding, Severity
from netlens.lenses.summary.checkpoint_measure import measure
from netlens.lenses.summary.checkpoint_rules import diagnose
from netlens.lenses.summary.checkpoint_show import as_text
from netlens.lenses.summary.checkpoint_values import Moments, pieces, read_values
from netlens.lenses.summary.rows import TableOptions
from netlens.loading.checkpoints.archive import Archive, StoredTensor, TensorGroup
from tests.conftest import Shell
from tests.lenses.checkpoint_case import by_hand, look, net, one, saved, tensors, training


def found(path: Path, **how: Any) -> dict[str, Finding]:
    """Return the findings of a file by their code."""
    findings = diagnose(look(path, **how))
    assert {finding.code for finding in findings} <= set(CODES)
    return {finding.code: finding for finding in findings}


# --- values

DRAWN = torch.Generator().manual_seed(3)
SAMPLES: dict[str, Tensor] = {
    "normal": torch.randn(40, 50, generator=DRAWN) * 3 + 100,
    "half": torch.randn(300, generator=DRAWN).half(),
    "bf16": torch.randn(30, 10, generator=DRAWN).bfloat16(),
    "fp8": torch.randn(64, generator=DRAWN).to(torch.float8_e4m3fn),
    "double": torch.randn(7, generator=DRAWN).double() * 1e-200,
    "int64": torch.arange(-5, 100),
    "uint8": torch.arange(250, dtype=torch.uint8),
    "bool": torch.tensor([True, False, True]),
    "scalar": torch.tensor(2.5),
    "zeros": torch.zeros(3, 4),
    "constant": torch.full((5, 2), 0.125),
    "permuted": torch.randn(6, 5, 4, generator=DRAWN).permute(2, 0, 1),
    "channels_last": torch.randn(2, 3, 4, 5, generator=DRAWN).contiguous(memory_format=torch.channels_last),
    "strided": torch.randn(10, 10, generator=DRAWN)[::2, 1::3],
    "expanded": torch.randn(4, 1, generator=DRAWN).expand(4, 9),
    "part": torch.randn(100, generator=DRAWN)[10:20],
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_values_are_those_of_torch(tmp_path: Path, name: str, options: dict[str, bool]):
    path = saved(tmp_path, {name: SAMPLES[name]}, **options)
    values = one(look(path, values=True), name).values
    truth = SAMPLES[name].double()
    assert values is not None
    assert (values.minimum, values.maximum) == (truth.min(), truth.max())
    assert values.mean == pytest.approx(float(truth.mean()), rel=1e-12, abs=1e-300)
    assert values.std == pytest.approx(float(truth.std(correction=0)), rel=1e-9, abs=1e-300)
    assert (values.nan, values.infinite, values.zeros) == (0, 0, int((truth == 0).sum()))


def test_values_of_safetensors_are_those_of_torch(tmp_path: Path):
    from safetensors.torch import save_file

    samples = {name: tensor.contiguous() for name, tensor in SAMPLES.items()}
    save_file(samples, tmp_path / "all.safetensors")
    report = look(tmp_path / "all.safetensors", values=True)
    for name, tensor in samples.items():
        values, truth = one(report, name).values, tensor.double()
        assert values is not None and (values.minimum, values.maximum) == (truth.min(), truth.max()), name


def test_without_values_no_value_is_read(tmp_path: Path):
    report = look(saved(tmp_path, {"w": torch.full((3,), math.nan)}))
    assert report.groups[0].tensors[0].values is None and not diagnose(report)


def test_what_is_not_finite_is_an_error_that_counts_it(tmp_path: Path):
    good, bad, worse = torch.ones(4), torch.ones(4), torch.tensor([math.nan, math.inf, -math.inf, 2.0])
    bad[1] = math.nan
    path = saved(tmp_path, {"good": good, "bad": bad, "worse": worse, "z": torch.complex(worse, good)})
    finding = found(path, values=True)["checkpoint-values-nonfinite"]
    assert (finding.severity, finding.where, finding.measured) == (Severity.ERROR, "bad", "3 nan and 4 infinite")
    report = look(path, values=True)
    assert one(report, "worse").values is not None and (one(report, "worse").values.minimum, one(report, "worse").values.maximum) == (2, 2)  # type: ignore[union-attr]
    text = as_text(report)
    assert "1 nan, 2 inf" in text and "3 tensors with elements that are not finite: bad, worse, z" in finding.message


def test_a_nan_deep_in_a_folded_table_is_seen(tmp_path: Path):
    state = net().state_dict()
    state["blocks.7.1.running_var"][2] = math.nan
    report = look(saved(tmp_path, state), values=True)
    assert "not finite" in as_text(report, options=TableOptions(depth=2)).partition("blocks")[2]
    assert "×7" in as_text(report) and "8…11 ×4" in as_text(report)  # the sick block stands alone


def test_constant_weights_are_told_and_constant_biases_are_not(tmp_path: Path):
    path = saved(tmp_path, {"a.weight": torch.zeros(3, 4), "a.bias": torch.zeros(3), "b.weight": torch.randn(3, 4)})
    finding = found(path, values=True)["checkpoint-values-constant"]
    assert (finding.severity, finding.where) == (Severity.INFO, "a.weight")
    assert "1 tensor of two or more dimensions is all 0: a.weight" in finding.message


def test_moments_of_pieces_are_those_of_the_whole():
    whole = torch.randn(10_000, dtype=torch.float64) * 5 + 1e4
    moments = Moments()
    for part in whole.split([1, 2_000, 7, 7_992]):
        moments.add(part)
    values = moments.values()
    assert values.mean == pytest.approx(float(whole.mean()), rel=1e-13)
    assert values.std == pytest.approx(float(whole.std(correction=0)), rel=1e-10)


def place(stored: StoredTensor) -> Tensor:
    """Return the places in its storage that a tensor looks at."""
    storage = torch.arange(stored.storage_bytes // 4)
    return storage.as_strided(stored.shape, stored.stride, stored.offset).flatten()


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t,
        lambda t: t.t(),
        lambda t: t[::3, 5:],
        lambda t: t.view(30, 5, 40).permute(2, 0, 1),
    ],
)
def test_pieces_are_small_and_leave_nothing_out(monkeypatch: pytest.MonkeyPatch, view: Callable[[Tensor], Tensor]):
    monkeypatch.setattr("netlens.lenses.summary.checkpoint_values.PIECE", 64)
    tensor = view(torch.zeros(60, 100))
    stored = StoredTensor("w", tuple(tensor.shape), "float32", tensor.stride(), tensor.storage_offset(), "0", 24_000)
    parts = list(pieces(stored))
    assert max(part.numel for part in parts) <= 64
    assert torch.equal(torch.cat([place(part) for part in parts]).sort().values, place(stored).sort().values)


def test_a_tensor_that_claims_more_than_its_storage_has_is_not_read(tmp_path: Path):
    path = saved(tmp_path, {"zero": torch.ones(1).expand(2**40), "windows": torch.zeros(1000).as_strided((2**20, 2**20), (0, 0))})
    report = look(path, values=True)
    assert one(report, "zero").values is not None  # the same element again and again: one look is enough
    overlapping = StoredTensor("w", (2**15, 2**15), "float32", (1, 1), 0, "0", 4 * 2**16)
    with pytest.raises(RuntimeError):
        list(pieces(overlapping))


# --- waste, oddities, kinds of files


def test_a_view_of_something_large_is_a_warning_with_its_waste(tmp_path: Path):
    large = torch.zeros(1000, 1024)
    path = saved(tmp_path, {"head": large[:10], "bias": torch.zeros(10)})
    finding = found(path)["checkpoint-fat-view"]
    assert (finding.severity, finding.where) == (Severity.WARNING, "head")
    assert f"{4 * 990 * 1024:,} bytes" in finding.message and finding.measured.startswith(f"{4 * 10 * 1024:,} of {4 * 1000 * 1024:,} bytes")
    assert path.stat().st_size > 4_000_000
    clean = saved(tmp_path, {"head": large[:10].clone(), "bias": torch.zeros(10)}, "clean.pt")
    assert clean.stat().st_size < 50_000 and not found(clean)


def test_parts_of_one_buffer_are_no_waste(tmp_path: Path):
    buffer = torch.zeros(10_000)
    assert "checkpoint-fat-view" not in found(saved(tmp_path, {str(i): buffer[1000 * i : 1000 * (i + 1)] for i in range(10)}))


def test_an_optimizer_alone_is_a_warning(tmp_path: Path):
    path = saved(tmp_path, training()["optimizer"])
    assert found(path)["checkpoint-optimizer-only"].severity is Severity.WARNING
    assert "optimizer · " in as_text(look(path))


def test_no_tensors_are_a_warning(tmp_path: Path):
    assert list(found(saved(tmp_path, {"epoch": 3}))) == ["checkpoint-no-tensors"]


def test_half_precision_is_told(tmp_path: Path):
    finding = found(saved(tmp_path, {"w": torch.zeros(2, 2).bfloat16(), "v": torch.zeros(2)}))["checkpoint-half-precision"]
    assert finding.severity is Severity.INFO and finding.message.endswith("bfloat16")


def test_names_that_differ_only_in_case_are_odd(tmp_path: Path):
    finding = found(saved(tmp_path, {"Fc.weight": torch.zeros(1), "fc.weight": torch.zeros(1), "x": torch.zeros(1)}))["checkpoint-odd"]
    assert finding.message == "names that differ only in case: Fc.weight and fc.weight"


def test_a_tensor_that_is_not_contiguous_is_odd(tmp_path: Path):
    assert "not contiguous: w (3,2)" in found(saved(tmp_path, {"w": torch.zeros(2, 3).t()}))["checkpoint-odd"].message


def test_a_sparse_tensor_cannot_be_read(tmp_path: Path):
    finding = found(saved(tmp_path, {"w": torch.eye(3).to_sparse(), "v": torch.zeros(2)}))["checkpoint-unreadable"]
    assert (finding.where, finding.measured) == ("w", "sparse")


class Hostile:
    """Would leave a file where it ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_what_looks_hostile_is_an_error_and_does_not_run(netlens: Shell, tmp_path: Path):
    saved(tmp_path, {"state_dict": {"w": torch.zeros(2)}, "x": Hostile(tmp_path / "MARKER")})
    done = netlens("summary", "weights.pt", "--values", "--format", "json", cwd=tmp_path)
    assert done.returncode == 1 and not (tmp_path / "MARKER").exists()
    (finding,) = json.loads(done.stdout)["findings"]
    assert (finding["code"], finding["severity"]) == ("checkpoint-foreign-code", "error")
    assert finding["message"] == f"looks hostile: {os.system.__module__}.system"


def test_a_pickled_module_is_a_warning_that_names_its_class(tmp_path: Path):
    finding = found(saved(tmp_path, net()))["checkpoint-foreign-code"]
    assert finding.severity is Severity.WARNING
    assert "tests.lenses.checkpoint_case.Net" in finding.message and "--checkpoint" in finding.remedy
    finding = found(saved(tmp_path, nn.Linear(2, 3), "plain.pt"))["checkpoint-runs-code"]
    assert "torch.nn.modules.linear.Linear" in finding.message


def test_a_well_known_class_beside_the_weights_is_no_finding(tmp_path: Path):
    path = saved(tmp_path, training())
    assert not found(path)
    assert "also names   argparse.Namespace" in as_text(look(path))


def test_where_it_was_saved_from_is_told():
    report = measure(
        Archive(
            Path("w.pt"), "torch zip", 1, (TensorGroup("", "weights", (StoredTensor("w", (2,), "float32", (1,), 0, "0", 8, "cuda:1"),)),)
        )
    )
    assert "saved on    cuda:1" in as_text(report)


def test_what_the_reader_gave_up_is_a_warning():
    codes = [finding.code for finding in diagnose(measure(by_hand("w", complete=False, oddities=("what is listed is incomplete",))))]
    assert codes == ["checkpoint-incomplete"]


def test_a_file_with_any_number_of_oddities_gives_a_bounded_number_of_findings():
    findings = diagnose(measure(by_hand("w", oddities=tuple(f"odd {number}" for number in range(1_000)))))
    assert len(findings) == 11 and findings[-1].message == "and 990 more oddities"


# --- what it is weights of


def of_model(model: nn.Module, prefix: str = "", kind: str = "torch zip") -> Archive:
    """Return the archive of a model's state dict."""
    shapes = {f"{prefix}{name}": tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return Archive(Path("w.pt"), kind, 1, (TensorGroup("", "weights", tensors(shapes)),))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize(("name", "classes"), [("resnet18", 37), ("resnet18", 1000), ("mobilenet_v2", 3), ("vit_b_32", 12), ("swin_t", 2)])
def test_a_published_model_is_known_with_its_number_of_classes(name: str, classes: int, prefix: str):
    from torchvision.models import get_model

    with torch.device("meta"):
        guess = measure(of_model(get_model(name, num_classes=classes), prefix)).guess
        assert (guess.models, guess.how) == ((name,), "fits")
        built = get_model(guess.models[0], **{key: int(value) for key, value in guess.model_args.items()})
        again = get_model(name, num_classes=classes)
    assert {key: value.shape for key, value in built.state_dict().items()} == {
        key: value.shape for key, value in again.state_dict().items()
    }
    assert ("num_classes" in guess.model_args) == (classes != 1000)


def test_the_command_that_loads_it_is_shown():
    from torchvision.models import resnet18

    with torch.device("meta"):
        text = as_text(measure(of_model(resnet18(num_classes=37))), title="best weights.pt")
    assert "fits        resnet18 with num_classes=37" in text
    assert "netlens summary resnet18 --model-arg num_classes=37 --checkpoint 'best weights.pt'" in text


def test_another_head_or_several_layers_in_it_are_said_not_to_be_sure():
    from torchvision.models import resnet18, vgg11

    with torch.device("meta"):
        model, deep = resnet18(), vgg11(num_classes=5)
        model.fc = nn.Sequential(nn.Linear(512, 64), nn.Linear(64, 9))  # type: ignore[assignment]
    body, names = measure(of_model(model)), measure(of_model(deep))
    assert (body.guess.models, body.guess.how) == (("resnet18",), "body") and "--checkpoint" not in as_text(body)
    assert (names.guess.models, names.guess.how, names.guess.model_args) == (("vgg11",), "names", {"num_classes": "5"})


def test_an_unknown_model_is_not_guessed():
    guess = measure(of_model(net())).guess
    assert (guess.models, guess.how, guess.layout) == ((), "", "")
    assert guess.head is not None and (guess.head.name, guess.head.outputs, guess.head.certain) == ("head.weight", 10, True)


def test_the_order_of_the_tensors_tells_a_head_only_where_it_is_that_of_the_model():
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 7))
    head = measure(of_model(model)).guess.head
    assert head is not None and (head.name, head.outputs, head.certain) == ("1.weight", 7, False)
    assert measure(of_model(model, kind="safetensors")).guess.head is None


def small(kind: str, **sizes: int) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="in the hf extra")
    config = transformers.AutoConfig.for_model(kind, **sizes)
    with torch.device("meta"):
        return transformers.AutoModel.from_config(config)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "sizes", "words"),
    [
        ("bert", {"num_hidden_layers": 3, "hidden_size": 48, "num_attention_heads": 4}, "BERT family of transformers, 3 blocks, width 48"),
        (
            "roberta",
            {"num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 4},
            "BERT family of transformers, 2 blocks, width 24",
        ),
        ("distilbert", {"n_layers": 2, "dim": 24, "n_heads": 4}, "DistilBERT of transformers, 2 blocks, width 24"),
        (
            "vit",
            {"num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 4},
            "vision transformer of transformers, 2 blocks, width 24",
        ),
        ("gpt2", {"n_layer": 2, "n_embd": 24, "n_head": 4}, "GPT-2 family, 2 blocks, width 24"),
        ("gpt_neox", {"num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 4}, "GPT-NeoX of transformers, 2 blocks, width 24"),
        ("t5", {"num_layers": 2, "d_model": 24, "num_heads": 4}, "T5 family of transformers, 2 blocks, width 24"),
        (
            "llama",
            {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4},
            "Llama family of transformers, 2 blocks, width 32",
        ),
    ],
)
def test_the_names_of_a_family_are_known(kind: str, sizes: dict[str, int], words: str):
    guess = measure(of_model(small(kind, **sizes))).guess
    assert guess.layout == words


def test_the_names_of_published_files_are_known_where_the_library_has_new_ones():
    """The names in the file of google/vit-base-patch16-224; transformers 5 has renamed the layers of its class."""
    shapes = {
        "vit.embeddings.cls_token": (1, 1, 768),
        "vit.embeddings.patch_embeddings.projection.weight": (768, 3, 16, 16),
        "vit.encoder.layer.0.attention.attention.query.weight": (768, 768),
        "vit.encoder.layer.1.attention.attention.query.weight": (768, 768),
        "classifier.weight": (1000, 768),
    }
    guess = measure(Archive(Path("w.bin"), "torch zip", 1, (TensorGroup("", "weights", tensors(shapes)),))).guess
    assert guess.layout == "vision transformer of transformers, 2 blocks, width 768"
    assert guess.head is not None and (guess.head.outputs, guess.head.certain) == (1000, True)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vit_tiny_patch16_224", "vision transformer with timm's names, 12 blocks, width 192"),
        ("deit_tiny_patch16_224", "vision transformer with timm's names, 12 blocks, width 192"),
        ("convnext_atto", "ConvNeXt with timm's names"),
        ("swin_tiny_patch4_window7_224", ""),  # has blocks and patches as well, and is none
        ("mobilenetv3_small_100", ""),
    ],
)
def test_timms_names_are_known_and_not_confused(name: str, words: str):
    timm = pytest.importorskip("timm", reason="in the timm extra")
    assert measure(of_model(timm.create_model(name))).guess.layout == words


def test_adapters_alone_are_said_to_be_no_model():
    stored = tensors({"layers.0.q.lora_A.weight": (8, 64), "layers.0.q.lora_B.weight": (64, 8)})
    report = measure(Archive(Path("w.pt"), "torch zip", 1, (TensorGroup("", "weights", stored),)))
    assert report.guess.layout.startswith("LoRA adapters of rank 8")


def test_tied_and_equal_tensors_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from netlens.lenses.summary import checkpoint_values

    path = saved(tmp_path, net().state_dict())
    read: list[str] = []
    original = checkpoint_values._Reader.read
    monkeypatch.setattr(checkpoint_values._Reader, "read", lambda self, stored: read.append(stored.name) or original(self, stored))
    report = measure(read_archive_of(path), values=read_values)
    assert "embed.weight" in read and "head.weight" not in read
    assert one(report, "head.weight").values == one(report, "embed.weight").values


def read_archive_of(path: Path) -> Archive:
    from netlens.loading.checkpoints.read import read_archive

    return read_archive(path)
