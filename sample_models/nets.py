"""Small models to try netlens on: `netlens summary sample_models/nets.py:LeNet5 --input 1,1,32,32`."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LeNet5(nn.Module):
    """Digits, (N, 1, 32, 32) -> (N, classes) scores; after LeCun et al. 1998, section II, with ReLU and max pooling.

    61,706 parameters for 10 classes: 156 + 2,416 + 48,120 + 10,164 + 850.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2))
        self.classifier = nn.Sequential(nn.Linear(16 * 5 * 5, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Score the classes."""
        return self.classifier(torch.flatten(self.features(images), 1))


class WordTagger(nn.Module):
    """Tags words, (N, L) ids -> (N, L, tags) scores, and predicts the next word with the weights of its embedding.

    Embedding and `next_word` share one tensor, which counts once: 64,000 + 66,560 + 1,040 parameters for 1,000 words and 16 tags.
    """

    def __init__(self, words: int = 1000, tags: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, 64)
        self.lstm = nn.LSTM(64, 64, num_layers=2, batch_first=True)
        self.tags = nn.Linear(64, tags)
        self.next_word = nn.Linear(64, words, bias=False)
        self.next_word.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        """Score tags and next words."""
        states, _ = self.lstm(self.embedding(ids))
        return {"tags": self.tags(states), "next_word": self.next_word(states)}
