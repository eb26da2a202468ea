"""A small CNN and a small vision transformer that name the shape in a scene of `scenes.py`; `train.py` trains both.

netlens summary sample_models/shapes.py:ShapeNet --input 1,3,64,64
netlens summary sample_models/shapes.py:ShapeViT --input 1,3,64,64
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBlock(nn.Sequential):
    """Convolution, normalisation, ReLU: `conv`, `norm`, `act`; with `norm=False` the convolution has a bias instead."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, norm: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, groups=groups, bias=not norm)
        self.norm = nn.BatchNorm2d(outputs) if norm else nn.Identity()
        self.act = nn.ReLU()


class ShapeNet(nn.Module):
    """CNN, (N, 3, 64, 64) -> (N, classes) scores; the last grid is 8 x 8.

    7 x 7 filters on the picture, so that edges and colours can be seen in them; a depthwise and a 1 x 1 convolution in `layer2`.
    Where `layer2` and `layer3` halve the grid, filters have an even size: so what a cell looks at lies around the pixels over which its
    value is drawn. With 3 x 3 filters its middle is 3.5 pixels further to the left and above, and heatmaps point beside small objects.
    """

    def __init__(self, classes: int = 6, norm: bool = True) -> None:
        super().__init__()
        self.stem = ConvBlock(3, 24, 7, stride=2, norm=norm)  # 32 x 32
        self.layer1 = nn.Sequential(ConvBlock(24, 24, 3, norm=norm))
        self.layer2 = nn.Sequential(  # 16 x 16
            ConvBlock(24, 48, 4, stride=2, norm=norm),
            ConvBlock(48, 48, 3, groups=48, norm=norm),
            ConvBlock(48, 48, 1, norm=norm),
        )
        self.layer3 = nn.Sequential(  # 8 x 8
            ConvBlock(48, 64, 4, stride=2, norm=norm),
            ConvBlock(64, 64, 3, groups=64, norm=norm),
            ConvBlock(64, 96, 1, norm=norm),
        )
        self.head = nn.Linear(96, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Score the classes."""
        features = self.layer3(self.layer2(self.layer1(self.stem(images))))
        return self.head(features.mean(dim=(2, 3)))


class Attention(nn.Module):
    """Self-attention with `qkv` in one matrix, as timm writes it; (N, tokens, width) -> the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix the tokens."""
        samples, length, width = tokens.shape
        query, key, value = self.qkv(tokens).view(samples, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(samples, length, width))


class TransformerBlock(nn.Module):
    """Attention and two linear layers, each behind a LayerNorm and around a shortcut."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the tokens after the block, (N, tokens, width)."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class ShapeViT(nn.Module):
    """Vision transformer, (N, 3, 64, 64) -> (N, classes) scores: 64 tokens, one for every 8 x 8 pixels, and a class token.

    Convolutions come first, as in Xiao et al. 2021 ("Early convolutions help transformers see better"), so that a few thousand scenes
    teach it; a token has then seen 31 x 31 pixels. What joins them into a shape is attention.
    """

    def __init__(self, classes: int = 6, width: int = 64, depth: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvBlock(3, 24, 7, stride=2),  # 32 x 32
            ConvBlock(24, 24, 3),
            ConvBlock(24, 48, 3, stride=2),  # 16 x 16
            ConvBlock(48, 48, 3, groups=48),
            ConvBlock(48, 64, 1),
            ConvBlock(64, 64, 3, stride=2, groups=64),  # 8 x 8
        )
        self.patch_embed = nn.Conv2d(64, width, 1)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 65, width) * 0.02)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads, 2 * width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def tokens(self, images: Tensor) -> Tensor:
        """Return what the last block leaves, normalised: (N, 65, width), the class token first, then the patches row by row."""
        patches = self.patch_embed(self.stem(images)).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.pos_embed
        return self.norm(self.blocks(tokens))

    def forward(self, images: Tensor) -> Tensor:
        """Score the classes."""
        return self.head(self.tokens(images)[:, 0])
