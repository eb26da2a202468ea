"""A model and its inputs where and how they run, and the user's own model as it was afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from netlens.errors import InputError, OutOfMemory, UsageError
from netlens.loading import placing, shortage
from netlens.loading.memory import Memory
from netlens.loading.placing import autocasting, check_weights, dtype_of, place_inputs, placed, torch_dtype, weight_bytes

CPU = torch.device("cpu")


class Net(nn.Module):
    """One of everything: 2-D to 5-D weights, tied ones, an LSTM, integers, a complex buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.deep = nn.Conv3d(2, 3, 2)
        self.lstm = nn.LSTM(4, 5)
        self.head, self.tied = nn.Linear(5, 4, bias=False), nn.Linear(5, 4, bias=False)
        self.tied.weight = self.head.weight
        self.register_buffer("ids", torch.arange(3))
        self.register_buffer("phase", torch.tensor([1 + 2j]))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.norm(self.conv(x))
        out: Tensor = self.head(self.lstm(maps.flatten(2).permute(2, 0, 1))[0])
        return out


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))


# --- dtype


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp64", torch.float64)]
)
def test_floats_are_cast_and_nothing_else(net, name, dtype):
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with placed(net, CPU, dtype=name):
        for key, value in net.state_dict().items():
            is_float = before[key].dtype == torch.float32
            assert value.dtype == (dtype if is_float else before[key].dtype), key
            assert torch.equal(value, before[key].to(dtype) if is_float else before[key]), key
    assert net.ids.dtype == net.norm.num_batches_tracked.dtype == torch.int64 and net.phase.dtype == torch.complex64


def test_a_cast_model_computes_what_torchs_own_cast_computes(net):
    other = deepcopy(net).to(torch.float64).eval()
    other.phase = net.phase
    expected = other(images().double())
    with placed(net.eval(), CPU, dtype="fp64") as model:
        (x,), _ = place_inputs((images(),), {}, CPU, dtype="fp64")
        found = model(x)
    assert found.dtype == torch.float64 and torch.equal(found, expected)


def test_tied_weights_stay_tied_and_parameters_the_same_objects(net):
    objects = dict(net.named_parameters())
    with placed(net, CPU, dtype="bf16", channels_last=True):
        assert net.tied.weight is net.head.weight
        assert all(objects[name] is parameter for name, parameter in net.named_parameters())
        assert net.lstm._flat_weights[0] is net.lstm.weight_ih_l0


def test_what_is_no_dtype_is_refused():
    assert torch_dtype(None) is None and torch_dtype(torch.float16) is torch.float16
    with pytest.raises(UsageError, match="'fp8' is not a dtype to compute in"):
        torch_dtype("fp8")


def test_the_option_means_what_it_says():
    from netlens.cli.options import HalfPrecision, Precision

    assert {option: torch_dtype(option) for option in Precision} == placing.DTYPES
    assert {torch_dtype(option) for option in HalfPrecision if option is not HalfPrecision.OFF} == {torch.bfloat16, torch.float16}


# --- channels last


def test_channels_last_lays_out_each_weight_by_its_rank(net):
    x = images()
    net.eval()
    expected = net(x)
    with placed(net, CPU, channels_last=True) as model:
        assert net.conv.weight.stride() == (27, 1, 9, 3)  # (4, 3, 3, 3): channels are neighbours in memory
        assert net.deep.weight.stride() == (16, 1, 8, 4, 2)  # (3, 2, 2, 2, 2)
        assert net.head.weight.stride() == (5, 1)
        (y,), _ = place_inputs((x,), {}, CPU, channels_last=True)
        assert y.stride() == (48, 1, 12, 3) and torch.equal(x, y)
        torch.testing.assert_close(model(y), expected)


# --- inputs


def test_inputs_are_cast_wherever_they_are_and_integers_are_not():
    ids, mask = torch.arange(3), torch.ones(2, dtype=torch.bool)
    args, kwargs = place_inputs((images(), [ids, 3.5, "text"]), {"more": {"mask": mask, "x": images()}, "none": None}, CPU, dtype="fp16")
    assert args[0].dtype == torch.float16 and torch.equal(args[0], images().half())
    assert args[1][0].dtype == torch.int64 and args[1][1:] == [3.5, "text"]
    assert kwargs["more"]["mask"].dtype == torch.bool and kwargs["more"]["x"].dtype == torch.float16 and kwargs["none"] is None


def test_inputs_stay_as_they_are_without_a_dtype():
    x = images().double()
    (same,), _ = place_inputs((x,), {}, CPU)
    assert same is x


def test_the_dtype_of_a_model_is_that_of_its_weights(net):
    assert dtype_of(net) == torch.float32
    assert dtype_of(nn.Linear(2, 2).bfloat16()) == torch.bfloat16
    assert dtype_of(nn.ReLU()) is None


# --- the user's own model


def state(model: nn.Module) -> dict[str, Any]:
    """What must be the same afterwards: objects, storages, strides, gradients."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
    return {name: (id(t), t.data_ptr(), t.dtype, t.stride(), t.requires_grad, id(t.grad)) for name, t in tensors}


@pytest.mark.parametrize("options", [{"dtype": "bf16"}, {"dtype": "fp16", "channels_last": True}, {"channels_last": True}, {}])
@pytest.mark.parametrize("raises", [False, True])
def test_a_lent_model_comes_back_bit_by_bit(net, options, raises):
    net.head.weight.requires_grad_(False)
    net(images()).sum().backward()
    before, values = state(net), {name: tensor.clone() for name, tensor in net.state_dict().items()}
    grad = net.conv.weight.grad.clone()
    try:
        with placed(net, CPU, lent=True, **options) as model:
            assert model is net and net.conv.weight.grad is None
            if raises:
                raise KeyError("from the forward")
    except KeyError:
        assert raises
    assert state(net) == before
    assert all(torch.equal(tensor, values[name]) for name, tensor in net.state_dict().items())
    assert torch.equal(net.conv.weight.grad, grad)
    net(images()).sum().backward()  # it trains on


def test_gradients_inside_are_of_the_cast_model_and_gone_afterwards(net):
    with placed(net, CPU, dtype="fp64", lent=True):
        net(images().double()).sum().backward()
        assert net.conv.weight.grad.dtype == torch.float64
    assert net.conv.weight.grad is None


def test_lazy_modules_can_be_lent():
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d())
    with placed(net, CPU, dtype="fp64", lent=True, channels_last=True):
        assert net[0].weight.dtype == torch.float64
    assert net[0].weight.dtype == torch.float32
    assert net(images()).dtype == torch.float32


def test_scripted_models_are_placed():
    net = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    with placed(net, CPU, dtype="fp64", lent=True):
        assert net(images().double()).dtype == torch.float64
    assert net(images()).dtype == torch.float32


def test_threads_are_set_while_it_runs(net, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(placing, "threads", lambda: 1)
    with placed(net, CPU):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


# --- what cannot be


def test_weights_that_do_not_fit_are_not_moved(net, monkeypatch):
    monkeypatch.setattr(shortage, "memory_of", lambda _device: Memory(1000, 2000))
    with pytest.raises(OutOfMemory, match=r"^meta is out of memory: the weights alone take") as error, placed(net, torch.device("meta")):
        pass
    assert error.value.hint == "try --dtype bf16, --device cpu or a smaller --input"
    assert net.conv.weight.device == CPU


def test_what_a_device_refuses_is_two_lines_and_a_lent_model_is_whole(net, monkeypatch):
    """Apple's GPUs have no float64; they say so for the first tensor that is cast, and may run out of memory at any."""
    before, original = state(net), placing._placed

    def refusing(words: str) -> Any:
        calls: list[Tensor] = []

        def refuse(tensor: Tensor, *rest: Any) -> Tensor:
            calls.append(tensor)
            if len(calls) > 3:
                raise TypeError(words) if "MPS framework" in words else RuntimeError(words)
            return original(tensor, *rest)

        return refuse

    monkeypatch.setattr(
        placing, "_placed", refusing("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")
    )
    with (
        pytest.raises(UsageError, match="the model cannot be moved to cpu as fp64: TypeError: Cannot convert"),
        placed(net, CPU, dtype="fp64", lent=True),
    ):
        pass
    assert state(net) == before
    monkeypatch.setattr(placing, "_placed", refusing("CUDA out of memory. Tried to allocate 20.00 MiB."))
    with pytest.raises(OutOfMemory, match="20 MiB were asked for at once"), placed(net, CPU, dtype="fp64", lent=True):
        pass
    assert state(net) == before


def test_bytes_of_weights_are_counted_once_and_as_cast():
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(4, 3, bias=False))
    net[2].weight = net[0].weight
    floats = 4 * 3 + 3 + 4 * 3  # weight, bias; weight, bias, mean and variance of the norm
    assert weight_bytes(net) == 4 * floats + 8  # num_batches_tracked
    assert weight_bytes(net, "bf16") == 2 * floats + 8


def test_a_model_is_weighed_before_it_is_built(monkeypatch):
    """2^40 float32 numbers are 4 TiB, which nobody allocates to find out."""
    built = []

    def build() -> nn.Module:
        built.append(nn.Linear(1 << 20, 1 << 20, bias=False))
        return built[0]

    monkeypatch.setattr(shortage, "memory_of", lambda _device: Memory(1 << 30))
    with pytest.raises(OutOfMemory, match="this machine is out of memory: the weights alone take 4 TiB, 1 GiB free"):
        check_weights(build, CPU, None, ["--dtype bf16"])
    assert built[0].weight.is_meta
    assert check_weights(lambda: nn.Linear(2, 2), CPU, None, []) == ""

    def reads() -> nn.Module:
        raise InputError("reads its weights", hint="")

    assert check_weights(reads, CPU, None, []) == ""


# --- autocast


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_autocast_is_in_effect(name):
    net = nn.Linear(3, 2)
    with autocasting(CPU, name):
        assert net(torch.ones(1, 3)).dtype == torch_dtype(name)
    assert net(torch.ones(1, 3)).dtype == torch.float32


def test_no_autocast_is_no_autocast():
    with autocasting(CPU, None):
        assert not torch.is_autocast_enabled("cpu")


def test_an_autocast_that_only_warns_is_an_error(recwarn):
    with (
        pytest.raises(UsageError, match=r"--autocast torch.float8_e4m3fn has no effect on cpu with torch"),
        autocasting(CPU, torch.float8_e4m3fn),
    ):
        pass
    assert not torch.is_autocast_enabled("cpu") and not recwarn.list


def test_autocast_leaves_nothing_behind_when_the_block_raises():
    with pytest.raises(RuntimeError, match="mine"), autocasting(CPU, "bf16"):
        raise RuntimeError("mine")
    assert not torch.is_autocast_enabled("cpu")


# --- a real GPU


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    yield torch.device("cuda", 0)


def test_a_lent_model_runs_on_a_gpu_and_comes_back(net, gpu):
    net.eval()
    expected, before = net(images()), state(net)
    with placed(net, gpu, lent=True, channels_last=True) as model, torch.no_grad():
        (x,), _ = place_inputs((images(),), {}, gpu, channels_last=True)
        found = model(x)
        assert found.device == gpu
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-2, atol=1e-2)
    assert state(net) == before and torch.equal(net(images()), expected)


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_autocast_on_a_gpu(net, gpu, name):
    with placed(net, gpu), autocasting(gpu, name):
        assert net.conv(images().to(gpu)).dtype == torch_dtype(name)
