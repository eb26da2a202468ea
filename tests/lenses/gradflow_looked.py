"""What the tests of gradflow's findings share: a model is looked at as the command line does, on batches that are given."""

from __future__ import annotations

from typing import Any

from torch import nn

from netlens.findings import Finding, Severity
from netlens.lenses.gradflow.report import GradflowReport
from netlens.lenses.gradflow.rules import diagnose
from netlens.lenses.gradflow.session import Known, Session, Settings
from netlens.loading.feeding import Batch
from netlens.loading.labelled import Batches


def looked(model: nn.Module, *batches: tuple[Any, Any], fresh: bool | None = True, **settings: Any) -> GradflowReport:
    """Look at a model on batches of (arguments, labels), one after the other and again; `fresh`: nothing has been learned yet."""
    read = [Batch(x if isinstance(x, tuple) else (x,), {}, labels=labels) for x, labels in batches]
    data = Batches("tensors", lambda number: read[number % len(read)], "given", count=lambda: len(read))
    known = Known("as initialised" if fresh else "trained", fresh, "cpu")
    session = Session(model, Settings(**settings), known, lambda batch: (batch.args, batch.kwargs, batch.labels), lambda: data)
    return session.report(data)


def grave(report: GradflowReport) -> list[Finding]:
    """Return the warnings and the errors."""
    return [finding for finding in diagnose(report) if finding.severity > Severity.INFO]
