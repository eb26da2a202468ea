"""What a model is run on: reading `--input`, making tensors, and guessing where nothing is said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model_weights, list_models  # noqa: TID253

from netlens.errors import InputError, ModelNotBuilt
from netlens.loading.inputs import InputSpec, default_inputs, make_inputs, parse_input_spec, published
from netlens.loading.models import NamedModel, find_model
from netlens.loading.specs import parse_model_args, parse_model_spec

# --- reading


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("1,3,224,224", InputSpec(None, (1, 3, 224, 224))),
        ("1x3x224x224", InputSpec(None, (1, 3, 224, 224))),
        (" ( 1, 3, 8 ) ", InputSpec(None, (1, 3, 8))),
        ("7", InputSpec(None, (7,))),
        ("1,128:int64", InputSpec(None, (1, 128), "int64")),
        ("1,128:long", InputSpec(None, (1, 128), "int64")),
        ("1,128:int", InputSpec(None, (1, 128), "int32")),  # as torch.int
        ("1,3:torch.bfloat16", InputSpec(None, (1, 3), "bfloat16")),
        ("1,3:HALF", InputSpec(None, (1, 3), "float16")),
        ("input_ids=1,128:int64", InputSpec("input_ids", (1, 128), "int64")),
        ("lengths=4:int64=16", InputSpec("lengths", (4,), "int64", 16)),
        ("scale=1:float=-0.5", InputSpec("scale", (1,), "float32", -0.5)),
        ("mask=1,4:bool=false", InputSpec("mask", (1, 4), "bool", 0)),
        ("[3,800,800;3,600,600]", InputSpec(None, (), None, None, ((3, 800, 800), (3, 600, 600)))),
        ("images=[3,8,8]:float16", InputSpec("images", (), "float16", None, ((3, 8, 8),))),
        ("1,1048576,1048576", InputSpec(None, (1, 2**20, 2**20))),  # 2**40 elements is the most
    ],
)
def test_reading(text: str, spec: InputSpec):
    assert parse_input_spec(text) == spec
    assert parse_input_spec(str(spec)) == spec  # the printed form can be typed again


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "a size is missing", "1,3,224,224"),
        ("1,,3", "a size is missing", "1,3,224,224"),
        ("1,3,", "a size is missing", "1,3,224,224"),
        ("a,3", "'a' is not a whole number", "1,3,224,224"),
        ("1,2.5", "'2.5' is not a whole number", "1,3,224,224"),
        ("1,²", "'²' is not a whole number", "1,3,224,224"),
        ("0,3", "every size must be at least 1, not 0", "1,3,224,224"),
        ("1,-3", "every size must be at least 1, not -3", "1,3,224,224"),
        ("1,1048576,1048577", "more than any machine holds", "1,3,224,224"),
        ("my-x=1,3", "'my-x' is not the name of an argument", "input_ids=1,128:int64"),
        ("=1,3", "'' is not the name of an argument", "input_ids=1,128:int64"),
        ("1,3:flaot32", "no type of tensor is called 'flaot32'", "did you mean 'float32'?"),
        ("1,3:", "no type of tensor is called ''", "types are float32"),
        ("1,3:qint", "no type of tensor is called 'qint'", "int"),
        ("4:int64=1.5", "'1.5' is not a value of type int64", "int64=16"),
        ("4:int64=", "'' is not a value of type int64", "int64=16"),
        ("4:uint8=256", "256 does not fit into uint8", "0 to 255"),
        ("4:int8=-129", "-129 does not fit into int8", "-128 to 127"),
        ("4:bool=2", "2 does not fit into bool", "0 to 1"),
        ("[3,8,8", "the list is not closed", "[3,800,800;3,600,600]"),
        ("[]", "a size is missing", "[3,800,800;3,600,600]"),
        ("1,\x1b[1m3", "is not a whole number", "1,3,224,224"),
    ],
)
def test_what_cannot_be_read(text: str, message: str, hint: str):
    with pytest.raises(InputError) as caught:
        parse_input_spec(text)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.message.isprintable()


# --- tensors


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.kinds = nn.Embedding(50, 4), nn.Embedding(7, 4)

    def forward(self, tokens: Tensor, kinds: Tensor | None = None, *, lengths: Tensor | None = None) -> Tensor:
        return self.words(tokens)


def made(model: nn.Module, *texts: str, device: str = "cpu") -> tuple[tuple[Any, ...], dict[str, Any], tuple[str, ...]]:
    return make_inputs([parse_input_spec(text) for text in texts], model, device)


def test_floating_inputs_are_normal_and_always_the_same():
    model = nn.Linear(3, 2)
    state = torch.random.get_rng_state()
    (first,), _, _ = made(model, "100,100")
    (second,), _, _ = made(model, "100,100")
    assert first.shape == (100, 100) and first.dtype == torch.float32
    assert torch.equal(first, second)
    assert abs(first.mean()) < 0.05 and abs(first.std() - 1) < 0.05  # 10,000 numbers: five standard errors of the mean
    assert torch.equal(torch.random.get_rng_state(), state)


def test_two_inputs_of_one_shape_differ():
    (left, right), _, _ = made(nn.Bilinear(3, 3, 1), "2,3", "2,3")
    assert not torch.equal(left, right)


@pytest.mark.parametrize(
    ("dtype", "device"), [("float16", "cpu"), ("bfloat16", "cpu"), ("float64", "cpu"), ("complex64", "cpu"), ("float16", "meta")]
)
def test_floating_types(dtype: str, device: str):
    (x,), _, _ = made(nn.Linear(3, 2), f"1,3:{dtype}", device=device)
    assert (x.dtype, x.device.type) == (getattr(torch, dtype), device)


def test_without_a_type_an_input_has_that_of_the_model():
    (x,), _, _ = made(nn.Linear(3, 2).double(), "1,3")
    assert x.dtype == torch.float64


def test_on_meta_only_floating_inputs_are_hollow():
    args, kwargs, _ = made(Text(), "1,9:int64", "kinds=1,9:bool", "lengths=4:float32", device="meta")
    assert [args[0].device.type, kwargs["kinds"].device.type, kwargs["lengths"].device.type] == ["cpu", "cpu", "meta"]


def test_integers_stay_inside_every_embedding():
    (tokens,), _, notes = made(Text(), "1,1000:int64")
    assert set(tokens.unique().tolist()) == set(range(7))  # 1000 draws from 7 kinds: all of them
    assert notes == ("tokens: random integers in [0, 7)",)


def test_a_model_that_tells_its_words_gets_words():
    model = Text()
    model.config = SimpleNamespace(vocab_size=50)
    model.forward = lambda input_ids: model.words(input_ids)  # type: ignore[method-assign]
    _, kwargs, _ = made(model, "input_ids=1,2000")  # the name alone says that it is int64
    assert kwargs["input_ids"].dtype == torch.int64
    assert set(kwargs["input_ids"].unique().tolist()) == set(range(50))


def test_without_an_embedding_integers_are_zero_and_one():
    (x,), _, _ = made(nn.Identity(), "100:uint8")
    assert x.dtype == torch.uint8 and set(x.tolist()) == {0, 1}


def test_masks_are_ones_and_fills_are_fills():
    _, kwargs, notes = made(Text(), "tokens=1,3:bool", "lengths=4:int64=16", "kinds=2:float32=0.5")
    assert kwargs["tokens"].tolist() == [[True, True, True]]
    assert kwargs["lengths"].tolist() == [16, 16, 16, 16]
    assert kwargs["kinds"].tolist() == [0.5, 0.5]
    assert notes == ("tokens: all true",)


def test_a_list_is_one_argument():
    (images,), _, _ = made(nn.Identity(), "[3,8,8;3,6,5]")
    assert [tuple(image.shape) for image in images] == [(3, 8, 8), (3, 6, 5)]


@pytest.mark.parametrize(
    ("texts", "message", "hint"),
    [
        (["1,3", "tokns=1,3"], "forward has no argument 'tokns'", "did you mean 'tokens'?"),
        (["1,3", "tokens=1,3"], "the argument 'tokens' of forward is given twice", "from the left"),
        (["1,3", "1,3", "1,3"], "forward takes (tokens, kinds), but 3 inputs are given", "one --input for each"),
        (["kinds=1,3"], "forward also needs 'tokens'", "--input tokens="),
    ],
)
def test_inputs_that_do_not_fit_forward(texts: list[str], message: str, hint: str):
    with pytest.raises(InputError) as caught:
        made(Text(), *texts)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_an_open_forward_takes_anything():
    class Open(nn.Module):
        def forward(self, *args, **kwargs):
            return args

    args, kwargs, _ = made(Open(), "1", "2", "x=3")
    assert len(args) == 2 and list(kwargs) == ["x"]


# --- guesses


def find(text: str, *model_args: str, weights: str | None = None) -> NamedModel:
    return find_model(parse_model_spec(text), parse_model_args(model_args), weights)


def hollow(named: NamedModel) -> nn.Module:
    try:
        with torch.device("meta"):
            return named.build().eval()
    except ModelNotBuilt:
        return named.build().to("meta").eval()  # a RegNet reads values while it is built


def own(model: nn.Module) -> NamedModel:
    return NamedModel("nets:model", "python", "nets", "model", lambda: model, is_instance=True)


def gmacs(model: nn.Module, specs: tuple[InputSpec, ...], device: str = "meta") -> float:
    """Count with torch's own counter."""
    args, kwargs, _ = make_inputs(specs, model, device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*args, **kwargs)
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize(
    ("name", "weights", "text"),
    [
        ("resnet18", None, "1,3,224,224"),
        ("efficientnet_b1", None, "1,3,240,240"),
        ("inception_v3", "DEFAULT", "1,3,299,299"),
        ("vit_h_14", "IMAGENET1K_SWAG_LINEAR_V1", "1,3,224,224"),
        ("regnet_y_16gf", "IMAGENET1K_SWAG_E2E_V1", "1,3,384,384"),
        ("fcn_resnet50", "DEFAULT", "1,3,520,520"),
        ("r3d_18", None, "1,3,16,112,112"),
        ("s3d", None, "1,3,16,224,224"),
        ("mvit_v2_s", None, "1,3,16,224,224"),
        ("quantized_resnet18", None, "1,3,224,224"),
    ],
)
def test_published_sizes_give_the_published_operations(name: str, weights: str | None, text: str):
    named = find(name, weights=weights)
    model = hollow(named)
    (candidate,) = default_inputs(named, model)
    assert [str(spec) for spec in candidate.specs] == [text]
    entry = get_model_weights(name).DEFAULT if weights in (None, "DEFAULT") else get_model_weights(name)[weights]
    if not name.startswith("quantized"):
        assert candidate.source == str(entry)
    assert gmacs(model, candidate.specs) == pytest.approx(entry.meta["_ops"], abs=0.0006)


def test_raft_takes_two_images():
    named = find("raft_small")
    model = hollow(named)
    (candidate,) = default_inputs(named, model)
    assert [str(spec) for spec in candidate.specs] == ["1,3,512,512", "1,3,512,512"]
    assert gmacs(model, candidate.specs) == pytest.approx(get_model_weights("raft_small").DEFAULT.meta["_ops"], abs=0.0006)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ssdlite320_mobilenet_v3_large", "[3,320,320]"),
        ("ssd300_vgg16", "[3,300,300]"),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "[3,320,320]"),
        ("retinanet_resnet50_fpn", "[3,800,800]"),
    ],
)
def test_detectors_take_a_list(name: str, text: str):
    named = find(name)
    (candidate,) = default_inputs(named, hollow(named))
    assert [str(spec) for spec in candidate.specs] == [text]


def test_a_detector_really_runs_on_its_default():
    named = find("ssdlite320_mobilenet_v3_large", weights="DEFAULT")
    model = named.build().eval()
    (candidate,) = default_inputs(named, model)
    expected = published(named)
    assert expected == (3440060, 0.583)  # torchvision's documentation
    assert gmacs(model, candidate.specs, "cpu") == pytest.approx(expected[1], abs=0.0006)


def test_the_size_that_a_model_is_built_for_wins():
    """vit_h_14's default weights are for 518 pixels; without weights it is built for 224, as for its second entry."""
    named = find("vit_h_14")
    (candidate,) = default_inputs(named, hollow(named))
    assert (str(candidate.specs[0]), candidate.source) == ("1,3,224,224", "ViT_H_14_Weights.IMAGENET1K_SWAG_LINEAR_V1")
    named = find("vit_b_16", "image_size=64")
    (candidate,) = default_inputs(named, hollow(named))
    assert (str(candidate.specs[0]), candidate.source) == ("1,3,64,64", "image size of VisionTransformer")


def test_only_torchvision_publishes():
    assert published(find("resnet18")) == (11689512, 1.814)
    assert published(own(nn.Linear(1, 1))) is None


def test_timm():
    pytest.importorskip("timm")
    for args, text in [((), "1,3,224,224"), (("in_chans=1",), "1,1,224,224"), (("img_size=96",), "1,3,96,96")]:
        named = find("timm:vit_tiny_patch16_224", *args)
        model = hollow(named)
        (candidate,) = default_inputs(named, model)
        assert str(candidate.specs[0]) == text
        assert gmacs(model, candidate.specs) > 0


SMALL = ["hidden_size=8", "num_hidden_layers=1", "num_attention_heads=2", "intermediate_size=4"]


@pytest.mark.parametrize(
    ("text", "args", "inputs"),
    [
        ("hf:bert", [*SMALL, "max_position_embeddings=40"], ["input_ids=1,40:int64"]),
        ("hf:gpt2", ["n_embd=8", "n_layer=1", "n_head=2"], ["input_ids=1,128:int64"]),
        ("hf:t5", ["d_model=8", "num_layers=1", "d_ff=4", "num_heads=2"], ["input_ids=1,128:int64", "decoder_input_ids=1,128:int64"]),
        ("hf:vit", [*SMALL, "image_size=32", "num_channels=1"], ["pixel_values=1,1,32,32"]),
        ("hf:whisper", ["d_model=8", "encoder_layers=1", "decoder_layers=1", "encoder_attention_heads=2", "decoder_attention_heads=2"],
         ["input_features=1,80,3000", "decoder_input_ids=1,128:int64"]),
        ("hf:clip", ["text_config={'num_hidden_layers': 1}", "vision_config={'num_hidden_layers': 1}"],
         ["input_ids=1,77:int64", "pixel_values=1,3,224,224"]),
    ],
)  # fmt: skip
def test_transformers_run_on_what_their_config_says(text: str, args: list[str], inputs: list[str]):
    pytest.importorskip("transformers")
    named = find(text, *args)
    model = named.build().eval()
    candidate = default_inputs(named, model)[0]
    assert [str(spec) for spec in candidate.specs] == inputs
    positional, kwargs, _ = make_inputs(candidate.specs, model, "cpu")
    with torch.no_grad():
        model(*positional, **kwargs)


class Pictures(nn.Module):
    """For pictures of 28 x 28 only, as so many first networks are."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.fc = nn.Linear(4 * 14 * 14, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.stem(x).flatten(1))


class Unfolded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 32 * 32, 2)

    def forward(self, x: Tensor) -> Tensor:
        n, _channels, _height, _width = x.shape
        return self.fc(x.reshape(n, -1))


@pytest.mark.parametrize(
    ("model", "text", "source"),
    [
        (Pictures(), "1,1,28,28", "first layer stem"),
        (Unfolded(), "1,3,32,32", "first layer fc"),
        (nn.Linear(5, 2), "1,5", "the layer itself"),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), "1,784", "first layer 1"),
        (nn.Sequential(nn.Conv1d(2, 3, 5)), "1,2,1024", "first layer 0"),
        (nn.Sequential(nn.Conv3d(2, 3, 5)), "1,2,16,112,112", "first layer 0"),
        (nn.Sequential(nn.ConvTranspose2d(100, 8, 4)), "1,100,1,1", "first layer 0"),
        (nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(4 * 16, 2)), "1,16:int64", "first layer 0"),
        (nn.LSTM(6, 7, batch_first=True), "1,32,6", "the layer itself"),
        (nn.GRU(6, 7), "32,1,6", "the layer itself"),
        (nn.GRUCell(6, 7), "1,6", "the layer itself"),
        (nn.TransformerEncoderLayer(8, 2, batch_first=True), "1,32,8", "first layer self_attn"),
        (nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 2)), "1,6", "first layer 1"),
    ],
)
def test_the_first_layer_tells(model: nn.Module, text: str, source: str):
    for candidate in default_inputs(own(model), model.eval()):
        args, kwargs, _ = make_inputs(candidate.specs, model, "cpu")
        try:
            model(*args, **kwargs)
        except (RuntimeError, ValueError):
            continue
        assert (str(candidate.specs[0]), candidate.source) == (text, source)
        return
    pytest.fail("no candidate runs")


def test_a_size_that_the_model_names_comes_first():
    model = Pictures()
    model.img_size = 28
    assert str(default_inputs(own(model), model)[0].specs[0]) == "1,1,28,28"


def test_lightning_models_bring_an_example():
    model = Pictures()
    model.example_input_array = torch.zeros(2, 1, 28, 28)
    (candidate,) = default_inputs(own(model), model)
    assert (str(candidate.specs[0]), candidate.source) == ("2,1,28,28:float32", "example_input_array")


def test_a_forward_without_input():
    class Constant(nn.Module):
        def forward(self) -> Tensor:
            return torch.ones(1)

    (candidate,) = default_inputs(own(Constant()), Constant())
    assert candidate.specs == ()


@pytest.mark.parametrize(
    ("model", "message", "hint"),
    [
        (nn.Bilinear(2, 3, 4), "forward takes (input1, input2)", "give one --input for each, like --input input1="),
        (nn.ReLU(), "no layer of ReLU tells what it takes", "--input 1,3,224,224"),
        (nn.LazyLinear(3), "no layer of LazyLinear tells what it takes", "--input 1,3,224,224"),
    ],
)
def test_where_nothing_tells(model: nn.Module, message: str, hint: str):
    with pytest.raises(InputError) as caught:
        default_inputs(own(model), model)
    assert caught.value.message == message
    assert hint in caught.value.hint


# --- the whole registry

# Detectors choose boxes by value, so that meta cannot run them; their sizes are checked above.
DETECTORS = [name for name in list_models() if "rcnn" in name or name.startswith(("fcos", "retinanet", "ssd"))]


@pytest.mark.sweep
@pytest.mark.parametrize("name", [name for name in list_models() if name not in DETECTORS])
def test_every_published_size_gives_the_published_operations(name: str):
    for entry in find(name).presets:
        named = find(name, weights=entry.name)
        model = hollow(named)
        candidate = default_inputs(named, model)[0]
        assert gmacs(model, candidate.specs) == pytest.approx(entry.meta["_ops"], abs=0.0006), entry


def test_there_are_twelve_detectors():
    assert len(DETECTORS) == 12
