"""The counting engine against hand-derived models, published counts and real runs."""

from __future__ import annotations

import pytest
import torch

import netlens
from netlens.lenses.summary.measure import measure
from netlens.lenses.summary.report import SummaryReport
from netlens.loading.subject import Inputs, Subject
from tests.lenses.summary_cases import CASES, Case

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])
REAL_RUN = {"branches_on_a_weight", "goes_through_numpy", "indexes_by_computed_scores"}  # they read values computed from weights
if TORCH < (2, 5):  # its checkpoint looks for a module `torch.meta`, and its attention knows no grouped queries
    REAL_RUN |= {"checkpoint", "checkpoint_reentrant"}
    CASES = tuple(case for case in CASES if case.name != "sdpa_grouped_queries")
NAMES = [case.name for case in CASES]
assert set(NAMES) >= REAL_RUN


def from_class(case: Case) -> SummaryReport:
    """As the command does it: the model is built without data."""

    def make(_model, device):
        from netlens.loading.subject import map_tensors
        from netlens.probing.meta import input_stand_in

        kwargs = case.kwargs()
        if device.type != "meta":
            return case.inputs(), kwargs, ()
        return map_tensors(case.inputs(), input_stand_in), map_tensors(kwargs, input_stand_in), ()

    return measure(Subject(case.name, case.build, False, lambda model: [Inputs("test", make)]))[0]


def from_instance(case: Case) -> SummaryReport:
    """As the Python function does it: a real model is given."""
    return netlens.summary(case.build(), case.inputs(), kwargs=case.kwargs())


@pytest.mark.parametrize("look", [from_class, from_instance])
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_counts_are_those_derived_by_hand(case: Case, look):
    report = look(case)

    assert report.failure is None
    assert report.run.on == ("cpu" if case.name in REAL_RUN else "meta"), report.run.why
    assert report.totals.parameters == case.parameters
    assert report.totals.macs == case.macs
    if case.output != {}:
        found = {leaf.name: leaf.shape for leaf in report.outputs}
        assert found == (case.output if isinstance(case.output, dict) else {"": case.output})
    if case.saved is not None:
        assert report.memory.saved_for_backward == case.saved
    if case.trainable is not None:
        assert report.totals.trainable == case.trainable
    if case.buffers is not None:
        assert report.totals.buffers == case.buffers
    own = {layer.path: layer.macs for layer in report.layers}
    assert {path: own[path] for path in case.own_macs} == case.own_macs
    assert {operator.name for operator in report.uncounted} >= set(case.uncounted)
    assert not [operator for operator in report.uncounted if operator.multiplies and operator.name not in case.uncounted]
