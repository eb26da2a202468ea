"""What the batches of one reading have shown, and a few of their pictures for the eye."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from netlens.loaders.collating import in_lists, label_of, parts_of
from netlens.loaders.labels import Labels
from netlens.loaders.source import Source
from netlens.loaders.values import Stats, fields_of, measurable
from netlens.loading.samples import is_batch, is_sample

SHOWN = 36  # samples that are kept for a picture


@dataclass(frozen=True)
class Shown:
    """Some samples as the network gets them."""

    pictures: np.ndarray  # (n, C, H, W) float32; of films the first frame; n = 0 where there are none
    labels: tuple[str, ...]  # n names or numbers; "" where a sample has none
    places: tuple[str, ...]  # "sample 17"


@dataclass
class Seen:
    """Sums over all batches that were taken."""

    source: Source
    labels: Labels
    names: Sequence[str] | None  # of the classes
    fields: dict[str, Stats] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)  # of the batches
    pictures: list[Tensor] = field(default_factory=list)
    captions: list[tuple[str, str]] = field(default_factory=list)  # label and place of each of these pictures

    @property
    def read(self) -> int:
        """Samples."""
        return sum(self.sizes)

    @property
    def picture(self) -> Stats | None:
        """The part that is the picture: the first with three channels, or else the first with one or four."""
        label = self.labels.name
        found = [stats for name, stats in self.fields.items() if stats.channel_axis is not None and name.partition(".")[0] != label]
        return min(found, key=lambda stats: stats.shape[stats.channel_axis or 0] != 3, default=None)

    def take(self, index: int, batch: Any) -> None:
        """Take one more batch."""
        if not self.source.collates and is_sample(batch) and not is_batch(batch):
            batch = in_lists([batch], anything=True)
        fields = fields_of(batch)
        rows = [sum(map(len, tensors)) for tensors in fields.values()]
        size = self._size(index, batch, rows)
        places = self._places(index, size)
        self.labels.name, label = label_of(batch)
        labelled = len(label) if isinstance(label, Tensor) and label.dim() else size
        self.labels.add(label, places if labelled == size or labelled not in rows[:1] else self._places(index, labelled))
        for (name, tensors), count in zip(fields.items(), rows, strict=True):
            stats = self.fields.setdefault(name, Stats.of(name, tensors[0]))
            left = iter(places if count == size else self._places(index, count))
            for tensor in tensors:
                stats.add(tensor, [next(left) for _ in tensor])
        self._keep(index, fields, label)
        self.sizes.append(size)

    def keys(self) -> dict[bytes, str]:
        """Return the digests of the pictures, and where each was first."""
        found: dict[bytes, str] = {}
        for place, key in self.picture.keys if self.picture is not None else ():
            found.setdefault(key, place)
        return found

    def shown(self) -> Shown:
        """Return the pictures that were kept."""
        pictures = np.stack([row.numpy() for row in self.pictures]) if self.pictures else np.zeros((0, 3, 1, 1), np.float32)
        return Shown(pictures, tuple(name for name, _ in self.captions), tuple(place for _, place in self.captions))

    def _size(self, index: int, batch: Any, rows: list[int]) -> int:
        """Count the samples of a batch: as drawn, for a collate function may join words, nodes or views; else by its rows."""
        drawn = self.source.keys_of(index) if self.source.collates else None
        if drawn is not None:
            return len(drawn)
        lists = (len(part) for part in parts_of(batch).values() if isinstance(part, (list, tuple)))
        return rows[0] if rows else max(lists, default=1)

    def _places(self, index: int, size: int) -> list[str]:
        keys = self.source.keys_of(index, size)
        return [f"batch {index}, row {row}" for row in range(size)] if keys is None else [f"sample {key}" for key in keys]

    def _keep(self, index: int, fields: dict[str, list[Tensor]], label: Any) -> None:
        """Keep pictures of one shape for the eye."""
        picture = self.picture
        if picture is None or picture.name not in fields or len(self.pictures) >= SHOWN:
            return
        axis, axes = picture.channel_axis or 1, len(picture.shape)
        rows = [row for tensor in fields[picture.name] if tensor.dim() == axes and tensor.numel() for row in tensor.movedim(axis, 1)]
        several = isinstance(label, Tensor) and measurable(label) and label.shape == (len(rows),) and not label.is_floating_point()
        names = [self._named(one) for one in label.tolist()] if several else [""] * len(rows)
        places = self._places(index, len(rows))
        for row, name, place in zip(rows, names, places, strict=False):
            frame = row[:, 0] if row.dim() == 4 else row
            if len(self.pictures) < SHOWN and (not self.pictures or frame.shape == self.pictures[0].shape):
                self.pictures.append(frame.float().clone())
                self.captions.append((name, place))

    def _named(self, label: int) -> str:
        return self.names[label] if self.names and 0 <= label < len(self.names) else str(label)
