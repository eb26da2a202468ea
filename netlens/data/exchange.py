"""What several processes, each with a share of the files, have to tell each other; one process alone answers itself."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class Exchange(Protocol):
    """One process among `size`, with files rank, rank + size, ...; every method is called by all of them, in the same order."""

    rank: int
    size: int

    def summed(self, counts: np.ndarray) -> np.ndarray:
        """Return the sum over all processes of integers, an array of one shape in all; everyone gets it."""
        ...

    def sent(self, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """Send each row of a structured or plain array to the process that `owners` (N,) names; return those that came, by sender."""
        ...

    def gathered(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of all processes, by rank; everyone gets them."""
        ...

    def collected(self, value: Any) -> list[Any]:
        """Return the plain Python values of all processes, by rank; everyone gets them."""
        ...


class Alone:
    """The only process."""

    rank, size = 0, 1

    def summed(self, counts: np.ndarray) -> np.ndarray:
        """Return `counts`."""
        return counts

    def sent(self, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """Return `rows`."""
        return rows

    def gathered(self, rows: np.ndarray) -> np.ndarray:
        """Return `rows`."""
        return rows

    def collected(self, value: Any) -> list[Any]:
        """Return the value alone."""
        return [value]
