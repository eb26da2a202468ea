"""FullGrad against its completeness and against plain loops, LeGrad against finite differences of a transformer in numpy."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netlens.errors import NetlensError
from netlens.lenses.gradcam.whole import fullgrad, legrad
from netlens.probing.bias_gradients import bias_gradients
from sample_models.shapes import ShapeViT

EXACT = {"rtol": 1e-9, "atol": 1e-11}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def of_class(index: int) -> Callable[[Tensor], Tensor]:
    return lambda output: output[:, index]


def with_random_statistics(model: nn.Module) -> nn.Module:
    """Give every normalisation something to do, and go to eval mode and float64."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low in ((module.running_mean, -1), (module.running_var, 0.5), (module.weight, 0.5), (module.bias, -1)):
                if tensor is not None:
                    nn.init.uniform_(tensor, low, 2)
    return model.double().eval()


# --- FullGrad: y = x * dy/dx + sum of all bias gradients (proposition 1)


class Residual(nn.Module):
    """All that a ReLU network may be made of: written over in place, depthwise, around a shortcut, called twice, with two linear layers."""

    def __init__(self, conv: type[nn.Module] = nn.Conv2d, norm: Any = nn.BatchNorm2d, inplace: bool = True) -> None:
        super().__init__()
        make: Any = conv
        self.first = make(3, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=inplace)
        self.deep = make(6, 6, 3, padding=1, groups=6)
        self.norm = norm(6)
        self.hidden, self.head = nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        for _ in range(2):
            shortcut = x
            x = self.norm(self.deep(x))
            x = self.relu(x + shortcut)
        x = F.max_pool2d(x, 2) if x.dim() == 4 else x
        return self.head(F.leaky_relu(self.hidden(x.flatten(2).mean(dim=2))))


class Activated(nn.BatchNorm2d):
    """A normalisation that ends in its own activation, as timm writes it: what it puts out is not what it normalised."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x), inplace=True)


class Attached(nn.Module):
    """Two inputs by keyword; the second is no picture."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Residual(norm=Activated)

    def forward(self, scale: Tensor, *, picture: Tensor) -> Tensor:
        picture *= 2  # writes into its input
        return self.net(picture) * scale


def summed(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], target: int) -> tuple[Tensor, Tensor, int]:
    """Return the scores, input * gradient plus all bias gradients of each sample, and how many bias gradients there are."""
    terms: list[Tensor] = []
    found = bias_gradients(model, args, kwargs, of_class(target), lambda term, _: terms.append(term))
    parts = [found.input * found.gradient, *terms]
    return found.scores, torch.stack([part.flatten(1).sum(dim=1) for part in parts]).sum(dim=0), len(terms)


def frozen_batch_norm(channels: int) -> nn.Module:
    from torchvision.ops import FrozenBatchNorm2d

    norm = FrozenBatchNorm2d(channels)
    for name, low in (("weight", 0.5), ("bias", -1), ("running_mean", -1), ("running_var", 0.5)):
        nn.init.uniform_(getattr(norm, name), low, 2)
    return norm


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, Activated, frozen_batch_norm, lambda channels: nn.BatchNorm2d(channels, affine=False)])
def test_the_score_is_the_sum_of_all_full_gradients(norm: Any):
    """The convolution called twice and its normalisation count twice: 1 + 2 * 2 + 2 terms."""
    model = with_random_statistics(Residual(norm=norm))
    x = torch.randn(3, 3, 8, 10, dtype=torch.float64)
    scores, total, terms = summed(model, (x,), {}, 2)
    torch.testing.assert_close(scores, model(x)[:, 2], **EXACT)
    torch.testing.assert_close(total, scores, **EXACT)
    assert terms == 7


def test_completeness_of_video_and_of_an_input_by_keyword():
    video = with_random_statistics(Residual(nn.Conv3d, nn.BatchNorm3d))
    scores, total, _ = summed(video, (torch.randn(2, 3, 3, 6, 8, dtype=torch.float64),), {}, 0)
    torch.testing.assert_close(total, scores, **EXACT)
    attached, picture = with_random_statistics(Attached()), torch.randn(2, 3, 6, 8, dtype=torch.float64)
    scale = torch.tensor([[2.0], [3.0]], dtype=torch.float64)
    before = picture.clone()
    scores, total, _ = summed(attached, (scale,), {"picture": picture}, 1)
    torch.testing.assert_close(total, scores, **EXACT)
    assert torch.equal(picture, before)


def test_completeness_of_resnet18():
    """20 normalisations and the head; the convolutions have no bias."""
    from torchvision.models import resnet18

    model = with_random_statistics(resnet18(num_classes=10))
    x = torch.randn(2, 3, 64, 48, dtype=torch.float64)
    _, total, terms = summed(model, (x,), {}, 7)
    torch.testing.assert_close(total, model(x)[:, 7], rtol=1e-8, atol=1e-8)
    assert terms == 21


# --- FullGrad: the map


def enlarged(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, pixels as areas (half-pixel centres), the border repeated: a number at a time."""
    rows, columns = image.shape
    result = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        v, u = (np.clip((at + 0.5) * n / size - 0.5, 0, n - 1) for at, n, size in ((y, rows, height), (x, columns, width)))
        top, left = int(v), int(u)
        bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
        upper = image[top, left] * (1 - (u - left)) + image[top, right] * (u - left)
        lower = image[bottom, left] * (1 - (u - left)) + image[bottom, right] * (u - left)
        result[y, x] = upper * (1 - (v - top)) + lower * (v - top)
    return result


def psi(term: np.ndarray, height: int, width: int) -> np.ndarray:
    """(C, h, w) -> (height, width): sum over channels of upsample(minmax(|.|))."""
    total = np.zeros((height, width))
    for channel in np.abs(term):
        spread = channel.max() - channel.min()
        if spread > 1e-9:
            total += enlarged((channel - channel.min()) / spread, height, width)
    return total


def test_fullgrad_is_the_equation_of_the_paper():
    """Biases as maps with a number for each place, which the loss is differentiated by; no module, nothing in place."""
    model = with_random_statistics(Residual(inplace=True))
    norm: Any = model.norm
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    found = fullgrad(model, (x,), {}, of_class(1))
    spread = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * spread
    for sample in range(2):
        picture = x[sample : sample + 1].clone().requires_grad_()
        biases = [
            bias.detach()[:, None, None].repeat(1, 6, 8).requires_grad_() for bias in (model.first.bias, *(model.deep.bias, shift) * 2)
        ]
        z = F.relu(F.conv2d(picture, model.first.weight, padding=1) + biases[0])
        for deep, implicit in ((biases[1], biases[2]), (biases[3], biases[4])):
            conv = F.conv2d(z, model.deep.weight, padding=1, groups=6) + deep
            z = F.relu(conv * spread[:, None, None] + implicit + z)
        y = model.head(F.leaky_relu(model.hidden(F.max_pool2d(z, 2).mean(dim=(2, 3)))))[0, 1]
        torch.testing.assert_close(y, model(x)[sample, 1], **EXACT)
        gradients = torch.autograd.grad(y, [picture, *biases])
        expected = psi((picture * gradients[0])[0].detach().numpy(), 6, 8)
        for bias, gradient in zip(biases, gradients[1:], strict=True):
            expected += psi((bias * gradient).detach().numpy(), 6, 8)
        np.testing.assert_allclose(found[sample].numpy(), expected, rtol=1e-9, atol=1e-9)


def test_smaller_layers_are_enlarged():
    """One stride of 2; minmax comes before enlarging, which may not reach the extremes."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 3 * 4, 2)).double()
    x = torch.randn(1, 3, 7, 9, dtype=torch.float64)
    picture, bias = x.clone().requires_grad_(), model[0].bias.detach()[:, None, None].repeat(1, 3, 4).requires_grad_()
    y = model[3](F.relu(F.conv2d(picture, model[0].weight, stride=2) + bias).flatten(1))[0, 1]
    by_picture, by_bias = torch.autograd.grad(y, [picture, bias])
    expected = psi((picture * by_picture)[0].detach().numpy(), 7, 9) + psi((bias * by_bias).detach().numpy(), 7, 9)
    found = fullgrad(model, (x,), {}, of_class(1))
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-9, atol=1e-9)


def test_fullgrad_of_tokens_puts_them_back_on_their_grid():
    """One linear layer over a class token and 2 x 3 patches; only its bias has a place, and the class token has none."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(1, 4, 2, stride=2, bias=False)
            self.cls_token = nn.Parameter(torch.randn(1, 1, 4))
            self.mix, self.head = nn.Linear(4, 4), nn.Parameter(torch.randn(7, 4))

        def forward(self, x: Tensor) -> Tensor:
            tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), self.patches(x).flatten(2).transpose(1, 2)], dim=1)
            return (torch.relu(self.mix(tokens)) * self.head).sum(dim=(1, 2))[:, None]

    model = Tokens().double()
    x = torch.randn(2, 1, 4, 6, dtype=torch.float64)
    found = fullgrad(model, (x,), {}, of_class(0))
    for sample in range(2):
        picture = x[sample : sample + 1].clone().requires_grad_()
        patches = model.patches(picture)[0]  # (4, 2, 3)
        bias = model.mix.bias.detach()[:, None, None].repeat(1, 2, 3).requires_grad_()
        mixed = torch.relu(torch.einsum("oc,chw->ohw", model.mix.weight, patches) + bias)
        y = (mixed * model.head[1:].T.reshape(4, 2, 3)).sum()
        by_picture, by_bias = torch.autograd.grad(y, [picture, bias])
        expected = psi((picture * by_picture)[0].detach().numpy(), 4, 6) + psi((bias * by_bias).detach().numpy(), 4, 6)
        np.testing.assert_allclose(found[sample].numpy(), expected, rtol=1e-9, atol=1e-9)


def test_a_bias_with_a_number_for_each_place():
    """LayerNorm over channels and places: the gradient by its bias is the map."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.LayerNorm((2, 3, 4)), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)).double()
    norm: Any = model[1]
    nn.init.normal_(norm.bias)
    x = torch.randn(1, 1, 5, 6, dtype=torch.float64)
    picture = x.clone().requires_grad_()
    by_picture, by_bias = torch.autograd.grad(model(picture)[0, 1], [picture, norm.bias])
    expected = psi((picture * by_picture)[0].detach().numpy(), 5, 6) + psi((norm.bias * by_bias).detach().numpy(), 5, 6)
    np.testing.assert_allclose(fullgrad(model, (x,), {}, of_class(1))[0].numpy(), expected, rtol=1e-9, atol=1e-9)


def test_as_many_samples_as_tokens_are_not_taken_for_each_other():
    """`nn.MultiheadAttention` puts out (tokens, N, width) inside: 5 tokens, 5 samples."""
    model = torchvision_vit()[0]
    x = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    alone = torch.cat([fullgrad(model, (x[i : i + 1],), {}, of_class(1)) for i in range(5)])
    torch.testing.assert_close(fullgrad(model, (x,), {}, of_class(1)), alone, **EXACT)


# --- LeGrad: a transformer in numpy, and finite differences of its scores by every entry of its attention maps


def normed(x: np.ndarray, norm: nn.LayerNorm) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + norm.eps) * array(norm.weight) + array(norm.bias)


def linear(x: np.ndarray, layer: nn.Linear) -> np.ndarray:
    return x @ array(layer.weight).T + array(layer.bias)


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


class Block:
    """One layer of a transformer in numpy, whose attention maps can be replaced."""

    def __init__(self, norm1: Any, qkv: tuple[Tensor, Tensor], proj: Any, norm2: Any, up: Any, down: Any) -> None:
        self.norm1, self.proj, self.norm2, self.up, self.down = norm1, proj, norm2, up, down
        self.weight, self.bias = array(qkv[0]), array(qkv[1])

    def qkv(self, tokens: np.ndarray, heads: int) -> np.ndarray:
        """(3, heads, L, E)."""
        return (normed(tokens, self.norm1) @ self.weight.T + self.bias).reshape(len(tokens), 3, heads, -1).transpose(1, 2, 0, 3)

    def attention(self, tokens: np.ndarray, heads: int) -> np.ndarray:
        query, key, _ = self.qkv(tokens, heads)
        powers = np.exp(query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1]))
        return powers / powers.sum(axis=-1, keepdims=True)

    def __call__(self, tokens: np.ndarray, attention: np.ndarray) -> np.ndarray:
        mixed = attention @ self.qkv(tokens, len(attention))[2]  # (heads, L, E)
        tokens = tokens + linear(mixed.transpose(1, 0, 2).reshape(tokens.shape), self.proj)
        return tokens + linear(gelu(linear(normed(tokens, self.norm2), self.up)), self.down)


Head = Callable[[np.ndarray], float]


def by_hand(tokens: np.ndarray, blocks: list[Block], heads: int, head: Head, prefix: int = 1) -> np.ndarray:
    """Equations 2 to 7 for one sample: (tokens - prefix,)."""
    layers, step = [], 1e-5
    for block in blocks:
        maps = block.attention(tokens, heads)
        positive = np.zeros(maps.shape)
        for entry in np.ndindex(*maps.shape):
            scores = []
            for side in (step, -step):
                moved = maps.copy()
                moved[entry] += side
                scores.append(head(block(tokens, moved)))
            positive[entry] = max(0.0, (scores[0] - scores[1]) / (2 * step))
        layers.append(positive.mean(axis=(0, 1)))
        tokens = block(tokens, maps)
    return np.mean(layers, axis=0)[prefix:]


def entering(model: nn.Module, block: nn.Module, x: Tensor) -> np.ndarray:
    """The tokens that the first block is given."""
    found: list[Tensor] = []
    handle = block.register_forward_pre_hook(lambda _, args: found.append(args[0]))
    model(x)
    handle.remove()
    return array(found[0])


def lively(model: nn.Module) -> Any:
    """No parameter is zero or one, as many are at first."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.double().eval()


def shape_vit() -> Any:
    model = ShapeViT(width=8, depth=3, heads=2)
    model.pos_embed = nn.Parameter(torch.zeros(1, 7, 8))
    model = with_random_statistics(lively(model))
    blocks = [Block(b.norm1, (b.attn.qkv.weight, b.attn.qkv.bias), b.attn.proj, b.norm2, b.mlp[0], b.mlp[2]) for b in model.blocks]
    return model, model.blocks[0], blocks, model.norm, model.head, (16, 24)


def torchvision_vit() -> Any:
    from torchvision.models import VisionTransformer

    model = lively(VisionTransformer(image_size=8, patch_size=4, num_layers=3, num_heads=2, hidden_dim=8, mlp_dim=12, num_classes=5))
    blocks = [
        Block(
            b.ln_1, (b.self_attention.in_proj_weight, b.self_attention.in_proj_bias), b.self_attention.out_proj, b.ln_2, b.mlp[0], b.mlp[3]
        )
        for b in model.encoder.layers
    ]
    return model, model.encoder.layers[0], blocks, model.encoder.ln, model.heads.head, (8, 8)


def timm_vit() -> Any:
    timm = pytest.importorskip("timm")
    sizes = {"patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "mlp_ratio": 2, "num_classes": 5}
    model = lively(timm.models.vision_transformer.VisionTransformer(img_size=(8, 12), **sizes))
    blocks = [Block(b.norm1, (b.attn.qkv.weight, b.attn.qkv.bias), b.attn.proj, b.norm2, b.mlp.fc1, b.mlp.fc2) for b in model.blocks]
    return model, model.blocks[0], blocks, model.norm, model.head, (8, 12)


def transformers_vit(kernel: str) -> Any:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12, "patch_size": 4, "image_size": 8}
    config = transformers.ViTConfig(**sizes, num_labels=5, attn_implementation=kernel)
    model = lively(transformers.ViTForImageClassification(config))
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]  # query, key, value, output, up, down, ...
    blocks = []
    for layer in range(2):
        query, key, value, proj, up, down = linears[6 * layer : 6 * layer + 6]
        qkv = [torch.cat([getattr(part, kind) for part in (query, key, value)]) for kind in ("weight", "bias")]
        blocks.append(Block(norms[2 * layer], (qkv[0], qkv[1]), proj, norms[2 * layer + 1], up, down))
    first = next(module for module in model.modules() if type(module).__name__ == "ViTLayer")
    return model, first, blocks, norms[-1], linears[-1], (8, 8)


MODELS = {
    "ShapeViT": shape_vit,
    "torchvision": torchvision_vit,
    "timm": timm_vit,
    "transformers, sdpa": lambda: transformers_vit("sdpa"),
    "transformers, eager": lambda: transformers_vit("eager"),
}


@pytest.mark.parametrize("name", MODELS)
def test_legrad_is_the_positive_gradient_of_every_layers_own_score(name: str):
    """By `F.scaled_dot_product_attention`, by `nn.MultiheadAttention`, and written out; whatever the model's output is."""
    model, first, blocks, norm, head, size = MODELS[name]()
    x = torch.randn(2, 3, *size, dtype=torch.float64)

    def score(tokens: np.ndarray) -> float:
        return float(linear(normed(tokens, norm)[0], head)[2])

    tokens = entering(model, first, x)
    outputs: list[Any] = []

    def scores(output: Any) -> Tensor:
        outputs.append(output if isinstance(output, Tensor) else output.logits)
        return outputs[-1][:, 2]

    found = legrad(model, (x,), {}, scores)
    for sample in range(2):
        expected = by_hand(tokens[sample], blocks, 2, score).reshape(found.shape[1:])
        np.testing.assert_allclose(found[sample].numpy(), expected, rtol=1e-5, atol=1e-8)
    whole = model(x)
    torch.testing.assert_close(outputs[-1], whole if isinstance(whole, Tensor) else whole.logits, **EXACT)


def test_legrad_of_a_head_that_attends_takes_the_heads_map():
    """Attentional pooling: a learned query gathers the tokens of each layer in turn (paper, section 3.3)."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = ShapeViT(width=8, depth=2, heads=2)
            self.vit.pos_embed = nn.Parameter(torch.zeros(1, 7, 8))
            self.query, self.key = nn.Parameter(torch.zeros(1, 1, 3, 8)), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.vit.tokens(x)[:, None]
            queries = self.query.expand(len(x), -1, -1, -1)
            return F.scaled_dot_product_attention(queries, self.key(tokens), tokens)[:, 0].mean(dim=1) ** 2

    model = with_random_statistics(lively(Pooled()))
    vit: Any = model.vit
    x = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    tokens = entering(model, vit.blocks[0], x)
    blocks = [Block(b.norm1, (b.attn.qkv.weight, b.attn.qkv.bias), b.attn.proj, b.norm2, b.mlp[0], b.mlp[2]) for b in vit.blocks]
    found = legrad(model, (x,), {}, of_class(3))
    for sample in range(2):
        layers, left = [], tokens[sample]
        for block in blocks:
            left = block(left, block.attention(left, 2))
            values = normed(left, vit.norm)
            powers = np.exp(array(model.query)[0, 0] @ linear(values, model.key).T / math.sqrt(8))
            weights = powers / powers.sum(axis=1, keepdims=True)
            # y = (mean over queries q of sum_i A_qi v_i)^2, so dy/dA_qi = 2 mean_q(A v) v_i / 3
            gradient = np.repeat(2 * (weights @ values)[:, 3].mean() * values[None, :, 3] / 3, 3, axis=0)
            layers.append(np.maximum(gradient, 0).mean(axis=0))
        np.testing.assert_allclose(found[sample].numpy(), np.mean(layers, axis=0)[1:].reshape(2, 3), rtol=1e-9, atol=1e-12)


def test_legrad_of_one_block_called_again_and_again():
    """As ALBERT does: three layers that share their weights are three layers, not one."""

    class Shared(ShapeViT):
        def tokens(self, images: Tensor) -> Tensor:
            patches = self.patch_embed(self.stem(images)).flatten(2).transpose(1, 2)
            tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.pos_embed
            for _ in range(3):
                tokens = self.blocks[0](tokens)
            return self.norm(tokens)

    model: Any = Shared(width=8, depth=1, heads=2)
    model.pos_embed = nn.Parameter(torch.zeros(1, 7, 8))
    model = with_random_statistics(lively(model))
    once = ShapeViT(width=8, depth=3, heads=2)
    once.pos_embed = nn.Parameter(torch.zeros(1, 7, 8))
    weights = model.state_dict()
    weights |= {name.replace("blocks.0", f"blocks.{i}"): value for name, value in model.state_dict().items() for i in (1, 2)}
    once.double().eval().load_state_dict(weights)
    x = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    torch.testing.assert_close(legrad(model, (x,), {}, of_class(0)), legrad(once, (x,), {}, of_class(0)), **EXACT)


def test_what_blocks_return_beside_tokens_is_kept():
    """Blocks of transformers return tuples; (tokens, their mean) is no more than tokens."""

    class Wrapped(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block = block

        def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
            tokens = self.block(tokens)
            return tokens, tokens.mean()

    class Chain(nn.Module):
        def __init__(self, blocks: nn.Sequential) -> None:
            super().__init__()
            self.layers = nn.ModuleList(map(Wrapped, blocks))

        def forward(self, tokens: Tensor) -> Tensor:
            for layer in self.layers:
                tokens, _ = layer(tokens)
            return tokens

    model = shape_vit()[0]
    other = copy.deepcopy(model)
    other.blocks = Chain(other.blocks)
    x = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    torch.testing.assert_close(legrad(other, (x,), {}, of_class(0)), legrad(model, (x,), {}, of_class(0)), **EXACT)


# --- manners


STATES = [
    pytest.param(nullcontext, False, id="as in training"),
    pytest.param(torch.no_grad, False, id="no_grad"),
    pytest.param(torch.inference_mode, True, id="inference mode, frozen"),
]


@pytest.mark.parametrize(("mode", "frozen"), STATES)
@pytest.mark.parametrize("method", [fullgrad, legrad])
def test_the_model_may_be_in_any_state_and_stays_in_it(method: Any, mode: Any, frozen: bool):
    model = shape_vit()[0].requires_grad_(not frozen)
    model.head.weight.requires_grad_(False)
    model.norm.weight.grad = torch.ones_like(model.norm.weight)
    x = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    expected = method(copy.deepcopy(model), (x,), {}, of_class(1))
    before = {name: (value.requires_grad, None if value.grad is None else value.grad.clone()) for name, value in model.named_parameters()}
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    with mode():
        given = x * 1  # in inference mode, a tensor that cannot be differentiated
        torch.testing.assert_close(method(model, (given,), {}, of_class(1)), expected, rtol=0, atol=0)
    for name, value in model.named_parameters():
        assert value.requires_grad == before[name][0]
        assert (value.grad is None) == (before[name][1] is None)
        assert value.grad is None or torch.equal(value.grad, before[name][1])
    assert hooks == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]


@pytest.mark.parametrize("method", [fullgrad, legrad])
def test_a_model_that_was_made_in_inference_mode(method: Any):
    model, x = shape_vit()[0], torch.randn(2, 3, 16, 24, dtype=torch.float64)
    with torch.inference_mode():
        other = copy.deepcopy(model)
    before = list(other.parameters())
    torch.testing.assert_close(method(other, (x,), {}, of_class(1)), method(model, (x,), {}, of_class(1)), rtol=0, atol=0)
    assert all(one is two for one, two in zip(before, other.parameters(), strict=True))


@pytest.mark.parametrize("method", [fullgrad, legrad])
def test_a_model_that_raises_is_left_as_it_was(method: Any):
    model, called = shape_vit()[0], nn.Module.__call__

    def raising(output: Tensor) -> Tensor:
        raise ValueError("no score")

    with pytest.raises(ValueError, match="no score"):
        method(model, (torch.randn(1, 3, 16, 24, dtype=torch.float64),), {}, raising)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert nn.Module.__call__ is called
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("method", [fullgrad, legrad])
def test_half_precision_is_reduced_in_float32(method: Any):
    model = shape_vit()[0]
    x = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    exact = method(model, (x,), {}, of_class(1))
    half = method(copy.deepcopy(model).bfloat16(), (x.bfloat16(),), {}, of_class(1))
    assert half.dtype == torch.float32
    assert F.cosine_similarity(half.double().flatten(1), exact.flatten(1)).min() > 0.98


# --- refused


def test_what_cannot_be_done_is_said():
    from torchvision.models import SwinTransformer

    x = torch.randn(1, 3, 32, 32)
    cnn = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(NetlensError, match="Sequential has no attention over places") as raised:
        legrad(cnn, (x,), {}, of_class(0))
    assert "gradcam" in raised.value.hint
    with pytest.raises(NetlensError, match="no biases at places"):
        fullgrad(cnn, (x,), {}, of_class(0))
    swin = SwinTransformer([2, 2], 8, [2, 2], [2, 2], [4, 4], num_classes=3).eval()
    with pytest.raises(NetlensError, match="windows"):
        legrad(swin, (x,), {}, of_class(0))
    words = nn.Sequential(nn.Embedding(5, 4), nn.TransformerEncoderLayer(4, 1, 8, batch_first=True)).eval()
    with pytest.raises(NetlensError, match="no attention over places"):
        legrad(words, (torch.zeros(1, 6, dtype=torch.long),), {}, lambda output: output[:, 0, 0])
    with pytest.raises(NetlensError, match="no picture"):
        fullgrad(words, (torch.zeros(1, 6, dtype=torch.long),), {}, lambda output: output[:, 0, 0])
    with pytest.raises(NetlensError, match="no gradient at the input"):
        fullgrad(cnn, (x,), {}, lambda output: output.detach()[:, 0])
