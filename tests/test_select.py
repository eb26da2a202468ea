"""Which layers a pattern means: `--layer` of every lens."""

from __future__ import annotations

import pytest

from netlens.errors import LayerNotFound
from netlens.loading.select import select

NAMES = ["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer10.0.conv1", "fc", "3"]
TYPES = ["Conv2d", "Conv2d", "Conv1d", "Conv2d", "Conv2d", "Linear", "NonLinear"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["conv1"], [0]),  # a whole name comes before the ends of others
        (["conv2"], [2]),
        (["0.conv1"], [1, 4]),
        (["layer1"], [1, 2, 3]),  # up to a dot: not layer10
        (["layer1.*"], [1, 2, 3]),
        (["layer?.0.conv1"], [1]),
        (["*conv1"], [0, 1, 3, 4]),
        (["0"], [0]),
        (["-1"], [6]),
        (["3"], [3]),  # the index, though a layer is called "3"
        (["3:5"], [3, 4]),
        (["5:"], [5, 6]),
        ([":2"], [0, 1]),
        (["-2:"], [5, 6]),
        (["4:99"], [4, 5, 6]),
        (["Conv2d"], [0, 1, 3, 4]),
        (["Conv*"], [0, 1, 2, 3, 4]),
        (["Linear"], [5]),
        (["fc", "conv1", "0", "fc"], [0, 5]),  # in the order of the model, each once
        (["*"], [0, 1, 2, 3, 4, 5, 6]),
        ([], []),
    ],
)
def test_a_pattern_means_these_layers(patterns, expected):
    assert select(patterns, NAMES, TYPES) == expected


@pytest.mark.parametrize(
    ("pattern", "message", "hint"),
    [
        ("layer1.0.conv3", "no layer named 'layer1.0.conv3'", "did you mean 'layer1.0.conv"),
        ("conv2d", "no layer named 'conv2d'", "did you mean 'Conv2d'?"),
        ("Conv-1", "no layer named 'Conv-1'", "did you mean 'conv1'?"),
        ("attention", "no layer named 'attention'", "there are 7 layers, from 'conv1' to '3'"),
        ("zzz*", "no layer named 'zzz*'", "there are 7 layers, from 'conv1' to '3'"),
        ("", "no layer named ''", "there are 7 layers, from 'conv1' to '3'"),
        ("7", "no layer has the index 7", "indices go from 0 to 6, or from -7 to -1"),
        ("-8", "no layer has the index -8", "indices go from 0 to 6, or from -7 to -1"),
        ("9:12", "no layer has the index 9:12", "indices go from 0 to 6, or from -7 to -1"),
        ("5:5", "no layer has the index 5:5", "indices go from 0 to 6, or from -7 to -1"),
    ],
)
def test_a_pattern_that_means_nothing_says_what_there_is(pattern, message, hint):
    with pytest.raises(LayerNotFound) as raised:
        select(["fc", pattern], NAMES, TYPES)
    assert (raised.value.message, raised.value.hint[: len(hint)]) == (message, hint)


def test_a_model_without_layers_says_so():
    with pytest.raises(LayerNotFound, match="there are no layers to choose from"):
        select(["conv1"], [], [])
