"""`watched` against recordings by hand, and `Layouts` against what is known of each model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netlens.probing.activations import Output, watched
from netlens.probing.tokens import Layout, Layouts, as_maps, as_rows

Seen = dict[str, tuple[Output, Tensor]]


def record(model: nn.Module, *args: Any, grad: bool = False, **kwargs: Any) -> tuple[Seen, Any]:
    seen: Seen = {}

    def look(output: Output) -> None:
        assert output.name not in seen
        seen[output.name] = (output, output.tensor.detach().clone())

    with torch.set_grad_enabled(grad), watched(model, look):
        result = model(*args, **kwargs)
    return seen, result


def layouts(model: nn.Module, *args: Any) -> dict[str, Layout]:
    found: dict[str, Layout] = {}
    teller = Layouts(model)
    teller.begin(args)

    def look(output: Output) -> None:
        layout = found[output.name] = teller.of(output)
        maps, prefix = as_maps(output.tensor, layout)
        assert maps.shape[1:] == (layout.channels, *layout.grid)
        assert (0 if prefix is None else prefix.shape[1]) == layout.prefix
        rows, axis = as_rows(output.tensor, layout)
        assert rows.shape[axis] == layout.channels
        assert rows.numel() == output.tensor.numel()

    with torch.no_grad(), watched(model, look):
        model(*args)
    return found


class Block(nn.Module):
    """conv -> norm -> F.relu -> conv (again) -> in-place ReLU -> in-place sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.conv(x)))
        y = self.drop(self.act(self.conv(y)).sigmoid_())
        y += x
        return y


def test_every_output_equals_a_forward_unrolled_by_hand() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(OrderedDict(block=Block(), flatten=nn.Flatten(), head=nn.Linear(64, 3))).eval()
    x = torch.randn(2, 4, 4, 4)
    with torch.no_grad():
        block = model.block
        conv = block.conv(x)
        norm = block.norm(conv)
        relu = norm.clamp(min=0)
        again = block.conv(relu)
        act = again.clamp(min=0)
        gate = 1 / (1 + torch.exp(-act))
        total = gate + x
        truth = {
            "block.conv": conv,
            "block.norm": norm,
            "block:relu": relu,
            "block.conv#2": again,
            "block.act": act,
            "block:sigmoid": gate,
            "block": total,
            "flatten": total.reshape(2, 64),
            "head": model.head(total.reshape(2, 64)),
        }
        expected = model(x)
    seen, result = record(model, x)
    assert list(seen) == list(truth)  # no row for dropout, which hands on, nor for the root, whose last child made its output
    for name, tensor in truth.items():
        torch.testing.assert_close(seen[name][1], tensor, rtol=1e-6, atol=1e-6)
        assert name == "block:sigmoid" or torch.equal(seen[name][1], tensor), name
    assert torch.equal(result, expected)
    after_norm = {name for name, (output, _) in seen.items() if output.after_norm}
    assert after_norm == {"block:relu"}
    functions = {name: output.activation for name, (output, _) in seen.items() if output.activation}
    assert functions == {"block:relu": "relu", "block.act": "relu", "block:sigmoid": "sigmoid"}


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (F.relu, "relu"),
        (torch.relu, "relu"),
        (lambda x: x.relu(), "relu"),
        (lambda x: x.clone().relu_(), "relu"),
        (lambda x: F.relu(x.clone(), inplace=True), "relu"),
        (F.gelu, "gelu"),
        (F.silu, "silu"),
        (torch.sigmoid, "sigmoid"),
        (torch.special.expit, "sigmoid"),
        (lambda x: x.tanh(), "tanh"),
        (F.hardswish, "hardswish"),
        (F.leaky_relu, "leaky_relu"),
        (lambda x: x.softmax(-1), "softmax"),
        (F.log_softmax, "log_softmax"),
    ],
)
@pytest.mark.filterwarnings("ignore:Implicit dimension")
def test_functional_activations_are_seen(call: Callable[[Tensor], Tensor], name: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return call(call(self.body(x)))

    x = torch.randn(3, 5)
    seen, _ = record(Net(), x)
    assert list(seen) == [f":{name}", f":{name}#2"]
    assert seen[f":{name}"][0].type == name
    assert torch.equal(seen[f":{name}"][1], call(x))


def test_counting_starts_anew_with_each_pass_and_an_error_leaves_nothing_behind() -> None:
    model = Block().eval()
    names: list[str] = []
    called, fast = nn.Module.__call__, torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad(), watched(model, lambda output: names.append(output.name)):
        model(torch.randn(1, 4, 4, 4))
        first = list(names)
        model(torch.randn(1, 4, 4, 4))
    assert names == first * 2
    with pytest.raises(RuntimeError), watched(model, lambda output: names.append(output.name)):
        model(torch.randn(1, 3, 4, 4))
    assert nn.Module.__call__ is called
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert not any(module._forward_hooks for module in model.modules())


@dataclass
class Pair:
    left: Tensor
    right: Tensor


def test_parts_of_outputs_have_names_and_what_is_no_tensor_is_left_alone() -> None:
    class Parts(nn.Module):
        def __init__(self, make: Callable[[Tensor], Any]) -> None:
            super().__init__()
            self.make = make

        def forward(self, x: Tensor) -> Any:
            return self.make(x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = Parts(lambda x: Pair(x + 1, x + 2))
            self.b = Parts(lambda x: {"only": x + 3, "mask": x > 0, "n": 3})
            self.c = Parts(lambda x: (part for part in [x]))
            self.d = Parts(lambda x: [x.to_sparse(), None])
            self.e = [nn.Linear(3, 2)]

        def forward(self, x: Tensor) -> Tensor:
            self.a(x), self.b(x), list(self.c(x)), self.d(x)
            return self.e[0](x)

    seen, _ = record(Net(), torch.ones(2, 3))
    assert list(seen) == ["a.left", "a.right", "b", "<Linear>"]
    assert float(seen["a.right"][1][0, 0]) == 3
    assert float(seen["b"][1][0, 0]) == 4


def test_recurrent_outputs_and_states() -> None:
    torch.manual_seed(0)
    model, x = nn.LSTM(5, 7, 2, batch_first=True), torch.randn(3, 4, 5)
    seen, result = record(model, x)
    assert list(seen) == ["0", "1.0", "1.1"]
    assert torch.equal(seen["1.1"][1], result[1][1])
    packed = nn.utils.rnn.pack_padded_sequence(x, [4, 3, 2], batch_first=True)
    seen, _ = record(nn.GRU(5, 7, batch_first=True), packed)
    assert list(seen) == ["0.data", "1"]
    assert seen["0.data"][1].shape == (9, 7)


def test_layers_inside_fused_transformers_are_seen_and_the_output_stays_bitwise() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=True).eval()
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        fused = model(x)
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        plain = model(x)
        torch.backends.mha.set_fastpath_enabled(before)
    seen, result = record(model, x)
    assert {"layers.0.self_attn", "layers.0.linear1", "layers.0:relu", "layers.1.norm2"} <= set(seen)
    assert torch.equal(result, plain)
    torch.testing.assert_close(result, fused, rtol=1e-5, atol=1e-5)


def test_wrapped_and_scripted_models_do_not_crash() -> None:
    inner, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.randn(2, 3)
    with torch.no_grad():
        expected = inner(x)
    for model in (nn.DataParallel(inner), torch.jit.script(inner), torch.jit.trace(inner, x), torch.compile(inner)):
        seen, result = record(model, x)
        assert torch.equal(result, expected)
        assert torch.equal(list(seen.values())[-1][1], expected)


def test_gradients_flow_and_in_inference_mode_activations_in_place_are_seen() -> None:
    model, x = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True)), torch.randn(2, 3, requires_grad=True)
    _, result = record(model, x, grad=True)
    result.sum().backward()
    assert x.grad is not None
    found: dict[str, Tensor] = {}
    with torch.inference_mode(), watched(model, lambda output: found.update({output.name: output.tensor.clone()})):
        model(x)
    assert list(found) == ["0", "1"]
    assert float(found["0"].min()) < 0 <= float(found["1"].min())


def test_an_activation_is_named_after_its_class_where_it_computes_several_functions() -> None:
    class NewGELU(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 0.5 * x * (1 + torch.tanh(x))

    seen, _ = record(nn.Sequential(nn.Linear(3, 3), NewGELU()), torch.randn(2, 3))
    assert list(seen) == ["0", "1"]
    assert seen["1"][0].activation == "gelu"


# --- layouts


def known(layout: Layout) -> tuple[str, tuple[int, ...], tuple[int, ...], int]:
    return layout.kind, layout.shape, layout.grid, layout.prefix


def small_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5)


def test_torchvision_vit_is_folded_by_its_patches_with_the_class_token_apart() -> None:
    found = layouts(small_vit().eval(), torch.randn(3, 3, 32, 32))
    assert known(found["conv_proj"]) == ("channels first", (16, 4, 4), (4, 4), 0)
    assert known(found["encoder.layers.encoder_layer_1"]) == ("tokens", (17, 16), (4, 4), 1)
    assert known(found["encoder.layers.encoder_layer_0.mlp.0"]) == ("tokens", (17, 32), (4, 4), 1)
    assert known(found["heads.head"]) == ("features", (5,), (), 0)


def test_places_of_tokens_stand_where_their_patches_were() -> None:
    tokens = torch.arange(2 * 7 * 3).reshape(2, 7, 3)
    layout = Layout("tokens", (7, 3), 3, (2, 3), prefix=1)
    maps, prefix = as_maps(tokens, layout)
    assert prefix is not None and torch.equal(prefix[:, 0], tokens[:, 0])
    for sample in range(2):
        for channel in range(3):
            for row in range(2):
                for column in range(3):
                    assert maps[sample, channel, row, column] == tokens[sample, 1 + row * 3 + column, channel]


@pytest.mark.parametrize(
    ("name", "layer", "expected"),
    [
        ("swin_t", "features.1.0.mlp.1", ("channels last", (8, 8, 384), (8, 8), 0)),
        ("swin_t", "features.1.0", ("channels last", (8, 8, 96), (8, 8), 0)),
        ("swin_v2_t", "features.3.1.norm2", ("channels last", (4, 4, 192), (4, 4), 0)),
        ("swin_v2_t", "permute", ("channels first", (768, 1, 1), (1, 1), 0)),
        ("convnext_tiny", "features.1.0.block.4", ("channels last", (8, 8, 384), (8, 8), 0)),
        ("convnext_tiny", "features.1.0.block.6", ("channels first", (96, 8, 8), (8, 8), 0)),
        ("convnext_tiny", "features.1.0", ("channels first", (96, 8, 8), (8, 8), 0)),
    ],
)
def test_channels_last_of_torchvision(name: str, layer: str, expected: tuple[Any, ...]) -> None:
    import torchvision

    assert known(_torchvision(name, torchvision)[layer]) == expected


_CACHE: dict[str, dict[str, Layout]] = {}


def _torchvision(name: str, torchvision: Any) -> dict[str, Layout]:
    if name not in _CACHE:
        _CACHE[name] = layouts(getattr(torchvision.models, name)().eval(), torch.randn(2, 3, 32, 32))
    return _CACHE[name]


@pytest.mark.parametrize(
    ("name", "size", "tokens", "grid", "prefix"),
    [
        ("vit_tiny_patch16_224", 64, 17, (4, 4), 1),
        ("vit_little_patch16_reg4_gap_256", 64, 20, (4, 4), 4),
        ("vit_betwixt_patch16_reg4_gap_256", 64, 20, (4, 4), 4),
        ("deit_tiny_distilled_patch16_224", 64, 18, (4, 4), 2),
        ("beit_base_patch16_224", 64, 17, (4, 4), 1),
    ],
)
def test_prefix_tokens_of_timm(name: str, size: int, tokens: int, grid: tuple[int, int], prefix: int) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, img_size=size, depth=1)
    found = layouts(model.eval(), torch.randn(2, 3, size, size))
    assert known(found["blocks.0"]) == ("tokens", (tokens, model.embed_dim), grid, prefix)


def test_windows_of_timm_swin_belong_to_their_picture() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, depths=(1, 1, 1, 1)).eval()
    found = layouts(model, torch.randn(2, 3, 56, 56))
    assert known(found["layers.0.blocks.0.norm1"]) == ("channels last", (14, 14, 96), (14, 14), 0)
    assert known(found["layers.0.blocks.0.attn.proj"]) == ("tokens", (4, 49, 96), (4, 49), 0)
    assert known(found["layers.0.blocks.0.mlp.fc1"]) == ("tokens", (196, 384), (14, 14), 0)


def test_transformers_vit() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    found = layouts(transformers.ViTModel(config).eval(), torch.randn(2, 3, 32, 32))
    assert known(found["embeddings"]) == ("tokens", (17, 16), (4, 4), 1)


class Language(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 6)
        self.lstm = nn.LSTM(6, 8, batch_first=batch_first)
        self.head = nn.Linear(8, 9)
        self.batch_first = batch_first

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        x = self.lstm(x if self.batch_first else x.transpose(0, 1))[0]
        return self.head(x)


@pytest.mark.parametrize("batch_first", [True, False])
def test_recurrent_layers_are_sequences(batch_first: bool) -> None:
    model = Language(batch_first)
    found = layouts(model, torch.randint(0, 9, (3, 5)))
    assert known(found["lstm.0"]) == ("sequence", (5, 8), (5,), 0)
    assert found["lstm.0"].batch_axis == 1 - batch_first
    assert found["head"].batch_axis == 1 - batch_first
    assert known(found["lstm.1.0"]) == ("sequence", (1, 8), (1,), 0)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_sequence_first_transformers() -> None:
    found = layouts(nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 1).eval(), torch.randn(5, 3, 8))
    assert {layout.batch_axis for layout in found.values()} == {1}
    assert known(found["layers.0.linear1"])[:2] == ("tokens", (5, 16))


def test_other_shapes() -> None:
    model = nn.Sequential(nn.Conv1d(4, 6, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(12, 2))
    found = layouts(model, torch.randn(3, 4, 7))
    assert [known(found[str(index)])[:3] for index in range(5)] == [
        ("channels first", (6, 5), (5,)),
        ("channels first", (6, 5), (5,)),
        ("channels first", (6, 2), (2,)),
        ("features", (12,), ()),
        ("features", (2,), ()),
    ]
    video = layouts(nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.GELU()), torch.randn(2, 3, 4, 6, 5))
    assert known(video["1"]) == ("channels first", (4, 4, 6, 5), (4, 6, 5), 0)


def test_frames_and_windows_in_the_batch_are_places() -> None:
    tensor = torch.arange(6 * 2 * 3).reshape(6, 2, 3)
    layout = Layout("channels first", (3, 2, 3), 2, (3, 3), folded=3)
    maps, _ = as_maps(tensor, layout)
    assert torch.equal(maps[1, 0, 2], tensor[5, 0])
    rows, axis = as_rows(tensor, layout)
    assert axis == 1 and torch.equal(rows[1, 1], torch.cat([tensor[3, 1], tensor[4, 1], tensor[5, 1]]))
