"""Maps of a model whose weights are drawn anew: which layers, in which order, how alike, and nothing of it stays."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from netlens.lenses.gradcam.choices import METHODS
from netlens.lenses.gradcam.explorer import Explorer
from netlens.lenses.gradcam.sanity import MOST_BLOCKS, rank_correlation, sanity
from netlens.lenses.gradcam.settings import Settings
from netlens.loading.feeding import Batch
from sample_models import scenes, sick
from sample_models.shapes import ShapeNet, ShapeViT


def pictures(count: int) -> tuple[Tensor, list[int]]:
    found = [scenes.scene(40, index) for index in range(count)]
    images = torch.stack([torch.from_numpy(scene.image).permute(2, 0, 1) for scene in found])
    return scenes.normalised(images), [scene.labels[0] for scene in found]


class Watcher:
    """Runs a model, and notes after each step which parameters are no longer those of before."""

    def __init__(self, model: nn.Module, inputs: Tensor) -> None:
        self.model, self.inputs = model, inputs
        self.first = {name: value.clone() for name, value in model.state_dict().items()}
        self.changed: list[set[str]] = []

    def __call__(self) -> list[Tensor]:
        with torch.no_grad():
            output = self.model(self.inputs)
        state = self.model.state_dict()
        self.changed.append({name for name, value in self.first.items() if not torch.equal(value, state[name])})
        return [output]


# --- Likeness


def slow_ranks(values: list[float]) -> list[float]:
    return [sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values]


def test_likeness_is_spearmans_with_mean_ranks_of_absolute_values():
    random = np.random.default_rng(2)
    for _ in range(5):
        real, other = random.integers(-4, 5, (2, 5, 6)).astype(float)  # many are equal
        expected = np.corrcoef(slow_ranks(abs(real).ravel().tolist()), slow_ranks(abs(other).ravel().tolist()))[0, 1]
        assert rank_correlation(torch.from_numpy(real), torch.from_numpy(other)) == pytest.approx(expected, abs=1e-12)


def test_only_the_order_counts():
    heat = torch.rand(7, 7, generator=torch.Generator().manual_seed(0))
    assert rank_correlation(heat, -(heat**3)) == pytest.approx(1)
    assert rank_correlation(heat, 1 - heat) == pytest.approx(-1)


def test_maps_that_are_or_became_blank_are_not_compared():
    """They have no order: neither like the other one, which would speak against a method, nor unlike it, which would speak for it."""
    heat, blank, broken = torch.arange(9.0).view(3, 3), torch.zeros(3, 3), torch.full((3, 3), float("nan"))
    assert [rank_correlation(heat, other) for other in (blank, broken)] == [None, None]
    assert [rank_correlation(other, heat) for other in (blank, broken)] == [None, None]
    model = nn.Linear(2, 2)
    assert sanity(model, lambda: [heat, blank])[1] == (1,)
    assert sanity(model, lambda: [blank, blank])[1] == (None,)
    again = iter([[heat, heat], [blank, 9 - heat]])
    assert sanity(model, lambda: next(again))[1] == (pytest.approx(-1),)


# --- Steps


def test_layers_are_drawn_from_the_head_down_and_stay_drawn():
    watcher = Watcher(ShapeNet().eval(), torch.zeros(1, 3, 64, 64))
    model = watcher.model
    with torch.no_grad():
        for value in [*model.parameters(), *(buffer for buffer in model.buffers() if buffer.is_floating_point())]:
            value.uniform_(0.5, 1.5)  # trained: nothing is as torch starts it
    watcher.first = {name: value.clone() for name, value in model.state_dict().items()}

    steps, _ = sanity(model, watcher)

    assert steps == ("head", "layer3", "layer2", "layer1", "stem")
    names = [name for name in watcher.first if not name.endswith("num_batches_tracked")]
    below = [{name for name in names if name.startswith(steps[: step + 1])} for step in range(5)]
    assert watcher.changed == [set(), *below]
    assert len(below[-1]) == len(names)


def test_batch_norm_forgets_its_statistics_and_comes_back():
    model = sick.healthy().eval()
    seen: list[Tensor] = []

    def explain() -> list[Tensor]:
        seen.append(model.stem.norm.running_var.clone())
        return Watcher(model, torch.zeros(1, 3, 64, 64))()

    sanity(model, explain)
    assert torch.equal(seen[-1], torch.ones(24))
    assert torch.equal(model.stem.norm.running_var, seen[0])
    assert not torch.equal(seen[0], seen[-1])


class HeadFirst(nn.Module):
    """Registers its head before its body, has a layer that never runs, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 2)
        self.unused = nn.Linear(3, 3)
        self.body = nn.Linear(4, 5)
        self.shift = nn.Parameter(torch.arange(4.0))

    def forward(self, x: Tensor) -> Tensor:
        """Run the body, then the head."""
        return self.head(self.body(x + self.shift))


def test_the_head_is_what_runs_last_and_the_rest_comes_with_the_last_step():
    watcher = Watcher(HeadFirst(), torch.ones(1, 4))
    steps, _ = sanity(watcher.model, watcher)
    assert steps == ("head", "body")
    assert watcher.changed[1] == {"head.weight", "head.bias"}
    assert watcher.changed[2] == set(watcher.first)


def test_deep_models_have_few_steps_of_about_equal_size():
    model = nn.Sequential(*(nn.Sequential(nn.Linear(3, 3), nn.ReLU()) for _ in range(40)), nn.Linear(3, 2))
    watcher = Watcher(model, torch.ones(1, 3))
    steps, _ = sanity(model, watcher)
    assert steps[0] == "40"
    assert (len(steps), steps[-1]) == (1 + MOST_BLOCKS, "0")
    sizes = [len(after) - len(before) for before, after in zip(watcher.changed[1:], watcher.changed[2:], strict=False)]
    assert (sum(sizes), max(sizes) - min(sizes) <= 2) == (2 * 40, True)


def test_a_model_of_one_layer_has_one_step():
    assert sanity(nn.Linear(2, 2), lambda: [torch.arange(4.0)]) == (("Linear",), (pytest.approx(1),))


class Scaled(nn.Module):
    """Has a parameter that torch does not know how to start."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(1, 2, 64))

    def forward(self, x: Tensor) -> Tensor:
        """Scale."""
        return x * self.scale

    def reset_parameters(self) -> None:
        """Raise, as code that wants arguments would."""
        raise TypeError


def test_what_torch_does_not_start_is_shuffled():
    model, seen = Scaled(), []
    sanity(model, lambda: [seen.append(model.scale.detach().clone()) or model.scale])
    before, after = seen
    assert not torch.equal(before, after)
    assert torch.equal(before, after.sort().values)


def test_a_weight_that_is_computed_changes_too():
    model, seen = nn.Sequential(parametrizations.weight_norm(nn.Linear(8, 8))), []
    sanity(model, lambda: [seen.append(model[0].weight.detach().clone()) or model(torch.ones(1, 8))])
    assert not torch.allclose(seen[0], seen[1])


# --- No trace


def test_the_model_comes_back_bit_by_bit():
    model = ShapeViT().eval()
    with torch.no_grad():
        model.pos_embed[0, 0, 0] = float("nan")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parameters, state = dict(model.named_parameters()), torch.get_rng_state()
    sanity(model, Watcher(model, torch.zeros(1, 3, 64, 64)))
    assert_same(model, before)
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("failing", [0, 1, 3])
def test_the_model_comes_back_also_when_explaining_fails(failing):
    model = sick.healthy().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    watcher = Watcher(model, torch.zeros(1, 3, 64, 64))

    def explain() -> list[Tensor]:
        if len(watcher.changed) == failing:
            raise KeyboardInterrupt
        return watcher()

    with pytest.raises(KeyboardInterrupt):
        sanity(model, explain)
    assert len(watcher.changed) == failing
    assert_same(model, before)


def assert_same(model: nn.Module, before: dict[str, Tensor]) -> None:
    state = model.state_dict()
    assert state.keys() == before.keys()
    assert [name for name, value in state.items() if value.numpy().tobytes() != before[name].numpy().tobytes()] == []


def test_the_seed_decides():
    model = sick.healthy().eval()
    explain = Watcher(model, pictures(2)[0])
    first, again, other = (sanity(model, explain, seed=seed) for seed in (0, 0, 9))
    assert first == again
    assert first[1] != other[1]


# --- What it is for


def checked_by_the_lens(*methods: str) -> Explorer:
    model, (x, _) = sick.healthy().eval(), pictures(3)
    settings = Settings(tuple(METHODS[method] for method in methods))
    explorer = Explorer(model, settings, lambda _classes: None, ExitStack)
    explorer.add(Batch((x,), {}), ((x,), {}), None)
    explorer.finish(5)
    return explorer


def test_maps_are_compared_before_their_relu():
    """Before a linear head on pooled channels Grad-CAM is HiResCAM, but for the ReLU, which would make maps of chance blank."""
    model, (x, _) = sick.healthy().eval(), pictures(3)
    labels = model(x).argmax(1).tolist()

    def signed() -> list[Tensor]:
        activation, gradient = last_layer(model, x, labels)
        return list((gradient.mean((2, 3), keepdim=True) * activation).sum(1))

    gradcam, hirescam = (row.similarity for row in checked_by_the_lens("gradcam", "hirescam").sanity)
    assert gradcam == pytest.approx(sanity(model, signed, seed=5)[1], abs=1e-3) == hirescam
    rectified = sanity(model, lambda: [values.relu() for values in signed()], seed=5)[1]
    assert max(abs(a - b) for a, b in zip(gradcam, rectified, strict=True) if b is not None) > 0.1


def test_slow_methods_are_not_checked_and_this_is_told():
    explorer = checked_by_the_lens("gradcam", "scorecam", "ablationcam")
    assert [row.method for row in explorer.sanity] == ["gradcam"]
    assert "the sanity check leaves out Score-CAM, Ablation-CAM: it would take too long" in explorer.notes


def last_layer(model: nn.Module, inputs: Tensor, labels: list[int]) -> tuple[Tensor, Tensor]:
    """Return the output of `layer3`, and its gradient."""
    kept: list[Tensor] = []
    handle = model.layer3.register_forward_hook(lambda _layer, _args, output: kept.append(output))
    scores = model(inputs)
    handle.remove()
    (gradient,) = torch.autograd.grad(sum(row[label] for row, label in zip(scores, labels, strict=True)), kept[0])
    return kept[0].detach(), gradient


def test_gradcam_depends_on_every_layer_features_not_on_the_head_and_edges_on_nothing():
    """Of maps that depend on the weights, none of hundreds kept a correlation above 0.81; a map of the picture alone has 1."""
    model = sick.healthy().eval()
    inputs, labels = pictures(12)

    def gradcam() -> list[Tensor]:
        activation, gradient = last_layer(model, inputs, labels)
        return list((gradient.mean((2, 3), keepdim=True) * activation).sum(1).relu())

    def features() -> list[Tensor]:
        return list(last_layer(model, inputs, labels)[0].mean(1))

    def edges() -> list[Tensor]:
        last_layer(model, inputs, labels)
        return list(inputs.diff(dim=2).abs().mean(1))

    assert max(sanity(model, gradcam)[1]) < 0.5
    _, (head, *lower) = sanity(model, features)
    assert (head == pytest.approx(1), max(lower) < 0.9) == (True, True)
    assert sanity(model, edges)[1] == (pytest.approx(1),) * 5
