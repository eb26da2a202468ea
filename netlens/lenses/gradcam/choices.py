"""What a user may choose, and what each method is: names and papers. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Needs = Literal["activation", "gradient", "head", "masked inputs", "ablated channels", "bias gradients", "attention gradients"]


@dataclass(frozen=True, slots=True)
class Method:
    """One way to make a map, and what has to be computed for it."""

    name: str  # of `--method`
    title: str  # as in the field: "Grad-CAM++"
    paper: str  # first author, year, arXiv number or DOI
    needs: Needs
    of_class: bool = True  # False: the map is the same whatever class is asked for
    rectified: bool = True  # the paper takes the positive part of the sum; else negative numbers are evidence against
    slow: bool = False  # a forward pass for each channel
    layered: bool = True  # made of one layer, or of several that are fused; False: of the whole network


_ALL = (
    Method("cam", "CAM", "Zhou et al. 2016, 1512.04150", "head", rectified=False),
    Method("gradcam", "Grad-CAM", "Selvaraju et al. 2017, 1610.02391", "gradient"),
    Method("gradcam++", "Grad-CAM++", "Chattopadhyay et al. 2018, 1710.11063", "gradient"),
    Method("xgradcam", "XGrad-CAM", "Fu et al. 2020, 2008.02312", "gradient"),
    Method("hirescam", "HiResCAM", "Draelos and Carin 2020, 2011.08891", "gradient", rectified=False),
    Method("layercam", "LayerCAM", "Jiang et al. 2021, 10.1109/TIP.2021.3089943", "gradient"),
    Method("finercam", "Finer-CAM", "Zhang et al. 2025, 2501.11309", "gradient"),
    Method("eigencam", "Eigen-CAM", "Muhammad and Yeasin 2020, 2008.00299", "activation", of_class=False, rectified=False),
    Method("scorecam", "Score-CAM", "Wang et al. 2020, 1910.01279", "masked inputs", slow=True),
    Method("ablationcam", "Ablation-CAM", "Desai and Ramaswamy 2020, WACV", "ablated channels", slow=True),
    Method("fullgrad", "FullGrad", "Srinivas and Fleuret 2019, 1905.00780", "bias gradients", layered=False),
    Method("legrad", "LeGrad", "Bousselham et al. 2024, 2404.03214", "attention gradients", layered=False),
)
METHODS = {method.name: method for method in _ALL}
USUAL = "gradcam"
FINER_GAMMA = 0.6  # Finer-CAM: the share of the most similar classes that is taken off (paper, section 4.1)
FINER_CLASSES = 3  # so many of them
