"""What tensors were called before, where no module renames them itself, and what older models still call them."""

from __future__ import annotations

import re
from collections.abc import Iterator

_OLD = (
    (re.compile(r"^(.*\.)?(\w+)_g$"), r"\1parametrizations.\2.original0"),  # torch.nn.utils.weight_norm, and what replaced it
    (re.compile(r"^(.*\.)?(\w+)_v$"), r"\1parametrizations.\2.original1"),
    (re.compile(r"^(.*\.)?parametrizations\.(\w+)\.original0$"), r"\1\2_g"),
    (re.compile(r"^(.*\.)?parametrizations\.(\w+)\.original1$"), r"\1\2_v"),
    (re.compile(r"^(.*\.)?(\w+)_orig$"), r"\1parametrizations.\2.original"),  # spectral_norm
    (re.compile(r"^(.*\.)?(\w+)_u$"), r"\1parametrizations.\2.0._u"),
    (re.compile(r"^(.*\.)?(\w+)_v$"), r"\1parametrizations.\2.0._v"),
    (re.compile(r"^(.*LayerNorm\.)gamma$"), r"\1weight"),  # BERT as converted from TensorFlow
    (re.compile(r"^(.*LayerNorm\.)beta$"), r"\1bias"),
    (re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)$"), r"\1\2"),  # torchvision's DenseNet before 0.3
)


def other_names(name: str) -> Iterator[str]:
    """Yield what a tensor of an older, or of a newer, torch is called today."""
    for pattern, replacement in _OLD:
        if pattern.match(name):
            yield pattern.sub(replacement, name)
