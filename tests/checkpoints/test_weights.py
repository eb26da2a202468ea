"""What arrives in a model: held against torch's own `load_state_dict`, or against values that the test itself wrote."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from netlens.errors import FileProblem, UsageError
from netlens.loading.checkpoints.read import read_archive
from netlens.loading.checkpoints.storages import Storages
from netlens.loading.checkpoints.trusted import open_program, program_as_model
from netlens.loading.checkpoints.weights import fit_model, load_into, with_weights
from netlens.probing.building import built_on_meta
from tests.checkpoints.by_hand import named
from tests.conftest import REPOSITORY


class Net(nn.Module):
    """Ties, buffers of both kinds, an odd layout, an integer and a scalar."""

    def __init__(self, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embed = nn.Embedding(7, 4)
        self.conv = nn.Conv2d(3, 6, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(6)
        self.lstm = nn.LSTM(4, 5)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("grid", torch.arange(6).reshape(2, 3) * (seed + 1))
        self.register_buffer("own", torch.full((2,), 0.25), persistent=False)
        with torch.no_grad():
            for tensor in (*self.parameters(), self.norm.running_mean, self.norm.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(self.embed(x))[0]


def loaded(path: Path, model: nn.Module, **options) -> nn.Module:
    archive = read_archive(path)
    found = fit_model(model, archive, name="net", **options)
    assert found.complete, found
    load_into(model, found, archive)
    return model


def assert_equal(model: nn.Module, expected: dict[str, Tensor]) -> None:
    state = model.state_dict()
    assert list(state) == list(expected)
    for name, value in expected.items():
        assert torch.equal(state[name], value), name
        assert state[name].dtype == value.dtype and state[name].stride() == value.stride(), name


# --- Every format, against what was saved


def torch_zip(model: nn.Module, path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in model.state_dict().items()}}, path)


def torch_legacy(model: nn.Module, path: Path) -> None:
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)


def pickled(model: nn.Module, path: Path) -> None:
    torch.save(model, path)


def pickled_legacy(model: nn.Module, path: Path) -> None:
    torch.save(model, path, _use_new_zipfile_serialization=False)


def protocol_4(model: nn.Module, path: Path) -> None:
    """torch itself refuses to read what it wrote with `weights_only=True`."""
    torch.save(model.state_dict(), path, pickle_protocol=4)


def compressed(model: nn.Module, path: Path) -> None:
    torch.save(model.state_dict(), path)
    repack(path, zipfile.ZIP_DEFLATED)


def big_endian(model: nn.Module, path: Path) -> None:
    """What a big-endian machine writes: every number turned round, and a member that says so."""
    torch.save(model.state_dict(), path)
    sizes = {
        tensor.storage: torch.empty(0, dtype=getattr(torch, tensor.dtype)).element_size() for tensor in read_archive(path).groups[0].tensors
    }
    turned = {f"/data/{key}": size for key, size in sizes.items()}
    repack(path, zipfile.ZIP_STORED, turned, {"/byteorder": b"big"})


def repack(path: Path, method: int, turned: dict[str, int] | None = None, replaced: dict[str, bytes] | None = None) -> None:
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            for end, size in (turned or {}).items():
                if name.endswith(end):
                    content = b"".join(content[i : i + size][::-1] for i in range(0, len(content), size))
            for end, other in (replaced or {}).items():
                content = other if name.endswith(end) else content
            archive.writestr(name, content)


def safetensors(model: nn.Module, path: Path, extra: str = "") -> None:
    """Written from its specification: the header's size, a JSON header, then the bytes. Ties are kept once."""
    kinds = {torch.float32: "F32", torch.int64: "I64"}
    header, blob = {"__metadata__": {"x": extra}}, b""
    for name, value in sorted(model.state_dict().items()):
        if name != "head.weight":
            content = value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
            header[name] = {"dtype": kinds[value.dtype], "shape": list(value.shape), "data_offsets": [len(blob), len(blob) + len(content)]}
            blob += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + blob)


def odd_safetensors(model: nn.Module, path: Path) -> None:
    """No number in it starts at a multiple of its size."""
    for length in range(8):
        safetensors(model, path, "x" * length)
        if (8 + struct.unpack("<Q", path.read_bytes()[:8])[0]) % 4 == 1:
            return
    raise AssertionError("one of eight lengths is odd")


FORMATS = [torch_zip, torch_legacy, pickled, pickled_legacy, protocol_4, compressed, big_endian, safetensors, odd_safetensors]


@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_what_was_saved_arrives(tmp_path, write):
    saved, model = Net(seed=1), Net(seed=2)
    write(saved, tmp_path / "weights.bin")
    same = {name: id(parameter) for name, parameter in model.named_parameters()}
    loaded(tmp_path / "weights.bin", model)
    assert_equal(model, saved.state_dict())
    assert same == {name: id(parameter) for name, parameter in model.named_parameters()}, "in place"
    assert model.head.weight is model.embed.weight
    assert torch.equal(model.own, torch.full((2,), 0.25))


def test_shards_are_read_one_by_one(tmp_path):
    saved, weight_map = Net(seed=1), {}
    state = {name: value for name, value in saved.state_dict().items() if name != "head.weight"}
    for index, names in enumerate((list(state)[:5], list(state)[5:])):
        file = f"model-{index}.bin"
        torch.save({name: state[name] for name in names}, tmp_path / file)
        weight_map |= dict.fromkeys(names, file)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert_equal(loaded(tmp_path / "pytorch_model.bin.index.json", Net(seed=2)), saved.state_dict())
    assert_equal(loaded(tmp_path, Net(seed=2)), saved.state_dict())


@pytest.fixture(scope="module")
def distributed(tmp_path_factory) -> Path:
    import torch.distributed.checkpoint as dcp

    folder = tmp_path_factory.mktemp("dcp")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"model": Net(seed=1).state_dict(), "epoch": 3}, checkpoint_id=str(folder / "one"))
    return folder / "one"


def test_a_distributed_checkpoint(distributed):
    assert_equal(loaded(distributed, Net(seed=2)), Net(seed=1).state_dict())


def test_a_distributed_checkpoint_whose_tensors_are_in_pieces(distributed, monkeypatch):
    """torch puts them together: here it is asked to, as if no tensor were in one piece."""
    from dataclasses import replace

    archive = read_archive(distributed)
    (group,) = [group for group in archive.groups if group.role == "weights"]
    pieces = replace(archive, groups=(replace(group, tensors=tuple(replace(tensor, place=-1) for tensor in group.tensors)),))
    model = Net(seed=2)
    load_into(model, fit_model(model, pieces, name="net"), pieces)
    assert_equal(model, Net(seed=1).state_dict())


def test_distributed_metadata_that_names_other_classes_is_never_unpickled(distributed):
    from dataclasses import replace

    from netlens.loading.checkpoints.archive import ForeignGlobal

    archive = read_archive(distributed)
    (group,) = [group for group in archive.groups if group.role == "weights"]
    pieces = replace(
        archive,
        groups=(replace(group, tensors=tuple(replace(tensor, place=-1) for tensor in group.tensors)),),
        foreign=(ForeignGlobal("os.system", "hostile"),),
    )
    model = Net(seed=2)
    with pytest.raises(UsageError, match=r"os\.system") as caught:
        load_into(model, fit_model(model, pieces, name="net"), pieces)
    assert "--trust-checkpoint" in caught.value.hint
    assert_equal(model, Net(seed=2).state_dict())


class Hostile(nn.Linear):
    """Leaves a marker when it is unpickled."""

    def __reduce__(self):
        return (os.system, (f"touch {os.environ['MARKER']}",))


def test_weights_of_a_pickled_module_arrive_without_running_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    saved, model = nn.Linear(3, 2), nn.Linear(3, 2)
    saved.planted = Hostile(1, 1)
    torch.save(saved, tmp_path / "model.pt")
    del saved.planted
    archive = read_archive(tmp_path / "model.pt")
    load_into(model, fit_model(model, archive, name="net"), archive)
    assert_equal(model, saved.state_dict())
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_pickled_models_of_torchvision_give_their_state_dict(tmp_path, name):
    models = pytest.importorskip("torchvision").models
    saved, model = models.get_model(name), models.get_model(name)
    torch.save(saved, tmp_path / "model.pt")
    assert_equal(loaded(tmp_path / "model.pt", model), saved.state_dict())


# --- What torch does, too


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_are_converted_as_torch_converts_them(tmp_path, dtype):
    torch.save(Net(seed=1).to(dtype).state_dict(), tmp_path / "w.pt")
    expected, model = Net(seed=2), Net(seed=2)
    expected.load_state_dict(torch.load(tmp_path / "w.pt", weights_only=True))
    assert_equal(loaded(tmp_path / "w.pt", model), expected.state_dict())


def test_the_model_keeps_its_dtype(tmp_path):
    torch.save(Net(seed=1).state_dict(), tmp_path / "w.pt")
    expected = Net(seed=2).half()
    expected.load_state_dict(torch.load(tmp_path / "w.pt", weights_only=True))
    assert_equal(loaded(tmp_path / "w.pt", Net(seed=2).half()), expected.state_dict())


def test_views_into_large_storages_arrive_as_they_are(tmp_path):
    base = torch.arange(1000.0)
    torch.save({"weight": base[10:16].reshape(2, 3).t(), "bias": base[::300][:3]}, tmp_path / "w.pt")
    model = loaded(tmp_path / "w.pt", nn.Linear(2, 3))
    assert torch.equal(model.weight, torch.tensor([[10.0, 13.0], [11.0, 14.0], [12.0, 15.0]]))
    assert torch.equal(model.bias, torch.tensor([0.0, 300.0, 600.0]))


def test_values_that_equal_nothing_arrive(tmp_path):
    torch.save({"weight": torch.full((3, 2), float("nan")), "bias": torch.full((3,), float("inf"))}, tmp_path / "w.pt")
    model = loaded(tmp_path / "w.pt", nn.Linear(2, 3))
    assert model.weight.isnan().all() and model.bias.isinf().all()


def test_weight_norm_old_and_new(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = nn.utils.weight_norm(nn.Linear(3, 2))
    new = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    torch.save(old.state_dict(), tmp_path / "w.pt")
    loaded(tmp_path / "w.pt", new)
    x = torch.rand(4, 3)
    torch.testing.assert_close(new(x), old(x))


def test_lazy_layers_get_the_shape_of_the_file(tmp_path):
    torch.save(nn.Linear(5, 2).state_dict(), tmp_path / "w.pt")
    model = loaded(tmp_path / "w.pt", nn.LazyLinear(2))
    assert model.weight.shape == (2, 5) and torch.equal(model.weight, torch.load(tmp_path / "w.pt", weights_only=True)["weight"])


def test_what_does_not_fit_stays_as_built(tmp_path):
    torch.save(nn.Linear(3, 9).state_dict() | {"bias": torch.ones(2)}, tmp_path / "w.pt")
    model = nn.Linear(3, 2)
    before = model.weight.clone()
    archive = read_archive(tmp_path / "w.pt")
    load_into(model, fit_model(model, archive, name="net"), archive)
    assert torch.equal(model.weight, before) and torch.equal(model.bias, torch.ones(2))


def test_the_file_is_never_written(tmp_path):
    torch.save(Net(seed=1).state_dict(), tmp_path / "w.pt")
    before = (tmp_path / "w.pt").read_bytes()
    with Storages(archive := read_archive(tmp_path / "w.pt")) as storages:
        for tensor in archive.groups[0].tensors:
            storages.tensor(tensor).fill_(0)
    assert (tmp_path / "w.pt").read_bytes() == before


# --- Nothing, or everything


def test_a_file_that_became_shorter_changes_nothing(tmp_path):
    path, model = tmp_path / "w.pt", Net(seed=2)
    torch.save(Net(seed=1).state_dict(), path)
    archive = read_archive(path)
    found = fit_model(model, archive, name="net")
    path.write_bytes(path.read_bytes()[: archive.groups[0].tensors[-1].place])
    with pytest.raises(FileProblem):
        load_into(model, found, archive)
    assert_equal(model, Net(seed=2).state_dict())


def test_a_model_that_cannot_be_written_to_changes_nothing(tmp_path):
    torch.save({"a": torch.ones(3), "b": torch.ones(3)}, tmp_path / "w.pt")
    model = nn.Module()
    model.a = nn.Parameter(torch.zeros(3))
    model.register_buffer("b", torch.zeros(1).expand(3))
    with pytest.raises(FileProblem, match="'b' of the model is an expanded tensor"):
        loaded(tmp_path / "w.pt", model)
    assert torch.equal(model.a, torch.zeros(3))


def test_values_that_are_not_those_of_the_file_are_noticed(tmp_path, monkeypatch):
    """Planted: a reader that is off by one element."""
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "w.pt")
    honest = Storages.tensor
    monkeypatch.setattr(Storages, "tensor", lambda self, stored: honest(self, stored).roll(1))
    with pytest.raises(FileProblem, match="changed while"):
        loaded(tmp_path / "w.pt", nn.Linear(3, 2))


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path):
    from dataclasses import replace

    torch.save({"weight": torch.ones(2, 3), "bias": torch.ones(2)}, tmp_path / "w.pt")
    archive = read_archive(tmp_path / "w.pt")
    (group,) = archive.groups
    reaching = replace(archive, groups=(replace(group, tensors=tuple(replace(tensor, offset=5) for tensor in group.tensors)),))
    model = nn.Linear(3, 2)
    with pytest.raises(FileProblem, match="beyond its storage"):
        load_into(model, fit_model(model, reaching, name="net"), reaching)


# --- Models without memory


def test_a_model_on_meta_gets_memory_with_its_ties_and_runs(tmp_path):
    torch.save(Net(seed=1).state_dict(), tmp_path / "w.pt")

    class Plain(Net):
        def __init__(self):
            super().__init__()
            del self.own  # a float buffer that no checkpoint holds

    with built_on_meta():
        model = Plain()
    loaded(tmp_path / "w.pt", model)
    assert_equal(model, Net(seed=1).state_dict())
    assert model.head.weight is model.embed.weight and isinstance(model.embed.weight, nn.Parameter)
    x = torch.arange(7)
    assert torch.equal(model(x), Net(seed=1)(x))


def test_a_tensor_on_meta_that_the_file_lacks_is_never_left_empty(tmp_path):
    torch.save(Net(seed=1).state_dict(), tmp_path / "w.pt")
    with built_on_meta():
        model = Net()
    archive = read_archive(tmp_path / "w.pt")
    with pytest.raises(ValueError, match="own"):
        load_into(model, fit_model(model, archive, name="net"), archive)


def test_building_with_weights_initialises_only_where_it_must(tmp_path):
    built = []

    def quick() -> nn.Module:
        model = nn.Linear(3, 2)
        built.append(model.weight.is_meta)
        return model

    def own() -> nn.Module:
        model = Net()
        built.append(model.embed.weight.is_meta)
        return model

    for build, saved in ((quick, nn.Linear(3, 2)), (own, Net(seed=1))):
        torch.save(saved.state_dict(), tmp_path / "w.pt")
        archive = read_archive(tmp_path / "w.pt")
        found = fit_model(saved, archive, name="net")
        assert_equal(with_weights(named(build), found, archive).build(), saved.state_dict())
    assert built == [True, True, False]
    assert torch.equal(with_weights(named(own), found, archive).build().own, torch.full((2,), 0.25))


# --- Programs


class Small(nn.Module):
    """Without `nn.Sequential`, which `unflatten` of torch 2.4 cannot take apart."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(144, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().flatten(1))


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("programs")
    model = Small().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(model, (torch.rand(2, 3, 8, 8),)), folder / "model.pt2")
        torch.jit.script(model).save(str(folder / "model.pt"))
    torch.save(model.state_dict(), folder / "weights.pth")
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["model.pt2", "model.pt"])
def test_a_program_is_not_opened_without_consent(programs, name):
    with pytest.raises(UsageError, match="is a program, and opening it runs") as caught:
        open_program(read_archive(programs[name]), trust=False)
    assert "--trust-checkpoint" in caught.value.hint


@pytest.mark.parametrize("name", ["model.pt2", "model.pt"])
def test_a_trusted_program_computes_what_the_model_did(programs, name):
    state = torch.load(programs["weights.pth"], weights_only=True)
    model, x = open_program(read_archive(programs[name]), trust=True), torch.rand(2, 3, 8, 8)
    expected = torch.nn.functional.linear(
        torch.conv2d(x, state["conv.weight"], state["conv.bias"]).relu().flatten(1), state["head.weight"], state["head.bias"]
    )
    torch.testing.assert_close(model(x), expected)


def test_hooks_fire_on_the_layers_of_an_exported_program(programs):
    model, seen = open_program(read_archive(programs["model.pt2"]), trust=True), []
    model.get_submodule("conv").register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape)))
    model(torch.rand(2, 3, 8, 8))
    assert seen == [(2, 4, 6, 6)]


def test_an_exported_programs_example_is_its_default_input(programs):
    (candidate,) = program_as_model(read_archive(programs["model.pt2"]), True, "model.pt2").inputs
    assert [(spec.shape, spec.dtype) for spec in candidate.specs] == [((2, 3, 8, 8), "float32")]


@pytest.mark.parametrize("name", ["model.pt2", "model.pt"])
def test_weights_of_a_program_arrive_without_opening_it(programs, name):
    assert_equal(loaded(programs[name], Small()), torch.load(programs["weights.pth"], weights_only=True))


def test_weights_are_no_program(programs):
    with pytest.raises(UsageError, match="holds weights, not a program"):
        open_program(read_archive(programs["weights.pth"]), trust=True)


# --- What it costs

COST = """
import sys, torch
from pathlib import Path
from netlens.loading.checkpoints.read import read_archive
from netlens.loading.checkpoints.storages import Storages
def peak():  # not ru_maxrss: a child inherits that from the process that started it
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
before = peak()
archive = read_archive(Path(sys.argv[1]))
with Storages(archive) as storages:
    total = sum(storages.tensor(tensor).shape[0] for tensor in archive.groups[0].tensors)
print((peak() - before) * 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_looking_at_tensors_reads_none_of_their_values(tmp_path):
    torch.save({f"w{index}": torch.zeros(1 << 20) for index in range(25)}, tmp_path / "w.pt")  # 100 MiB
    done = subprocess.run([sys.executable, "-c", COST, str(tmp_path / "w.pt")], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert int(done.stdout) < 30 << 20
