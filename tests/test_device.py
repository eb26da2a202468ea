"""Devices: what `--device` means on machines that are faked, down to the program that tells which card is free."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from netlens.errors import NetlensError, OutOfMemory, UsageError
from netlens.loading import device as devices
from netlens.loading import gpus, memory, shortage
from netlens.loading.device import Device, check_device, choose_device, parse_compute_device, parse_device, threads
from netlens.loading.memory import Memory, Peak, available_memory, size_text, watch_peak
from netlens.loading.shortage import check_room, explained, halving, levers, out_of_memory, out_of_memory_told
from tests.conftest import REPOSITORY

GIB = 1 << 30
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
UUIDS = ("1a2b3c4d-0000-0000-0000-00000000000a", "5e6f7a8b-0000-0000-0000-00000000000b", "9c0d1e2f-0000-0000-0000-00000000000c")


class Machine:
    """A machine with GPUs that torch's functions tell of; `touched` are those on which torch would have made a context."""

    def __init__(self, patch: pytest.MonkeyPatch, count: int) -> None:
        self.touched: list[torch.device] = []
        self.broken = ""
        for name, value in {
            "is_available": lambda: True,
            "device_count": lambda: count,
            "get_device_properties": lambda index: SimpleNamespace(name="NVIDIA H100", uuid=UUIDS[index]),
            "mem_get_info": self.mem_get_info,
            "memory_reserved": lambda _device: 3 * GIB,
            "memory_allocated": lambda _device: 1 * GIB,
        }.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch, "ones", self.ones)

    def ones(self, *_size: int, device: torch.device) -> torch.Tensor:
        self.touched.append(device)
        if self.broken:
            raise RuntimeError(self.broken)
        return torch.zeros(1)

    def mem_get_info(self, device: torch.device) -> tuple[int, int]:
        self.touched.append(device)
        return 59 * GIB, 80 * GIB


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in devices.HIDING:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.2")


@pytest.fixture
def one(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch, 1)


@pytest.fixture
def three(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch, 3)


def lines(error: pytest.ExceptionInfo[NetlensError]) -> tuple[str, str]:
    assert "\n" not in error.value.message + error.value.hint
    return error.value.message, error.value.hint


# --- What may be written


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("auto", "auto"),
        (" CUDA:1", "cuda:1"),
        ("gpu", "gpu"),
        ("cuda:auto", "cuda:auto"),
        ("xpu:0", "xpu:0"),
        ("mps", "mps"),
        ("cpu", "cpu"),
    ],
)
def test_a_device_to_compute_on_is_read(text, device):
    assert parse_compute_device(text) == device


@pytest.mark.parametrize("text", ["", "cuda:", "cuda:x", "cuda:-1", "cuda 0", "cpu:1", "mps:0", "hpu", "cuda:1000", "xpu:auto", "gpus"])
def test_what_is_no_device_is_refused_in_two_lines(text):
    with pytest.raises(UsageError, match=f"--device {re.escape(repr(text))} is not a device") as error:
        parse_compute_device(text)
    assert re.match(r"write auto, cpu, cuda|did you mean '", lines(error)[1])


def test_meta_is_for_the_summary_alone():
    assert (parse_device("meta"), parse_device("gpu:1"), parse_device("auto")) == ("meta", "cuda:1", "auto")
    with pytest.raises(UsageError, match="--device meta computes nothing, and featuremaps needs values"):
        parse_compute_device("meta", "featuremaps")


def test_reading_needs_no_torch():
    code = "import sys; from netlens.loading.device import parse_compute_device as p; p('cuda:1'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


# --- What there is


def test_auto_is_the_cpu_where_there_is_no_gpu(no_gpu, monkeypatch):
    monkeypatch.setattr(devices, "memory_of", lambda _place: Memory(21 * GIB))
    found = choose_device("auto")
    assert (found.torch_device, found.name, found.why) == (CPU, "cpu", "torch finds no GPU")
    assert found.header == f"cpu · {threads()} threads · 21 GiB free · torch finds no GPU"


def test_auto_is_the_first_gpu_where_there_are_some(three):
    found = choose_device("auto")
    assert (found.torch_device, found.name) == (CUDA, "cuda:0 NVIDIA H100 (GPU-1a2b3c4d…)")
    assert found.memory == Memory(61 * GIB, 80 * GIB)  # 59 that nobody has, and 2 that torch keeps for this process
    assert found.header == "cuda:0 NVIDIA H100 (GPU-1a2b3c4d…) · 61 of 80 GiB free"
    assert {place.index for place in three.touched} == {0}


@pytest.mark.parametrize(("text", "index"), [("cuda", 0), ("cuda:2", 2), ("gpu", 0), ("gpu:1", 1)])
def test_a_gpu_by_name_is_the_only_one_touched(three, text, index):
    assert choose_device(text).torch_device == torch.device("cuda", index)
    assert {place.index for place in three.touched} == {index}


@pytest.mark.parametrize("hidden", ["", "-1", " "])
def test_hidden_gpus_are_a_note_for_auto_and_an_error_by_name(no_gpu, monkeypatch, hidden):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert choose_device("auto").why == f"CUDA_VISIBLE_DEVICES={hidden!r} hides every GPU"
    with pytest.raises(UsageError) as error:
        choose_device("cuda:0")
    assert lines(error) == (
        f"--device cuda:0: CUDA_VISIBLE_DEVICES={hidden!r} hides every GPU",
        "this machine has no accelerator: --device cpu",
    )


@pytest.mark.parametrize("text", ["cuda", "cuda:7", "cuda:auto", "xpu", "xpu:1", "mps", "gpu"])
@pytest.mark.parametrize("check", [choose_device, check_device])
def test_a_device_that_is_not_there_is_two_lines(no_gpu, text, check):
    if (text, check) == ("gpu", check_device):
        return  # `parse_device` has made it "cuda"
    with pytest.raises(UsageError, match=r"--device \w+(:\w+)?: torch finds no") as error:
        check(text)
    assert lines(error)[1] == "this machine has no accelerator: --device cpu"


def test_a_number_too_high_names_what_is_there(three):
    for check in (choose_device, check_device):
        with pytest.raises(UsageError) as error:
            check("cuda:3")
        assert lines(error) == (
            "--device cuda:3: there is none of that number",
            f"this machine has cpu, {', '.join(f'cuda:{index} NVIDIA H100 (GPU-{UUIDS[index][:8]}…)' for index in range(3))}",
        )
    assert three.touched == []


def test_a_torch_without_cuda_and_a_driver_that_is_too_old_say_so(no_gpu, monkeypatch):
    def too_old() -> bool:
        import warnings

        warnings.warn(
            "CUDA initialization: The NVIDIA driver is too old (found version 11040). (Triggered internally at x.cpp:1)", stacklevel=1
        )
        return False

    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", too_old)
        assert choose_device("auto").why == "CUDA initialization: The NVIDIA driver is too old (found version 11040)."
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    assert choose_device("auto").why == "this torch is built without CUDA"


def test_a_gpu_that_is_there_and_does_not_work(one):
    one.broken = "CUDA error: all CUDA-capable devices are busy or unavailable\nCUDA kernel errors might be reported elsewhere.\n"
    with pytest.raises(UsageError) as error:
        choose_device("cuda")
    assert lines(error)[0] == "--device cuda:0 does not work: CUDA error: all CUDA-capable devices are busy or unavailable"
    found = choose_device("auto")
    assert (found.name, found.why) == ("cpu", "cuda:0 does not work: CUDA error: all CUDA-capable devices are busy or unavailable")


def test_a_driver_that_tells_nothing_is_still_two_lines(one, monkeypatch):
    def broken(_index: int) -> None:
        raise RuntimeError("CUDA unknown error")

    monkeypatch.setattr(torch.cuda, "get_device_properties", broken)
    one.broken = "CUDA unknown error - this may be due to an incorrectly set up environment"
    with pytest.raises(UsageError) as error:
        choose_device("cuda")
    assert lines(error)[1] == "this machine has cpu, cuda:0"


# --- The one with most free memory


def script(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    """Put a program called nvidia-smi before all others, which keeps the arguments that it was called with."""
    program = folder / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "$@" > "{folder}/asked"\n{text}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder / "asked"


def table(*rows: str) -> str:
    told = "\n".join(("uuid, memory.used [MiB], memory.total [MiB]", *rows))
    return f"cat <<'END'\n{told}\nEND"


FREE_1 = (f"GPU-{UUIDS[2]}, 70000 MiB, 81559 MiB", f"GPU-{UUIDS[0]}, 40000 MiB, 81559 MiB", f"GPU-{UUIDS[1]}, 17 MiB, 81559 MiB")


@pytest.fixture
def no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands for nvidia-smi")
@pytest.mark.usefixtures("no_nvml")
class TestMostFree:
    """`--device cuda:auto`."""

    def test_it_is_found_by_uuid_and_the_only_one_touched(self, three, tmp_path, monkeypatch):
        """nvidia-smi lists the cards in another order than CUDA counts them in."""
        asked = script(tmp_path, monkeypatch, table(*FREE_1))
        found = choose_device("cuda:auto")
        assert (found.torch_device.index, found.why) == (1, "most free memory of 3 GPUs")
        assert {place.index for place in three.touched} == {1}
        assert asked.read_text().split() == ["--query-gpu=uuid,memory.used,memory.total", "--format=csv"]

    def test_cards_that_this_process_may_not_use_do_not_count(self, one, tmp_path, monkeypatch):
        """nvidia-smi does not know CUDA_VISIBLE_DEVICES; with one card there is nothing to ask."""
        asked = script(tmp_path, monkeypatch, table(*FREE_1))
        assert (choose_device("cuda:auto").why, asked.exists()) == ("the only one", False)

    def test_a_card_that_tells_nothing_is_left_out(self, three, tmp_path, monkeypatch):
        rows = (
            f"GPU-{UUIDS[0]}, [N/A], [N/A]",
            f"GPU-{UUIDS[1]}, 81000 MiB, 81559 MiB",
            "garbage",
            f"GPU-{UUIDS[2]}, 60000 MiB, 81559 MiB",
        )
        script(tmp_path, monkeypatch, table(*rows))
        found = choose_device("cuda:auto")
        assert (found.torch_device.index, found.why) == (2, "most free memory of 3 GPUs, 1 of them unknown")

    @pytest.mark.parametrize(
        "text",
        [
            "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9",
            "exit 0",
            "printf '\\377\\376'",
            "exec sleep 5",
            table(f"GPU-{'0' * 8}-0000-0000-0000-000000000000, 0 MiB, 81559 MiB"),
        ],
        ids=["no driver", "nothing", "no text", "hangs", "other cards"],
    )
    def test_where_nothing_tells_it_is_the_first_and_says_so(self, three, tmp_path, monkeypatch, text):
        monkeypatch.setattr(gpus, "PATIENCE", 0.5)
        script(tmp_path, monkeypatch, text)
        found = choose_device("cuda:auto")
        assert (found.torch_device.index, found.why) == (
            0,
            "the first, because neither nvidia-smi nor NVML tells how much memory is free",
        )

    def test_without_nvidia_smi_nvml_tells_and_knows_parts_of_a_card(self, three, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setitem(sys.modules, "pynvml", nvml({f"GPU-{UUIDS[0]}": 5 * GIB, f"MIG-{UUIDS[2]}": 9 * GIB}))
        assert choose_device("cuda:auto").torch_device.index == 2


def nvml(free: dict[str, int]) -> Any:
    class NVMLError(Exception):
        pass

    def handle(uuid: str) -> str:
        if uuid not in free:
            raise NVMLError(uuid)
        return uuid

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByUUID=handle,
        nvmlDeviceGetMemoryInfo=lambda uuid: SimpleNamespace(free=free[uuid]),
    )


# --- Threads


def test_threads_are_those_of_the_environment_or_at_most_eight(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: range(100), raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads() == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: range(3), raising=False)
    assert threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "64")  # torch has read it when it was imported
    assert threads() == 64


# --- How much memory there is


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (44_600_000, "42.5 MiB"),
        (80 * GIB, "80 GiB"),
        (1023 * GIB, "0.999 TiB"),
        (1 << 60, "1 EiB"),
    ],
)
def test_bytes_are_written_with_three_digits(number, text):
    assert size_text(number) == text


def test_free_memory_is_written_in_the_unit_of_the_whole():
    assert str(Memory(61 * GIB + GIB // 5, 80 * GIB)) == "61.2 of 80 GiB free"
    assert (str(Memory(21 * GIB)), str(Memory(None))) == ("21 GiB free", "")
    assert Device(CUDA, "cuda:0 X", "", Memory(None)).header == "cuda:0 X"


def test_a_container_has_what_it_does_not_use_and_the_files_that_it_only_keeps(monkeypatch):
    files = {
        "/proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n",
        "/sys/fs/cgroup/memory.max": f"{4 * GIB}\n",
        "/sys/fs/cgroup/memory.current": f"{3 * GIB}\n",
        "/sys/fs/cgroup/memory.stat": f"anon 7\ninactive_file {2 * GIB}\n",
    }
    monkeypatch.setattr(memory, "_lines", lambda path: files.get(path, "").splitlines())
    assert available_memory() == 3 * GIB
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert available_memory() == 8 * GIB


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel tells it there")
def test_the_peak_on_the_cpu_is_what_the_process_grew_by():
    now, highest = memory._resident()
    peak = watch_peak(CPU)
    size = max(highest - now, 0) + (128 << 20)
    torch.ones(size, dtype=torch.uint8)  # and gone again
    found = peak().resident
    # The kernel adds up a thread's pages in steps (64 a CPU in Linux's split counters), so a little may be missing.
    assert found is not None and size - (4 << 20) <= found < size + (64 << 20)
    assert (peak().allocated, peak().reserved) == (None, None)
    assert watch_peak(CPU)() == Peak()  # below the earlier peak nothing can be told


def test_peaks_as_text():
    assert str(Peak(3 * GIB, 4 * GIB)) == "peak 3 GiB allocated, 4 GiB reserved"
    assert (str(Peak(resident=GIB)), str(Peak())) == ("peak 1 GiB more than before the run", "")


# --- Out of memory

CUDA_TEXT = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.19 GiB is free. "
    "Process 4711 has 20.00 GiB memory in use. Process 4712 has 512.00 MiB memory in use. Including non-PyTorch memory, ..."
)
TEXTS = {
    "cuda": CUDA_TEXT,
    "context": "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
    "cublas": "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cudnn": "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_ALLOC_FAILED",
    "rocm": "HIP out of memory. Tried to allocate 20.00 MiB.",
    "xpu": "UR error: UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY",
    "mps": "MPS backend out of memory (MPS allocated: 8.00 GB, max allowed: 9.07 GB). Tried to allocate 2.00 GB",
    "mps buffer": "Invalid buffer size: 12.00 GiB",
    "windows": "[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_every_device_says_it_in_its_own_words(text):
    assert out_of_memory(RuntimeError(text))


@pytest.mark.parametrize(
    "make", [lambda: torch.empty(1 << 50), lambda: torch.empty(1 << 62, 8), lambda: bytearray(1 << 60)], ids=["cpu", "overflow", "python"]
)
def test_what_really_does_not_fit_is_recognised_and_told(make):
    with pytest.raises(OutOfMemory, match=r"^this machine is out of memory: ") as error, out_of_memory_told(CPU, ["--dtype bf16"]):
        make()
    assert lines(error)[1] == "try --dtype bf16" and out_of_memory(error.value)


def test_torchs_own_class_is_recognised_whatever_it_says():
    assert out_of_memory(torch.cuda.OutOfMemoryError("x"))
    assert out_of_memory(torch._C.OutOfMemoryError("x") if hasattr(torch._C, "OutOfMemoryError") else MemoryError())


@pytest.mark.parametrize(
    "error",
    [RuntimeError("index out of memory bank"), ValueError("CUDA out of memory"), KeyError("x"), RuntimeError("CUDA error: illegal")],
)
def test_other_errors_are_not(error):
    assert not out_of_memory(error)
    with pytest.raises(type(error)), out_of_memory_told(CPU, []):
        raise error


def test_it_is_recognised_below_another_error():
    try:
        try:
            torch.empty(1 << 50)
        except RuntimeError as error:
            raise ValueError("layer4 failed") from error
    except ValueError as error:
        assert out_of_memory(error)


def test_two_lines_say_what_was_asked_what_there_is_and_what_helps(monkeypatch):
    monkeypatch.setattr(shortage, "memory_of", lambda _device: Memory(GIB, 80 * GIB))
    told = explained(RuntimeError(CUDA_TEXT), CUDA, levers(CUDA, batch_size=16, pictures=True))
    assert told.message == ("cuda:0 is out of memory: 2 GiB were asked for at once, 1 of 80 GiB free, 20.5 GiB in use by other processes")
    assert told.hint == "try --batch-size 8, --dtype bf16, --device cpu or a smaller --size"


@pytest.mark.parametrize(
    ("device", "asked", "expected"),
    [
        (CPU, {}, ["--dtype bf16", "a smaller --input"]),
        (CPU, {"batch_size": 5, "dtype": "bf16"}, ["--batch-size 2", "a smaller --input"]),
        (CUDA, {"dtype": "fp64", "pictures": True}, ["--dtype bf16", "--device cpu", "a smaller --size"]),
    ],
)
def test_levers_are_those_that_can_still_be_pulled(device, asked, expected):
    assert levers(device, **asked) == expected


def test_what_does_not_fit_is_not_begun(monkeypatch):
    monkeypatch.setattr(shortage, "memory_of", lambda _device: Memory(10 * GIB))
    assert check_room(8 * GIB, CPU, []) == ""
    note = check_room(9 * GIB, CPU, [])
    assert note == "this machine has 10 GiB free, and the weights alone take 9 GiB: a forward pass may not fit"
    with pytest.raises(OutOfMemory, match="this machine is out of memory: the weights alone take 11 GiB, 10 GiB free"):
        check_room(11 * GIB, CPU, ["--dtype bf16"])
    monkeypatch.setattr(shortage, "memory_of", lambda _device: Memory(None))
    assert check_room(1 << 60, CPU, []) == ""


def test_the_batch_is_halved_until_it_fits():
    tried = []

    def run(size: int) -> str:
        tried.append(size)
        if size > 3:
            raise RuntimeError(CUDA_TEXT)
        return f"ran {size}"

    assert halving(run, 24) == ("ran 3", 3)
    assert tried == [24, 12, 6, 3]


def test_one_sample_that_does_not_fit_and_other_errors_end_it():
    tried = []

    def run(size: int) -> None:
        tried.append(size)
        raise RuntimeError(CUDA_TEXT) if size > 1 or len(tried) > 2 else ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        halving(run, 2)
    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        halving(run, 2)
    assert tried == [2, 1, 2, 1]


def test_what_a_failed_try_held_is_let_go():
    """Else the second try has less room than the first: an exception's frames keep every tensor of the forward pass."""
    import weakref

    held: list[weakref.ref[Any]] = []

    def run(size: int) -> bool:
        big = torch.zeros(8)
        if held:
            return held[0]() is None
        held.append(weakref.ref(big))
        raise RuntimeError(CUDA_TEXT)

    assert halving(run, 2) == (True, 1)


# --- A real GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
class TestRealGpu:
    """The same with nothing faked."""

    def test_auto_works_and_tells_its_memory(self):
        found = choose_device("auto")
        assert found.torch_device.type == "cuda" and found.memory.free and found.memory.total
        assert 0 < found.memory.free <= found.memory.total
        assert choose_device("cuda:auto").torch_device.type == "cuda"

    def test_the_peak_is_that_of_tensors(self):
        peak = watch_peak(CUDA)
        before = torch.cuda.memory_allocated(CUDA)
        torch.ones(64 << 20, dtype=torch.uint8, device=CUDA)
        found = peak()
        assert found.allocated == before + (64 << 20) and found.reserved is not None and found.reserved >= found.allocated

    def test_too_much_is_told(self):
        told = r"^cuda:0 is out of memory: .* were asked for at once, .* of .* free"
        with pytest.raises(OutOfMemory, match=told), out_of_memory_told(CUDA, levers(CUDA)):
            torch.empty(1 << 42, device=CUDA)
