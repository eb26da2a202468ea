"""Two real processes, as torchrun starts them, against one process on all their samples in plain PyTorch and numpy float64."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from netlens.errors import UsageError
from netlens.lenses.gradflow.distributed import launched, own_device, processes
from netlens.lenses.gradflow.shards import fingerprint
from tests.conftest import REPOSITORY
from tests.lenses import gradflow_ranks as ranks

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch was built without gloo")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Run all cases in two processes, once; return what each found."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.lenses.gradflow_ranks", str(folder)]
    started = [
        subprocess.Popen(
            command, env={**os.environ, **own, "RANK": str(rank), "LOCAL_RANK": str(rank)}, cwd=REPOSITORY, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        ended = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], "\n".join(err for _, err in ended)[-4000:]
    read = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
    return [{**each, "stdout": out} for each, (out, _) in zip(read, ended, strict=True)]


def array(tensor: Tensor | None) -> Any:
    assert tensor is not None
    return (tensor.to_dense() if tensor.is_sparse else tensor).detach().double().numpy()


def of_rank(rank: int) -> tuple[float, dict[str, Any]]:
    """Return loss and gradients of one process's samples alone; zeros where it has none."""
    model = ranks.Net()
    model.aside = rank == 1
    words, labels = (tensor[ranks.part(rank)] for tensor in ranks.data())
    loss = F.cross_entropy(model(words), labels)
    loss.backward()
    return loss.item(), {
        name: array(each.grad) if each.grad is not None else np.zeros(each.shape) for name, each in model.named_parameters()
    }


def test_gradients_are_those_of_the_mean_loss_over_all_samples(found):
    (loss_0, own_0), (loss_1, own_1) = of_rank(0), of_rank(1)
    for each in found:
        case = each["reduced"]
        assert case["samples"] == 8 and case["loss"] == pytest.approx((5 * loss_0 + 3 * loss_1) / 8, rel=1e-6)
        for name, gradient in case["gradients"].items():
            np.testing.assert_allclose(gradient, (5 * own_0[name] + 3 * own_1[name]) / 8, rtol=1e-5, atol=1e-8)
    assert found[0]["reduced"]["gradients"] == found[1]["reduced"]["gradients"]  # to the last bit


def test_without_the_odd_layer_it_is_one_pass_over_all():
    """The oracle above, held against the joined batch itself."""
    words, labels = ranks.data()
    model = ranks.Net()
    F.cross_entropy(model(words), labels).backward()
    parts = []
    for rank in range(2):
        other = ranks.Net()
        F.cross_entropy(other(words[ranks.part(rank)]), labels[ranks.part(rank)]).backward()
        parts.append(array(other.first.weight.grad))
    np.testing.assert_allclose((5 * parts[0] + 3 * parts[1]) / 8, array(model.first.weight.grad), rtol=1e-5, atol=1e-8)


def test_ranks_are_compared_before_their_gradients_are_reduced(found):
    (loss_0, own_0), (loss_1, own_1) = of_rank(0), of_rank(1)
    a, b = (np.concatenate([each.ravel() for each in own.values()]) for own in (own_0, own_1))
    mean = (5 * a + 3 * b) / 8
    rows = found[0]["reduced"]["ranks"]
    assert rows == found[1]["reduced"]["ranks"]
    for rank, (row, own, loss) in enumerate(zip(rows, (a, b), (loss_0, loss_1), strict=True)):
        assert (row["rank"], row["device"], row["loss"]) == (rank, "cpu", pytest.approx(loss, rel=1e-6))
        assert row["norm"] == pytest.approx(np.linalg.norm(own), rel=1e-5)
        assert row["cosine"] == pytest.approx(own @ mean / np.linalg.norm(own) / np.linalg.norm(mean), rel=1e-5)
    assert rows[0]["parameters_hash"] == rows[1]["parameters_hash"] == fingerprint(ranks.Net().parameters())


def test_layers_are_those_of_one_pass_over_all_samples(found):
    words, labels = ranks.data()
    model, outputs = ranks.Net(), {}

    def keep(name: str, tensor: Tensor) -> Tensor:
        tensor.retain_grad()
        outputs[name] = tensor
        return tensor

    hidden = keep("first", model.first(keep("words", model.words(words))))
    F.cross_entropy(keep("last", model.last(keep(":relu", torch.relu(hidden)))), labels).backward()
    rows = {row["name"]: row for row in found[0]["layers"]}
    assert set(rows) == set(outputs) and found[0]["layers"] == found[1]["layers"]
    for name, output in outputs.items():
        gradient, row = array(output.grad), rows[name]
        sizes = np.abs(gradient)
        assert (row["status"], tuple(row["shape"]), row["nan"], row["infinite"]) == ("gradient", tuple(output.shape), 0, 0)
        expected = (sizes.mean(), sizes.max(), np.sqrt((gradient**2).mean()), (gradient == 0).mean(), np.sqrt((array(output) ** 2).mean()))
        assert (row["mean"], row["greatest"], row["rms"], row["zeros"], row["activation_rms"]) == pytest.approx(expected, rel=1e-5)


def test_one_bit_of_one_weight_is_seen(found):
    first, second = found[0]["other_weights"]
    assert first["parameters_hash"] != second["parameters_hash"]


def test_the_process_whose_data_hold_nan_is_named(found):
    case = found[0]["not_a_number"]
    good, bad = case["ranks"]
    assert (good["norm"] is not None, bad["norm"], bad["loss"], case["loss"]) == (True, None, "nan", "nan")
    assert float(good["loss"]) > 0 and good["parameters_hash"] == bad["parameters_hash"]


def joined() -> nn.Sequential:
    model = ranks.plain()
    model(ranks.vectors()).square().mean().backward()
    return model


def shown(found: list[dict[str, Any]], case: str) -> list[Any]:
    if case in ranks.LEFT_OUT:
        pytest.skip("torch is too old")
    return [each[case] for each in found]


@pytest.mark.parametrize("case", ["fully_shard", "partly_sharded", "fsdp_original", "fsdp_flat"])
def test_shards_are_added_up(found, case):
    model = joined()
    gradients, weights = ([array(each) for each in tensors] for tensors in ([p.grad for p in model.parameters()], model.parameters()))
    if case == "fsdp_flat":
        gradients, weights = ([np.concatenate([each.ravel() for each in every])] for every in (gradients, weights))
    for each in shown(found, case):
        padded = case == "fsdp_flat"  # filled up so that all have the same
        for numbers, gradient in zip(each["gradients"], gradients, strict=True):
            assert numbers["elements"] == gradient.size + (padded and gradient.size % 2)
            assert (numbers["nonzero"], numbers["nan"], numbers["infinite"]) == (np.count_nonzero(gradient), 0, 0)
            expected = np.abs(gradient).sum(), (gradient**2).sum(), np.abs(gradient).max()
            assert (numbers["total"], numbers["squares"], numbers["greatest"]) == pytest.approx(expected, rel=1e-5)
        assert each["weights"] == pytest.approx([(weight**2).sum() for weight in weights], rel=1e-5)
        assert each["loss"] == pytest.approx(model(ranks.vectors()).square().mean().item(), rel=1e-6)
        assert [(rank["norm"], rank["parameters_hash"]) for rank in each["ranks"]] == [(None, "")] * 2


@pytest.mark.parametrize("case", ["step_ddp", "step_fully_shard"])
def test_the_users_step_in_two_processes_is_that_of_one(found, case):
    model = ranks.plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    losses, expected = [], {}
    for _ in range(2):
        optimizer.zero_grad()
        output = model(ranks.vectors())
        output.retain_grad()
        loss = output.square().mean()
        loss.backward()
        losses.append(loss.item())
        before = {name: array(each).copy() for name, each in model.named_parameters()}
        norms = {name: np.linalg.norm(array(each.grad)) for name, each in model.named_parameters()}
        optimizer.step()
        expected = {
            name: {"norm": norms[name], "update": np.linalg.norm(array(each) - before[name]) / np.linalg.norm(before[name])}
            for name, each in model.named_parameters()
        }
    for each in shown(found, case):
        assert each["losses"] == pytest.approx(losses, rel=1e-5) and set(each["rows"]) == set(expected)
        for name, row in each["rows"].items():
            assert row.pop("status") == "gradient"
            assert row == pytest.approx(expected[name], rel=1e-4)
        rms, shape = each["layers"]["2"]
        assert (rms, shape) == (pytest.approx(np.sqrt((array(output.grad) ** 2).mean()), rel=1e-4), [8, 3])


def test_ranks_of_a_step_are_compared_before_ddp_reduces(found):
    own = []
    for rank in range(2):
        model = ranks.plain()
        loss = model(ranks.vectors()[ranks.half(rank)]).square().mean()
        loss.backward()
        own.append((loss.item(), np.concatenate([array(each.grad).ravel() for each in model.parameters()])))
    mean = (own[0][1] + own[1][1]) / 2
    for row, (loss, gradient) in zip(found[1]["step_ddp"]["ranks"], own, strict=True):
        assert (row["loss"], row["norm"]) == pytest.approx((loss, np.linalg.norm(gradient)), rel=1e-5)
        assert row["cosine"] == pytest.approx(gradient @ mean / np.linalg.norm(gradient) / np.linalg.norm(mean), rel=1e-5)
        assert row["parameters_hash"] == fingerprint(ranks.plain().parameters())


def test_each_takes_every_second_batch_and_begins_again(found):
    assert [each["shard"] for each in found] == [[0, 2, 4, 1, 3, 0], [1, 3, 0, 2, 4, 1]]


def test_only_the_first_speaks(found):
    assert [each["stdout"] for each in found] == ["said by 0\n", ""]


FACTORY = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.parallel.DistributedDataParallel(nn.Linear(5, 3))
"""


def test_a_function_that_makes_a_distributed_model_finds_the_group(tmp_path):
    """Without one, DistributedDataParallel cannot be made; the gradient is that of all samples together."""
    (tmp_path / "made.py").write_text(FACTORY)
    inputs, labels = torch.randn(8, 5, generator=torch.Generator().manual_seed(3)), torch.arange(8) % 3
    torch.save((inputs, labels), tmp_path / "both.pt")
    options = {"--input": "both.pt", "--batch-size": "4", "--device": "cpu", "--format": "json"}
    command = ["-m", "netlens", "gradflow", "made.py:net", "--no-pictures", *chain(*options.items())]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, *command], env={**os.environ, **own, "RANK": str(rank), "LOCAL_RANK": str(rank)}, cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        (out, err), (silent, _) = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], err[-4000:]
    torch.manual_seed(0)
    alone = nn.Linear(5, 3)
    F.cross_entropy(alone(inputs), labels).backward()
    rows = {row["name"]: row["norm"] for row in json.loads(out)["report"]["parameters"]}
    expected = {name: np.linalg.norm(array(each.grad)) for name, each in alone.named_parameters()}
    assert rows == pytest.approx(expected, rel=1e-4) and not silent


def test_a_fingerprint_is_of_the_bits_in_their_places():
    """The sum over places of bits * (2 place + 1), modulo 2^64, in Python's integers."""
    values = torch.tensor([1.5, -2.0, 0.0])
    bits = [int(value) for value in values.numpy().view(np.int32)]
    total = sum(bit * (2 * place + 1) for place, bit in enumerate(bits))
    signed = (total + 2**63) % 2**64 - 2**63
    text = repr(([((3,), "torch.float32")], [signed]))
    assert fingerprint([values]) == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert fingerprint([values]) != fingerprint([values.flip(0)]) != fingerprint([values.view(3, 1)])
    half = torch.ones(4, dtype=torch.bfloat16)
    assert fingerprint([half]) == fingerprint([half.clone()]) != fingerprint([half.float()])


def test_a_single_process_is_not_one_of_several(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with processes(torch.device("cpu")) as group:
        assert group is None
    assert not dist.is_initialized()


def test_half_an_environment_is_told():
    whole = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    assert launched(whole) and not launched({}) and not launched({**whole, "WORLD_SIZE": "1"})
    with pytest.raises(UsageError, match="WORLD_SIZE is 2, and MASTER_PORT is not set"):
        launched({name: value for name, value in whole.items() if name != "MASTER_PORT"})
    with pytest.raises(UsageError, match="'two' is no number"):
        launched({"WORLD_SIZE": "two"})


def test_every_process_of_a_machine_has_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    environment = {"RANK": "5", "WORLD_SIZE": "8", "MASTER_ADDR": "host", "MASTER_PORT": "1", "LOCAL_RANK": "1"}
    assert own_device(None, environment) == "cuda:1" and own_device("cuda", environment) == "cuda:1"
    assert own_device("cpu", environment) == "cpu" and own_device("cuda", {}) == "cuda"
