"""A model with the values that were asked for: as built, of a checkpoint, or published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass

from torch import nn

from netlens.loading.asked import AskedModel
from netlens.loading.checkpoints.ask import Ask
from netlens.loading.checkpoints.causes import checked_fit
from netlens.loading.checkpoints.fit import Fit
from netlens.loading.checkpoints.misfit import left_as_built
from netlens.loading.checkpoints.weights import load_into
from netlens.loading.download import Progress
from netlens.loading.fresh import is_random
from netlens.loading.models import NamedModel, find_model
from netlens.loading.published import with_published_weights
from netlens.probing.untouched import seeded


@dataclass(frozen=True)
class Valued:
    """A model that may be changed at will, and what is known about its values."""

    model: nn.Module
    named: NamedModel
    source: str  # of the values: "best.ckpt", "ResNet18_Weights.IMAGENET1K_V1", "as initialised with seed 0: nothing has been learned yet"
    initialised: bool | None  # True: nothing has been learned yet; None: not known
    notes: tuple[str, ...] = ()


def valued(
    asked: AskedModel,
    *,
    seed: int,
    progress: Progress | None = None,
    fresh: Callable[[nn.Module], object] = lambda _model: None,
) -> Valued:
    """Build the model and give it its values.

    Args:
        asked: what the user wants.
        seed: of what is initialised at random.
        progress: of a download.
        fresh: is shown the model with random values, where there are some and others will replace them.

    Raises:
        NetlensError: there is no such model, or its values cannot be had, or do not fit it.
    """
    if asked.program is not None:
        from netlens.loading.checkpoints.trusted import program_as_model

        named = program_as_model(asked.program, True, asked.spec.text)
        return Valued(named.build(), named, asked.program.path.name, None)
    with seeded(seed):
        named = again(asked)(asked.args)
        random = is_random(named)
        model = built(named)
        if random and (asked.checkpoint or asked.weights):
            fresh(model)
        if asked.checkpoint is not None:
            fit = load(model, named, asked.checkpoint, again(asked))
            return Valued(model, named, asked.checkpoint.archive.path.name, False, loaded_notes(asked.checkpoint, fit))
        if asked.weights is not None:
            loaded = with_published_weights(named, progress=progress)
            return Valued(loaded.build(), loaded, str(named.weights), False, loaded.loaded)
        return Valued(model, named, _as_built(named, random, seed), random)


def again(asked: AskedModel) -> Callable[[Mapping[str, object]], NamedModel]:
    """Return what finds the same model with other arguments."""
    return lambda args: find_model(asked.spec, args, asked.weights)


def built(named: NamedModel) -> nn.Module:
    """Build the model; of the user's own object take a copy, which may be changed."""
    return deepcopy(named.build()) if named.is_instance else named.build()


def load(model: nn.Module, named: NamedModel, ask: Ask, again: Callable[[Mapping[str, object]], NamedModel]) -> Fit:
    """Load a checkpoint into `model`, in place, and return how it fits.

    Raises:
        CheckpointDoesNotFit: it is of another model.
    """
    fit = checked_fit(named, ask.archive, again, key=ask.key, strip_prefix=ask.strip_prefix, strict=ask.strict)
    load_into(model, fit, ask.archive, trust=ask.trust)
    return fit


def loaded_notes(ask: Ask, fit: Fit) -> tuple[str, ...]:
    """Return what to say about a checkpoint that was loaded."""
    return (f"{ask.archive.path.name}: {fit.coverage()}", *left_as_built(fit), *fit.notes)


def _as_built(named: NamedModel, random: bool | None, seed: int) -> str:
    if random:
        return f"as initialised with seed {seed}: nothing has been learned yet"
    return f"as built by {named.origin}" if named.origin else "as built"
