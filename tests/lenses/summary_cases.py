"""All hand-derived cases: small models whose parameters, MACs, shapes and memory were derived on paper, not by netlens."""

from __future__ import annotations

from tests.lenses.summary_case import Case
from tests.lenses.summary_cases_attention import ATTENTION
from tests.lenses.summary_cases_layers import LAYERS
from tests.lenses.summary_cases_memory import MEMORY
from tests.lenses.summary_cases_ownership import OWNERSHIP
from tests.lenses.summary_cases_structures import STRUCTURES

CASES: tuple[Case, ...] = LAYERS + ATTENTION + OWNERSHIP + STRUCTURES + MEMORY

__all__ = ["CASES", "Case"]
