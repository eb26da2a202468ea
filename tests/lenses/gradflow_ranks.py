"""What each of two processes does in tests/lenses/test_gradflow_distributed.py; run as a program it writes what it found to a file."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZES = (5, 3)  # samples of each process
SHARDED = (
    "fully_shard",
    "partly_sharded",
    "fsdp_flat",
    "fsdp_original",
    "step_fully_shard",
)  # on the CPU, with the import as here, since torch 2.6
LEFT_OUT = () if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 6) else SHARDED


class Net(nn.Module):
    """With an embedding whose gradient is sparse, and a layer that runs in the second process alone."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.words = nn.Embedding(7, 4, sparse=True)
        self.first, self.side, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.aside = False

    def forward(self, words: Tensor) -> Tensor:
        hidden = torch.relu(self.first(self.words(words)))
        return self.last(hidden + self.side(hidden) if self.aside else hidden)


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 7, (sum(SIZES),), generator=generator), torch.randint(0, 3, (sum(SIZES),), generator=generator)


def part(rank: int) -> slice:
    return slice(0, SIZES[0]) if rank == 0 else slice(SIZES[0], None)


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def vectors() -> Tensor:
    return torch.randn(8, 5, generator=torch.Generator().manual_seed(2))


def half(rank: int) -> slice:
    return slice(4 * rank, 4 * rank + 4)


class Cases:
    """One method a case; each returns what can be written as JSON."""

    def __init__(self, processes: Any) -> None:
        self.processes, self.rank = processes, processes.rank

    def reduced(self) -> Any:
        """A step on uneven shares."""
        model = Net()
        model.aside = self.rank == 1
        words, labels = (tensor[part(self.rank)] for tensor in data())
        loss = F.cross_entropy(model(words), labels)
        loss.backward()
        found = self.processes.reduced(loss, list(model.parameters()), len(words))
        gradients = {name: each.grad.tolist() for name, each in model.named_parameters()}
        return {"loss": float(found.loss), "ranks": list(map(asdict, found.ranks)), "samples": found.samples, "gradients": gradients}

    def layers(self) -> Any:
        """Rows of layers, of what `measure` finds in each process."""
        from netlens.lenses.gradflow.measure import measure

        words, labels = (tensor[part(self.rank)] for tensor in data())

        def batches() -> Iterator[Any]:
            yield (words,), {}, labels

        measured = measure(Net(), batches, F.cross_entropy)
        return [asdict(row) for row in self.processes.layers(measured.layers, len(words))]

    def other_weights(self) -> Any:
        """The second process has one weight that differs in its last bit."""
        model = plain()
        if self.rank == 1:
            with torch.no_grad():
                model[2].weight[1, 3] = torch.nextafter(model[2].weight[1, 3], torch.tensor(10.0))
        loss = model(vectors()[half(self.rank)]).square().mean()
        loss.backward()
        return list(map(asdict, self.processes.reduced(loss, list(model.parameters()), 4).ranks))

    def not_a_number(self) -> Any:
        """A sample of the second process holds NaN."""
        model, x = plain(), vectors()
        x[6, 2] = torch.nan
        loss = model(x[half(self.rank)]).square().mean()
        loss.backward()
        found = self.processes.reduced(loss, list(model.parameters()), 4)
        return {"ranks": [{**asdict(each), "loss": str(each.loss)} for each in found.ranks], "loss": str(float(found.loss))}

    def fully_shard(self) -> Any:
        from torch.distributed.fsdp import fully_shard

        model = plain()
        fully_shard(model[0])
        fully_shard(model)
        return self._sharded(model)

    def partly_sharded(self) -> Any:
        """The last layer is in no shard: nobody else reduces its gradient."""
        from torch.distributed.fsdp import fully_shard

        model = plain()
        fully_shard(model[0])
        return self._sharded(model)

    def fsdp_flat(self) -> Any:
        return self._sharded(self._fsdp(use_orig_params=False))

    def fsdp_original(self) -> Any:
        return self._sharded(self._fsdp(use_orig_params=True))

    def _fsdp(self, **options: Any) -> nn.Module:
        from torch.distributed.fsdp import FullyShardedDataParallel

        return FullyShardedDataParallel(plain(), device_id=torch.device("cpu"), **options)

    def _sharded(self, model: nn.Module) -> Any:
        loss = model(vectors()[half(self.rank)]).square().mean()
        loss.backward()
        parameters = list(model.parameters())
        found = self.processes.reduced(loss, parameters, 4)
        gradients = self.processes.magnitudes([each.grad for each in parameters], parameters)
        return {
            "loss": float(found.loss),
            "ranks": list(map(asdict, found.ranks)),
            "gradients": [each._asdict() for each in gradients],
            "weights": self.processes.squares([each.detach() for each in parameters], parameters),
        }

    def step_ddp(self) -> Any:
        return self._step(nn.parallel.DistributedDataParallel(plain()))

    def step_fully_shard(self) -> Any:
        from torch.distributed.fsdp import fully_shard

        model = plain()
        fully_shard(model)
        return self._step(model)

    def _step(self, model: nn.Module) -> Any:
        from netlens.lenses.gradflow.stepping import measured_steps

        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)

        def step() -> Tensor:
            optimizer.zero_grad()
            loss = model(vectors()[half(self.rank)]).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        found = measured_steps(step, "step", steps=2, processes=self.processes)
        rows = {row.name: {"norm": row.norm, "update": row.update, "status": row.status} for row in found.measured.parameters}
        layers = {row.name: [row.rms, row.shape] for row in found.measured.layers}
        losses = [each.loss for each in found.measured.steps]
        return {"rows": rows, "layers": layers, "losses": losses, "ranks": list(map(asdict, found.ranks)), "notes": found.measured.notes}

    def shard(self) -> Any:
        taken = self.processes.shard(lambda: iter(range(5)))()
        return [next(taken) for _ in range(6)]

    def quiet(self) -> Any:
        with self.processes.quiet():
            print("said by", self.rank)
        return None


def main(folder: str) -> None:
    from netlens.lenses.gradflow.distributed import processes

    with processes(torch.device("cpu")) as group:
        cases = Cases(group)
        found = {name: getattr(cases, name)() for name in vars(Cases) if not name.startswith("_") and name not in LEFT_OUT}
    assert not torch.distributed.is_initialized()
    Path(folder, f"rank{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    from netlens.cli.leaving import Leaving

    leaving = Leaving()
    main(sys.argv[1])
    leaving.code = 0
