"""Fresh networks without a fault raise no warning, whatever begins at zero in them by design."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netlens.probing.untouched import seeded
from tests.lenses.gradflow_looked import grave, looked

SAMPLES, CLASSES = 16, 10
Labelled = tuple[nn.Module, Any, Any]  # a model, its arguments, its labels


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pictures(channels: int = 3, size: int = 16) -> Tensor:
    return torch.randn(SAMPLES, channels, size, size)


def classes(count: int = CLASSES) -> Tensor:
    return torch.arange(SAMPLES) % count


def words(length: int = 12) -> Tensor:
    return torch.randint(50, (SAMPLES, length))


# -- blocks -------------------------------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """A block of ResNet, whose last scale begins at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class ConvNext(nn.Module):
    """A depthwise convolution, two layers, and a LayerScale that begins near zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.rise, self.fall = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(1e-6 * torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.gamma * self.fall(F.gelu(self.rise(y)))).permute(0, 3, 1, 2)


class Gate(nn.Module):
    """ReZero: a number that begins at zero opens a branch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch, self.gate = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gate * self.branch(x)


class Attention(nn.Module):
    """A transformer's block, normalised first."""

    def __init__(self, width: int, *, causal: bool) -> None:
        super().__init__()
        self.norm1, self.norm2, self.causal = nn.LayerNorm(width), nn.LayerNorm(width), causal
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        heads = [part.unflatten(-1, (4, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1)]
        x = x + self.out(F.scaled_dot_product_attention(*heads, is_causal=self.causal).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class LowRank(nn.Module):
    """LoRA: a frozen layer, and beside it two small ones, of which the second begins at zero."""

    def __init__(self, frozen: nn.Linear) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.a, self.b = nn.Linear(frozen.in_features, 4, bias=False), nn.Linear(4, frozen.out_features, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(x) + self.b(self.a(x))


# -- networks -----------------------------------------------------------------------------------------------------------------------


class Gpt(nn.Module):
    """Words in, the next word out; the head is the embedding once more."""

    def __init__(self, layers: int = 6, width: int = 32, *, tied: bool = False) -> None:
        super().__init__()
        self.embed, self.places = nn.Embedding(50, width), nn.Parameter(torch.zeros(12, width))
        self.blocks = nn.Sequential(*[Attention(width, causal=True) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 50, bias=False)
        for each in self.modules():
            if isinstance(each, (nn.Linear, nn.Embedding)):
                nn.init.normal_(each.weight, std=0.02)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(ids) + self.places))).transpose(1, 2)


class Vit(nn.Module):
    """Patches, a class token that begins at zero, and a head that does."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, width, 4, 4), nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, 17, width))
        self.blocks = nn.Sequential(*[Attention(width, causal=False) for _ in range(4)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.places
        return self.head(self.norm(self.blocks(tokens))[:, 0])


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.embed, self.rnn, self.head = nn.Embedding(50, 16), kind(16, 32, num_layers=2, batch_first=True), nn.Linear(32, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(ids))[0][:, -1])


class UNet(nn.Module):
    """Down, up, and across."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = conv(3, 8), conv(8, 16), conv(16, 16)
        self.up2, self.up1, self.head = conv(32, 8), conv(16, 8), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        y = F.interpolate(self.middle(F.max_pool2d(two, 2)), scale_factor=2)
        y = F.interpolate(self.up2(torch.cat([y, two], 1)), scale_factor=2)
        return self.head(self.up1(torch.cat([y, one], 1)))


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(50, 16), nn.Linear(16, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.bag(ids))


class Siamese(nn.Module):
    """One tower, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.head((self.tower(a) - self.tower(b)).abs()).squeeze(1)


def conv(channels: int, out: int, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1, groups=groups), nn.BatchNorm2d(out), nn.ReLU())


def headed(*body: nn.Module, channels: int = 16) -> nn.Module:
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


def mlp() -> Labelled:
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES)), vectors(), classes()


def vectors() -> Tensor:
    return torch.randn(SAMPLES, 20)


def frozen_body() -> Labelled:
    body = headed(conv(3, 16), conv(16, 16)).requires_grad_(False)
    body[-1] = nn.Linear(16, CLASSES)  # type: ignore[operator]
    return body, pictures(), classes()


def lora() -> Labelled:
    layers = [LowRank(nn.Linear(20, 32)), nn.ReLU(), LowRank(nn.Linear(32, 32)), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(32, CLASSES).requires_grad_(False)), vectors(), classes()


def autoencoder() -> Labelled:
    x = vectors()
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 20)), x, x


def with_dropout() -> Labelled:
    return (
        nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, CLASSES)),
        vectors(),
        classes(),
    )


NETWORKS: dict[str, Callable[[], Labelled]] = {
    "mlp": mlp,
    "tanh mlp": lambda: (
        nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, CLASSES)),
        vectors(),
        classes(),
    ),
    "linear regression": lambda: (nn.Linear(20, 1), vectors(), torch.randn(SAMPLES, 1)),
    "convolutions with BatchNorm": lambda: (headed(conv(3, 16), nn.MaxPool2d(2), conv(16, 16)), pictures(), classes()),
    "residual with zero gamma": lambda: (headed(conv(3, 16), *[Residual(16) for _ in range(4)]), pictures(), classes()),
    "convnext with LayerScale": lambda: (headed(nn.Conv2d(3, 16, 2, 2), *[ConvNext(16) for _ in range(4)]), pictures(), classes()),
    "rezero": lambda: (nn.Sequential(nn.Linear(20, 32), *[Gate(32) for _ in range(4)], nn.Linear(32, CLASSES)), vectors(), classes()),
    "depthwise": lambda: (headed(conv(3, 16), conv(16, 16, groups=16), conv(16, 16, groups=16)), pictures(), classes()),
    "lstm": lambda: (Recurrent(nn.LSTM), words(), classes()),
    "gru": lambda: (Recurrent(nn.GRU), words(), classes()),
    "gpt": lambda: (Gpt(), words(), words()),
    "gpt, 24 layers": lambda: (Gpt(24), words(), words()),
    "tied weights": lambda: (Gpt(tied=True), words(), words()),
    "vit with a zero head": lambda: (Vit(), pictures(), classes()),
    "u-net": lambda: (UNet(), pictures(), torch.randint(4, (SAMPLES, 16, 16))),
    "autoencoder": autoencoder,
    "embedding bag": lambda: (Bag(), words(), classes()),
    "siamese": lambda: (Siamese(), (vectors(), vectors()), (torch.arange(SAMPLES) % 2).float()),
    "frozen body with a new head": frozen_body,
    "lora": lora,
    "dropout": with_dropout,
}
WAYS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adamw, three steps": {"optimizer": "AdamW", "steps": 3},
    "sgd with momentum, accumulated, bf16": {"options": {"lr": 0.05, "momentum": 0.9}, "accumulate": 2, "amp": "bf16", "steps": 2},
}


def told(name: str, seed: int, **asked: Any) -> list[tuple[str, str]]:
    with seeded(seed):
        model, x, labels = NETWORKS[name]()
    return [(finding.code, finding.message) for finding in grave(looked(model, (x, labels), noise=0, seed=seed, **asked))]


def test_there_are_enough_of_them():
    assert len(NETWORKS) >= 15


@pytest.mark.parametrize("name", NETWORKS)
def test_a_healthy_fresh_network_raises_no_warning(name):
    assert told(name, 0) == []


@pytest.mark.sweep
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", NETWORKS)
def test_nor_does_it_with_other_numbers_and_optimizers(name, seed, way):
    assert told(name, seed, **WAYS[way]) == []


@pytest.mark.parametrize("name", ["mlp", "residual with zero gamma", "vit with a zero head", "rezero"])
def test_a_healthy_network_learns_one_batch(name):
    """Also one whose gradient goes nowhere at first."""
    with seeded(0):
        model, x, labels = NETWORKS[name]()
    report = looked(model, (x, labels), noise=0, overfit=True)
    assert report.overfit is not None and report.overfit.passed and grave(report) == []


# -- published architectures --------------------------------------------------------------------------------------------------------

PUBLISHED = (
    *("resnet18", "resnet50", "vgg11_bn", "mobilenet_v2", "mobilenet_v3_small", "densenet121", "efficientnet_b0"),
    *("convnext_tiny", "swin_t", "vit_b_16"),
)


@pytest.mark.sweep
@pytest.mark.parametrize("name", PUBLISHED)
def test_fresh_torchvision_raises_no_error(name):
    from torchvision import models

    with seeded(0):
        model, x = models.get_model(name), torch.randn(4, 3, 224, 224)
    assert grave(looked(model, (x, torch.tensor([1, 20, 300, 999])), noise=0)) == []
