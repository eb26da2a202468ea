"""What maps cost beside inference and beside pytorch-grad-cam, torchcam and captum: `python -m tests.benchmarks.cams [MODEL ...]`.

All contestants make Grad-CAM maps of the same pictures at the same layer, which is given to each, with one thread, in turns; ratios are
taken inside a turn, and the median over the turns is printed. pytorch-grad-cam and torchcam are used as their documentation says, with
their own default options. "netlens, all" is the whole call of the Python API: it lists the network's layers first, tests the chosen one on
a sample, reads the output, and describes each map. Memory is what a process of its own grows by at its peak, beyond the loaded model and
its inputs. Ablation-CAM is compared on resnet18.
"""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

TURNS = 5
CLASS = 7


@dataclass(frozen=True, slots=True)
class Case:
    """A model, its layer, its batch, and how much longer than inference a map may take."""

    model: str
    layer: str
    batch: int
    bar: float


CASES = (
    Case("resnet50", "layer4", 16, 1.15),
    Case("mobilenet_v3_large", "features", 16, 1.15),
    Case("vit_b_16", "encoder.layers.encoder_layer_11.ln_1", 8, 1.25),
)
FASTER, LEANER, ABLATION = 1 / 4, 1 / 3, 50  # bars on resnet50: of pytorch-grad-cam's time, of torchcam's memory; on resnet18
Make = Callable[[], Any]


def _model(case: Case) -> nn.Module:
    import torchvision

    torch.manual_seed(0)
    model: nn.Module = getattr(torchvision.models, case.model)().eval()
    if case.model.startswith("vit"):  # its head starts at zero, and so would all gradients
        nn.init.normal_(model.heads.head.weight, std=0.02)
    return model


def _tokens(tensor: Tensor) -> Tensor:
    side = round((tensor.shape[1] - 1) ** 0.5)
    return tensor[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)


def _plain(model: nn.Module, images: Tensor, _case: Case) -> Make:
    def run() -> Tensor:
        with torch.inference_mode():
            return model(images)

    return run


def _netlens(model: nn.Module, images: Tensor, case: Case) -> Make:
    from netlens.lenses.gradcam.choices import METHODS
    from netlens.lenses.gradcam.measure import Plan, explain
    from netlens.lenses.gradcam.sites import chosen
    from netlens.lenses.gradcam.targets import read

    sites = chosen(model, (images[:1],), {}, lambda output: output[:, CLASS], [case.layer]).sites
    plan = Plan((METHODS["gradcam"],), 16)
    return lambda: explain(
        model, ((images,), {}), sites, read, lambda answer, sample: answer.targets(sample, [str(CLASS)]), plan, ExitStack
    )


def _whole(model: nn.Module, images: Tensor, case: Case) -> Make:
    import netlens

    return lambda: netlens.gradcam(model, images, layer=case.layer, target=CLASS)


def _pgc(model: nn.Module, images: Tensor, case: Case, method: str = "GradCAM") -> Make:
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    transform = _tokens if case.model.startswith("vit") else None
    cam = getattr(pytorch_grad_cam, method)(model, [model.get_submodule(case.layer)], reshape_transform=transform)
    return lambda: cam(images, [ClassifierOutputTarget(CLASS)] * len(images))


def _torchcam(model: nn.Module, images: Tensor, case: Case) -> Make:
    from torchcam.methods import GradCAM

    def run() -> Any:
        options = {"reshape_transform": _tokens} if case.model.startswith("vit") else {}
        with GradCAM(model, case.layer, **options) as cam:
            return cam(CLASS, model(images))

    return run


def _captum(model: nn.Module, images: Tensor, case: Case) -> Make:
    from captum.attr import LayerGradCam

    cam = LayerGradCam(model, model.get_submodule(case.layer))
    return lambda: cam.attribute(images, target=CLASS, relu_attributions=True)


CONTESTANTS: dict[str, Callable[[nn.Module, Tensor, Case], Make]] = {
    "inference": _plain,
    "netlens": _netlens,
    "netlens, all": _whole,
    "pytorch-grad-cam": _pgc,
    "torchcam": _torchcam,
    "captum": _captum,
}


def _pictures(count: int) -> Tensor:
    return torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def _seconds(run: Make) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def times(case: Case, step: Callable[[], None] = lambda: None) -> dict[str, list[float]]:
    """Return the seconds of every contestant, turn by turn; the first turn is not counted."""
    images = _pictures(case.batch)
    runs = {name: make(_model(case), images, case) for name, make in CONTESTANTS.items()}
    found: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(TURNS + 1):
        for name, run in runs.items():
            taken = _seconds(run)
            if turn:
                found[name].append(taken)
            step()
    return found


def ratio(found: dict[str, list[float]], name: str, other: str) -> float:
    """Return how many times longer one takes than the other: the median over the turns."""
    return median(first / second for first, second in zip(found[name], found[other], strict=True))


def grown(case: Case, name: str) -> float:
    """Return by how many MiB a process grows at its peak while one contestant makes its maps."""
    line = [sys.executable, "-m", "tests.benchmarks.cams", "--grown", case.model, name]
    return float(subprocess.run(line, check=True, capture_output=True, text=True).stdout.split()[-1])


def _grown(model: str, name: str) -> None:
    case = next(case for case in CASES if case.model == model)
    torch.set_num_threads(1)
    built, small = _model(case), _pictures(1)
    CONTESTANTS[name](built, small, case)()  # whatever is imported or allocated once
    images = _pictures(case.batch)
    run = CONTESTANTS[name](built, images, case)
    Path("/proc/self/clear_refs").write_text("5")  # begin the peak anew
    before = _memory("VmRSS")
    run()
    print((_memory("VmHWM") - before) / 1024)


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def ablation() -> tuple[float, float, float]:
    """Return seconds a picture of netlens and of pytorch-grad-cam for Ablation-CAM on resnet18.layer4, and how far their maps are apart."""
    import netlens

    case, images = Case("resnet18", "layer4", 1, 0), _pictures(1)
    model = _model(case)
    own: list[Any] = []

    def run() -> None:
        own.append(netlens.gradcam(model, images, layer="layer4", target=CLASS, method="ablationcam"))

    seconds = min(_seconds(run), _seconds(run))
    theirs: list[Any] = []
    cam = _pgc(model, images, case, "AblationCAM")
    others = _seconds(lambda: theirs.append(cam()))
    map_ = own[-1].maps[0][None, None]
    low = map_ - map_.min()
    large = nn.functional.interpolate(low / low.max(), size=images.shape[2:], mode="bilinear", align_corners=False)[0, 0]
    return seconds, others, float((large - torch.from_numpy(theirs[-1][0])).abs().max())


def _kept(promise: str, measured: float, kept: bool) -> bool:
    print(f"  bar: {promise}, {measured:.2f}: {'kept' if kept else 'MISSED'}", flush=True)
    return kept


def compare(case: Case) -> bool:
    """Measure one model with all contestants, print, and return whether its promises are kept."""
    found = times(case)
    print(f"{case.model}.{case.layer}, {case.batch} pictures, 1 thread: inference {median(found['inference']) * 1e3:.0f} ms")
    memory = {name: grown(case, name) for name in CONTESTANTS} if Path("/proc/self/clear_refs").exists() else {}
    for name in CONTESTANTS:
        told = f"  peak {memory[name]:6.0f} MiB" if memory else ""
        print(f"  {name:17} {ratio(found, name, 'inference'):6.2f} x inference{told}", flush=True)
    slower = ratio(found, "netlens", "inference")
    verdicts = [_kept(f"at most {case.bar:g} x inference", slower, slower <= case.bar)]
    if case.model == "resnet50":
        share = ratio(found, "netlens", "pytorch-grad-cam")
        verdicts.append(_kept(f"at most {FASTER:g} of pytorch-grad-cam's time", share, share <= FASTER))
        if memory:
            share = memory["netlens"] / memory["torchcam"]
            verdicts.append(_kept(f"at most {LEANER:.2f} of torchcam's memory", share, share <= LEANER))
    return all(verdicts)


def main(*names: str) -> bool:
    """Measure, print, and return whether all promises are kept."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    verdicts = [compare(case) for case in CASES if not names or case.model in names]
    if not names or "resnet18" in names:
        own, theirs, apart = ablation()
        print(f"Ablation-CAM, resnet18.layer4, a picture: netlens {own:.3f} s, pytorch-grad-cam {theirs:.1f} s; maps {apart:.1e} apart")
        verdicts.append(_kept(f"at least {ABLATION} x faster", theirs / own, theirs / own >= ABLATION))
    return all(verdicts)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--grown"]:
        _grown(*sys.argv[2:4])
    else:
        sys.exit(not main(*sys.argv[1:]))
