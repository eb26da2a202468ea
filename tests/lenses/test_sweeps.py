"""Whole registries: nothing raises, the meta device is enough (or the table below says why not), and every column adds up."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models  # noqa: TID253

from netlens import summary
from netlens.lenses.summary.measure import measure
from netlens.lenses.summary.report import SummaryReport
from netlens.lenses.summary.show import as_text
from netlens.loading.models import find_model
from netlens.loading.specs import parse_model_args, parse_model_spec
from netlens.loading.subject import from_named
from tests.conftest import Shell

pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration", "ignore::FutureWarning")

# Detectors keep the boxes that score well, so that the shapes behind depend on values; nothing else in any registry needs a real run.
NEEDS_A_RUN = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": "rpn reads values (nonzero)",
    "fasterrcnn_mobilenet_v3_large_fpn": "rpn reads values (nonzero)",
    "fasterrcnn_resnet50_fpn": "rpn reads values (nonzero)",
    "fasterrcnn_resnet50_fpn_v2": "rpn reads values (nonzero)",
    "keypointrcnn_resnet50_fpn": "rpn reads values (nonzero)",
    "maskrcnn_resnet50_fpn": "rpn reads values (nonzero)",
    "maskrcnn_resnet50_fpn_v2": "rpn reads values (nonzero)",
    "fcos_resnet50_fpn": "the model reads values (a boolean mask as index)",
    "retinanet_resnet50_fpn": "the model reads values (a boolean mask as index)",
    "retinanet_resnet50_fpn_v2": "the model reads values (a boolean mask as index)",
    "ssd300_vgg16": "the model reads values (a boolean mask as index)",
    "ssdlite320_mobilenet_v3_large": "the model reads values (a boolean mask as index)",
}
# What autograd keeps is measured in eval mode where a training pass cannot be made of one picture, or needs values.
ONE_VALUE = "batch norm gets one value a channel, and training refuses that for a batch of one"
ONLY_EVAL = {
    **dict.fromkeys(NEEDS_A_RUN, "training needs targets"),
    **dict.fromkeys(("deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "deeplabv3_resnet101"), ONE_VALUE),
    **dict.fromkeys(("timm:efficientvit_m0", "timm:iformer_t", "timm:levit_128s", "timm:repvit_m1"), ONE_VALUE),
    **dict.fromkeys(("timm:resnest14d", "timm:rexnet_100", "timm:shvit_s1", "timm:skresnet18"), ONE_VALUE),
    **dict.fromkeys(("inception_v3", "quantized_inception_v3"), f"in the auxiliary head, {ONE_VALUE}"),
    "hf:detr": "training looks for infinite activations",
}

BUFFERS_MADE_BY_FORWARD = {"timm:convit_tiny": 10 * (196 * 196 - 1) * 3}  # ten tables of positions grow from 1 x 1 to 196 x 196, times 3

# The smallest model of each module of timm 1.0.31.
TIMM = """
beit_base_patch16_224 cait_xxs24_224 coat_tiny convit_tiny convmixer_768_32 crossvit_tiny_240 cs3darknet_focus_s csatv2 davit_tiny
cpubone_nano cspnext_tiny deepseek_vit_412m deit_tiny_patch16_224 densenet121 dla46x_c dpn48b edgenext_xx_small efficientformer_l1
efficientformerv2_s0 efficientvim_m1 efficientvit_b0 efficientvit_m0 ese_vovnet19b_slim_dw fasternet_t0 fastvit_t8 focalnet_tiny_srf
gcvit_xxtiny gemma4_vit_167m ghostnet_050 gmlp_ti16_224 halonet_h1 hardcorenas_b hgnetv2_b0 hiera_tiny_224 hrnet_w18_small iformer_t
inception_next_atto inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small legacy_seresnet18 legacy_xception levit_128s lowformer_b0
mobilenetv3_small_050 mobilenetv5_base mobilevit_xxs mvitv2_tiny naflexvit_base_patch16_parfac_gap nasnetalarge nest_tiny nextvit_small
pit_ti_224 pnasnet5large poolformerv2_s12 pvt_v2_b0 qwen3_vit_88m rdnet_tiny regnetx_002 repghostnet_050 repvit_m1 res2next50 resnest14d
resnetv2_18 rexnet_100 sam2_hiera_tiny samvit_base_patch16_224 selecsls42 sequencer2d_s shvit_s1 skresnet18 starnet_s050 swiftformer_xs
swin_tiny_patch4_window7_224 swinv2_cr_tiny_224 swinv2_tiny_window16_256 test_byobnet test_coatnet test_convnext test_efficientnet
test_mambaout test_nfnet test_resnet test_vit test_vit_relpos tiny_vit_5m_224 tnt_s_legacy_patch16_224 tresnet_m twins_svt_small vgg11
visformer_tiny vit_tiny_patch16_dinov3_qkvb vit_tiny_r_s16_p8_224 vitamin_small_224 volo_d1_224 xception41p xcit_nano_12_p8_224
""".split()  # noqa: SIM905

WIDTH = "hidden_size=32 num_hidden_layers=2 num_attention_heads=4 intermediate_size=64"
GROUPED = f"{WIDTH} num_key_value_heads=2"
TWO_STACKS = (
    "d_model=32 encoder_layers=2 decoder_layers=2 encoder_attention_heads=4 decoder_attention_heads=4 encoder_ffn_dim=64 decoder_ffn_dim=64"
)
TRANSFORMERS = {
    "bert": WIDTH,
    "roberta": WIDTH,
    "distilbert": "dim=32 n_layers=2 n_heads=4 hidden_dim=64",
    "albert": f"{WIDTH} embedding_size=16",
    "electra": f"{WIDTH} embedding_size=16",
    "gpt2": "n_embd=32 n_layer=2 n_head=4",
    "opt": "hidden_size=32 num_hidden_layers=2 num_attention_heads=4 ffn_dim=64 word_embed_proj_dim=32",
    "bloom": "hidden_size=32 n_layer=2 n_head=4",
    "gpt_neox": WIDTH,
    "llama": GROUPED,
    "qwen2": GROUPED,
    "mistral": GROUPED,
    "gemma": f"{GROUPED} head_dim=8",
    "mixtral": f"{GROUPED} num_local_experts=4",
    "t5": "d_model=32 num_layers=2 num_heads=4 d_kv=8 d_ff=64",
    "bart": TWO_STACKS,
    "pegasus": TWO_STACKS,
    "whisper": TWO_STACKS,
    "wav2vec2": WIDTH,
    "hubert": WIDTH,
    "vit": WIDTH,
    "beit": WIDTH,
    "dinov2": "hidden_size=32 num_hidden_layers=2 num_attention_heads=4",
    "vilt": WIDTH,
    "clip": "",
    "segformer": "",
    "swinv2": "",
    "convnext": "",
    "detr": "",
    "mamba": "hidden_size=32 num_hidden_layers=2",
    "rwkv": "hidden_size=32 num_hidden_layers=2",
    "deberta": WIDTH,
    "deberta-v2": WIDTH,
    "longformer": WIDTH,
    "xlnet": "d_model=32 n_layer=2 n_head=4 d_inner=64",
}
# torch's counter has no formula for the grouped product of experts: each of 128 tokens goes to 2 experts of 3 matrices 32 x 64, twice.
NOT_IN_TORCHS_COUNTER = {"mixtral": 128 * 2 * 3 * 32 * 64 * 2}

FAST_TORCHVISION = (
    "mobilenet_v2",
    "vit_b_32",
    "regnet_x_400mf",
    "swin3d_t",
    "deeplabv3_mobilenet_v3_large",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
)
FAST_TIMM = ("test_resnet", "levit_128s", "cait_xxs24_224")
FAST_TRANSFORMERS = ("bert", "llama", "mixtral", "t5", "bart", "mamba")


def swept(names: Any, fast: tuple[str, ...]) -> list[Any]:
    return [pytest.param(name, marks=[] if name in fast else [pytest.mark.sweep]) for name in names]


def summarised(text: str, model_args: str = "", inputs: tuple[str, ...] = ()) -> SummaryReport:
    from netlens.loading.inputs import parse_input_spec

    named = find_model(parse_model_spec(text), parse_model_args(model_args.split()))
    report, error = measure(from_named(named, [parse_input_spec(spec) for spec in inputs]))
    assert error is None, error
    return report


def check(report: SummaryReport, name: str, model: nn.Module) -> None:
    """The run is the expected one, and every column adds up; `model` is the same one, built without netlens."""
    assert report.failure is None
    if name in NEEDS_A_RUN:
        assert (report.run.on, report.run.why) == ("cpu", f"{NEEDS_A_RUN[name]}, which the meta device does not have")
    else:
        assert (report.run.on, report.run.why) == ("meta", "")
    assert report.memory.saved_mode == ("eval" if name in ONLY_EVAL else "train"), ONLY_EVAL.get(name)
    assert not [operator.name for operator in report.uncounted]

    parameters, trainable = list(model.parameters()), [parameter for parameter in model.parameters() if parameter.requires_grad]
    buffers = sum(buffer.numel() for buffer in model.buffers()) + BUFFERS_MADE_BY_FORWARD.get(name, 0)
    assert report.totals.parameters == sum(layer.parameters for layer in report.layers) == sum(p.numel() for p in parameters)
    assert report.totals.trainable == sum(layer.trainable for layer in report.layers) == sum(p.numel() for p in trainable)
    assert report.totals.buffers == sum(layer.buffers for layer in report.layers) == buffers
    assert sum(report.memory.parameters.values()) == sum(p.nbytes for p in parameters)
    assert report.totals.flops == 2 * report.totals.macs == 2 * sum(layer.macs for layer in report.layers)
    assert report.memory.activations == sum(layer.activation_bytes for layer in report.layers)
    assert report.memory.saved_for_backward == sum(layer.saved_bytes for layer in report.layers)
    assert 0 < report.memory.peak_activations <= report.memory.activations
    check_table(report)


def check_table(report: SummaryReport) -> None:
    """What a reader adds up by hand from the printed table: cells without Σ, read off at the right edge of each column."""
    lines = as_text(report).splitlines()
    rules = [index for index, line in enumerate(lines) if line and set(line) == {"─"}]
    head, rows, total = lines[rules[0] - 1], lines[rules[0] + 1 : rules[1]], lines[rules[1] + 1]
    shown = {"params": report.totals.parameters, "MACs": report.totals.macs, "memory B": report.memory.activations}
    for header, expected in shown.items():
        edge = head.index(header) + len(header)
        assert sum(number_at(row, edge) for row in rows) == expected, header
        assert number_at(total, edge) == expected, header


def number_at(row: str, edge: int) -> int:
    """The number that ends at `edge`; 0 for an empty cell, a dash, or a sum of the rows below."""
    found = re.search(r"(Σ )?(\S+)$", row[:edge])
    if found is None or len(row) < edge or row[edge - 1] == " " or found[1] or found[2] == "–":
        return 0
    return int(found[2].replace(",", ""))


@contextmanager
def plain_operators() -> Iterator[None]:
    """Without the fused paths for which torch's counter has no formulas."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.backends.mkldnn.flags(enabled=False):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def macs_of_a_real_run(model: nn.Module, *args: Any, **kwargs: Any) -> int:
    """Half of the FLOPs that torch's own counter sees on the CPU; with autograd, without which its tracker of modules fails on CaiT."""
    with plain_operators(), FlopCounterMode(display=False) as counter:
        model.eval()(*args, **kwargs)
    assert counter.get_total_flops() % 2 == 0
    return int(counter.get_total_flops()) // 2


def real_inputs(report: SummaryReport) -> dict[str, torch.Tensor]:
    """Tensors of the shapes and types that the report names."""
    return {
        leaf.name: torch.randn(leaf.shape) if leaf.dtype == "float32" else torch.full(leaf.shape, 5, dtype=getattr(torch, leaf.dtype))
        for leaf in report.inputs
    }


# -- torchvision -------------------------------------------------------------------------------------------------------------------


def torchvision_model(name: str) -> nn.Module:
    """As its builder makes it without weights. RegNet reads values in its constructor, so that it has to be built for real."""
    fetches = name.endswith("fpn") or name.startswith(("deeplab", "fcn", "lraspp", "ssd", "retinanet", "fasterrcnn", "maskrcnn"))
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        return models.get_model(name, weights=None, **({"weights_backbone": None} if fetches or name.endswith("fpn_v2") else {}))


@pytest.mark.parametrize("name", swept(models.list_models(), FAST_TORCHVISION))
def test_torchvision(name: str):
    check(summarised(name), name, torchvision_model(name))


SMALL = {
    "resnet18": (64, 64),
    "alexnet": (96, 96),
    "vgg11": (64, 64),
    "squeezenet1_1": (64, 64),
    "densenet121": (64, 64),
    "googlenet": (96, 96),
    "inception_v3": (128, 128),
    "mnasnet0_5": (64, 64),
    "shufflenet_v2_x0_5": (64, 64),
    "resnext50_32x4d": (64, 64),
    "efficientnet_v2_s": (64, 64),
    "regnet_x_400mf": (64, 64),
    "convnext_tiny": (64, 64),
    "swin_t": (96, 96),
    "swin_v2_t": (96, 96),
    "vit_b_32": (224, 224),
    "maxvit_t": (224, 224),
    "r2plus1d_18": (8, 56, 56),
    "swin3d_t": (8, 64, 64),
}


@pytest.mark.parametrize("name", swept(SMALL, ("resnet18", "swin_t", "r2plus1d_18")))
def test_macs_are_those_of_torchs_counter_on_a_real_run(name: str):
    shape = (2, 3, *SMALL[name])
    report = summarised(name, inputs=(",".join(map(str, shape)),))

    assert report.totals.macs == macs_of_a_real_run(models.get_model(name), torch.randn(shape))


# -- timm --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", swept(TIMM, FAST_TIMM))
def test_timm(name: str):
    timm = pytest.importorskip("timm")
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    with torch.device("meta"):
        model = timm.create_model(name)

    report = summarised(f"timm:{name}")

    check(report, f"timm:{name}", model)
    if report.totals.macs < 5e8:
        assert report.totals.macs == macs_of_a_real_run(timm.create_model(name), *real_inputs(report).values())


@pytest.mark.sweep
def test_timm_has_sixty_families():
    timm = pytest.importorskip("timm")
    families = {module for module in timm.list_modules() if set(timm.list_models(module=module)) & set(TIMM)}
    assert len(families) >= 60


# -- transformers ------------------------------------------------------------------------------------------------------------------


def transformers_model(kind: str, model_args: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(kind, **parse_model_args(model_args.split()))
    return transformers.AutoModel.from_config(config)


@pytest.mark.parametrize("kind", swept(TRANSFORMERS, FAST_TRANSFORMERS))
def test_transformers(kind: str):
    torch.manual_seed(0)
    model = transformers_model(kind, TRANSFORMERS[kind])

    report = summarised(f"hf:{kind}", TRANSFORMERS[kind])

    check(report, f"hf:{kind}", model)
    missing = NOT_IN_TORCHS_COUNTER.get(kind, 0)
    assert report.totals.macs == macs_of_a_real_run(model, **real_inputs(report)) + missing


def test_transformers_with_a_mask():
    model = transformers_model("bert", WIDTH)

    report = summarised("hf:bert", WIDTH, ("input_ids=2,16", "attention_mask=2,16"))

    check(report, "hf:bert", model)
    inputs = {**real_inputs(report), "attention_mask": torch.ones(2, 16, dtype=torch.int64)}
    assert report.totals.macs == macs_of_a_real_run(model, **inputs)


class Asks(nn.Module):
    """Branches on what its forward makes itself, as encoder-decoder and detection transformers do with their masks."""

    def __init__(self) -> None:
        super().__init__()
        self.few, self.many = nn.Linear(4, 2), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = [
            torch.ones(x.shape[:1], device=x.device),
            x.new_ones(x.shape[:1], dtype=torch.bool),
            x.new_full((3,), 2, dtype=torch.int64),
            torch.ones_like(x, dtype=torch.int64),
        ]
        return self.many(x) if all(bool(mask.all()) for mask in made) else self.few(x)


def test_constants_of_a_forward_pass_can_be_read_without_a_run():
    report = summary(Asks(), input_size=(3, 4))

    assert report.run.on == "meta", report.run.why
    assert report.totals.macs == 3 * 4 * 5


# -- a model that no laptop holds --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Llama:
    """Llama 3 70B, whose parameters are published: 70,553,706,496."""

    vocab_size: int = 128256
    hidden_size: int = 8192
    intermediate_size: int = 28672
    num_hidden_layers: int = 80
    num_attention_heads: int = 64
    num_key_value_heads: int = 8


# Runs a script, then tells its peak: not ru_maxrss, which a child inherits from the process that started it.
PEAK = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(int(status["VmHWM"].split()[0]) * 1024, file=sys.stderr)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel tells it there")
def test_seventy_billion_parameters_fit_on_a_laptop(netlens: Shell):
    """Two GiB hold torch, transformers and the report; the weights alone would take 131 GiB."""
    pytest.importorskip("transformers")
    llama, tokens = Llama(), 128
    options = ["architectures=['LlamaForCausalLM']", "dtype=bfloat16", *(f"{name}={getattr(llama, name)}" for name in vars(llama))]
    (python, *line), environment = netlens.prepare(
        "summary", "hf:llama", *(f"--model-arg={option}" for option in options), "--format", "json"
    )
    done = subprocess.run([python, "-c", PEAK, *line], cwd=netlens.folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert int(done.stderr.split()[-1]) < 2 * 2**30
    report = document["report"]
    assert report["run"]["on"] == "meta"
    assert report["totals"]["parameters"] == 70_553_706_496
    assert report["memory"]["parameters"] == {"bfloat16": 2 * 70_553_706_496}
    key_values = llama.hidden_size // llama.num_attention_heads * llama.num_key_value_heads
    weights = 2 * llama.hidden_size**2 + 2 * llama.hidden_size * key_values + 3 * llama.hidden_size * llama.intermediate_size
    attention = 2 * tokens * llama.hidden_size  # for each token: scores and weighted sum over all tokens
    head = llama.hidden_size * llama.vocab_size
    assert report["totals"]["macs"] == tokens * (llama.num_hidden_layers * (weights + attention) + head)
