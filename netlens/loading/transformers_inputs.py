"""What a transformers model takes, from its forward and its config. Nothing here imports transformers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from netlens.loading.input_specs import Candidate, InputSpec
from netlens.loading.tensors import forward_signature

WORDS = 128  # tokens
SAMPLES = 16000  # one second of sound
IMAGES = (224, 384, 512, 640)  # sides where the config names none


def transformers_inputs(model: nn.Module) -> Iterator[Candidate]:
    """Yield named inputs: the main one and what must go with it."""
    main, config = getattr(model, "main_input_name", None), getattr(model, "config", None)
    signature = forward_signature(model)
    if not isinstance(main, str) or config is None or signature is None:
        return
    names = set(signature.parameters)
    if main not in names:  # some classes inherit "input_ids" from their parents
        main = next((name for name in ("pixel_values", "input_values", "input_features") if name in names), main)
    source = f"{type(config).__name__}"
    for spec in _main_specs(main, config):
        companions = list(_companions(main, names, config))
        if companions:
            yield Candidate((spec, *companions), source)
        yield Candidate((spec,), source)


def _main_specs(main: str, config: Any) -> Iterator[InputSpec]:
    if main == "input_ids":
        yield _tokens(main, _part(config, "text_config"))
    elif main == "pixel_values":
        yield from (InputSpec(main, shape) for shape in _pictures(_part(config, "vision_config")))
    elif main in ("input_features", "input_values"):
        yield from (InputSpec(main, shape) for shape in _sounds(main, config))


def _companions(main: str, names: set[str], config: Any) -> Iterator[InputSpec]:
    if "decoder_input_ids" in names and getattr(config, "is_encoder_decoder", False):
        yield _tokens("decoder_input_ids", config)
    vision = getattr(config, "vision_config", None) or (config if hasattr(config, "image_size") else None)
    if main == "input_ids" and "pixel_values" in names and vision is not None:
        yield InputSpec("pixel_values", next(_pictures(vision)))
    if main == "input_ids" and "input_features" in names and hasattr(config, "audio_config"):
        yield InputSpec("input_features", next(_sounds("input_features", config.audio_config)))


def _tokens(name: str, config: Any) -> InputSpec:
    limits = [getattr(config, key, None) for key in ("max_position_embeddings", "n_positions", "max_target_positions")]
    length = min([WORDS, *(limit for limit in limits if isinstance(limit, int) and limit > 0)])
    return InputSpec(name, (1, length), "int64")


def _pictures(config: Any) -> Iterator[tuple[int, ...]]:
    channels = getattr(config, "num_channels", None) or getattr(config, "in_channels", None) or 3
    size = getattr(config, "image_size", None)
    sizes = [tuple(size) if isinstance(size, (tuple, list)) else (size, size)] if size else [(side, side) for side in IMAGES]
    frames = getattr(config, "num_frames", None)
    lead = (1, frames) if isinstance(frames, int) else (1,)
    yield from ((*lead, channels, *(int(side) for side in pair)) for pair in sizes)


def _sounds(main: str, config: Any) -> Iterator[tuple[int, ...]]:
    bins = getattr(config, "num_mel_bins", None)
    if bins and main == "input_values":  # a spectrogram of fixed length
        yield (1, int(getattr(config, "max_length", 1024)), int(bins))
    elif bins:
        positions = getattr(config, "max_source_positions", None)
        yield (1, int(bins), 2 * int(positions)) if positions else (1, WORDS, int(bins))
        yield (1, 2 * WORDS, int(bins))
    yield (1, SAMPLES)
    yield (1, 1, SAMPLES)


def _part(config: Any, name: str) -> Any:
    return getattr(config, name, None) or config
