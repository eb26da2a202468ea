"""Who is measured, and how each is called: netlens as its command, the others as their documentation says."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

IMAGE = (1, 3, 224, 224)

_TORCHINFO = f"""
import torchvision
from torchinfo import summary
summary(torchvision.models.MODEL(), input_size={IMAGE})
"""
_TORCHINFO_META = f"""
import torch, torchvision
from torchinfo import summary
with torch.device("meta"):
    model = torchvision.models.MODEL()
summary(model, input_size={IMAGE}, device="meta")
"""
_FVCORE = f"""
import torch, torchvision
from fvcore.nn import FlopCountAnalysis, flop_count_table
model = torchvision.models.MODEL().eval()
print(flop_count_table(FlopCountAnalysis(model, torch.randn{IMAGE})))
"""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One column of the comparison: Python source in which MODEL is the name, or, without any, the `netlens` command."""

    name: str
    label: str
    source: str = ""
    package: str = ""  # that must be installed

    def command(self, model: str) -> list[str]:
        """Return the command line that summarises `model`."""
        if not self.source:
            return [str(netlens_script()), "summary", model, "--input", ",".join(map(str, IMAGE))]
        return [sys.executable, "-c", self.source.replace("MODEL", model)]


FLOOR, TORCH, NETLENS, TORCHINFO = "torchvision", "torch", "netlens", "torchinfo"
CONTESTANTS = {
    one.name: one
    for one in (
        Contestant(NETLENS, "netlens summary"),
        Contestant(TORCH, "import torch", "import torch"),
        Contestant(FLOOR, "import torch, torchvision", "import torch, torchvision"),
        Contestant(TORCHINFO, "torchinfo", _TORCHINFO, "torchinfo"),
        Contestant("fvcore", "fvcore", _FVCORE, "fvcore"),
        # Not in their documentation, and it does not build every model; the best that can be had by hand.
        Contestant("torchinfo-meta", "torchinfo, model on meta", _TORCHINFO_META, "torchinfo"),
    )
}
DEFAULT = (NETLENS, TORCH, FLOOR, TORCHINFO, "fvcore")

STATIC = {  # commands that answer without torch; `python` alone is what they cannot go below
    "netlens --help": ["--help"],
    "netlens --version": ["--version"],
    "netlens summary --help": ["summary", "--help"],
}


def netlens_script() -> Path:
    """Return the console script of the environment that runs this."""
    return Path(sysconfig.get_path("scripts"), "netlens")


def missing(names: Sequence[str]) -> dict[str, str]:
    """Return those that cannot run, each with the command that installs it."""
    found = {}
    for name in names:
        package = CONTESTANTS[name].package
        if name == NETLENS and not netlens_script().exists():
            found[name] = "pip install --editable ."
        elif package and find_spec(package) is None:
            found[name] = "pip install 'torchinfo==1.8.0'" if package == "torchinfo" else f"pip install {package}"
    return found
