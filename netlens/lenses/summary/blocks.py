"""What stands around a summary's table: lines of plain text, the same in the terminal, in Markdown and in HTML."""

from __future__ import annotations

from netlens.drawing.escapes import GLUE
from netlens.drawing.facts import Fact
from netlens.drawing.numbers import byte_size, compact, exact, seconds, shape
from netlens.drawing.tables import Cell, Column, Sheet
from netlens.lenses.summary.report import Memory, Operator, SummaryReport, TensorLeaf
from netlens.lenses.summary.rows import Plan

_MOST_LEAVES = 6
_MOST_OPERATORS = 12
_MANY_ROWS = 200


def title_line(report: SummaryReport, title: str) -> str:
    """Say what was looked at, and how: "resnet18 · ResNet · meta device, eval mode"."""
    names = dict.fromkeys(name for name in (title, report.model) if name)
    return " · ".join([*names, _how(report)])


def shape_line(report: SummaryReport) -> str:
    """Say what went in, who said so, and what came out."""
    source = f" ({report.input_source})" if report.input_source else ""
    given = f"input {_tensors(report.inputs)}{source}" if report.inputs else "no input"
    return given + (f" → output {_tensors(report.outputs)}" if report.outputs else "")


def legend(report: SummaryReport, plan: Plan, hidden: list[str], rounded: bool, width: int | None) -> list[str]:
    """Explain the signs in this table, and only those, and say what is not shown."""
    layers = [row for row in plan.rows if row.kind != "rest"]
    signs = {
        "Σ: sum of the rows below it; all other rows add up to the total": any(row.expanded for row in layers),
        "×N after a name: N equal layers in one row; it and the rows below it are their sums": any(row.folded > 1 for row in layers),
        "= x: the same tensor as x, counted there": any(row.node.layer.tied and not row.expanded for row in layers),
        "×N at the end: ran N times": any(row.node.layer.times > 1 for row in layers),
        f"depth {plan.depth} of {plan.deepest} shown; --depth all shows all": plan.depth < plan.deepest,
        f"{exact(len(plan.rows))} rows; --top 20 lists the largest layers": len(plan.rows) > _MANY_ROWS and not plan.flat,
        f"{_reduced(hidden)} to fit {width} columns; a wider terminal or a pipe shows all": rounded,
    }
    return [text for text, applies in signs.items() if applies]


def totals(report: SummaryReport) -> list[Fact]:
    """State the totals of the whole model."""
    facts = [Fact("parameters", _parameters(report)), Fact("weights", _weights(report.memory))]
    if report.totals.macs is not None:
        facts.insert(1, Fact("MACs", _macs(report)))
    return [*facts, *_activations(report), *_training(report.memory), *_time(report)]


def failure(report: SummaryReport) -> tuple[str, list[Fact]] | None:
    """Tell where the forward pass raised, and what would help."""
    failed = report.failure
    if failed is None:
        return None
    where = f"layer {failed.path} ({failed.type})" if failed.path else f"the model's own forward ({failed.type})"
    expected = [Fact("got", failed.got), Fact("expects", failed.expects), Fact("input from", failed.producer)]
    facts = [*expected, Fact("at", failed.source), Fact("error", failed.message), Fact("try", failed.remedy)]
    return f"✗ {where} failed", [fact for fact in facts if fact.text]


def uncounted(report: SummaryReport) -> tuple[str, Sheet] | None:
    """List the operators that no formula counts, those that multiply first."""
    found = sorted(report.uncounted, key=lambda operator: (not operator.multiplies, -operator.output_bytes))
    if not found:
        return None
    bound = "; the MACs are a lower bound" if any(operator.multiplies for operator in found) else ""
    columns = (
        Column("operator"),
        Column("times", right=True),
        Column("output", right=True),
        Column("multiplies"),
        Column("in", shortest=16),
    )
    rows = [_operator_row(operator) for operator in found[:_MOST_OPERATORS]]
    if len(found) > _MOST_OPERATORS:
        rows.append([Cell(f"and {len(found) - _MOST_OPERATORS} more"), *[Cell("")] * 4])
    return f"operators without a formula for multiply-adds{bound}", Sheet(columns, rows)


def _reduced(hidden: list[str]) -> str:
    return f"rounded, and {', '.join(hidden)} hidden," if hidden else "rounded"


def _operator_row(operator: Operator) -> list[Cell]:
    where = ", ".join(path or "the model" for path in operator.layers)
    fields = operator.name, exact(operator.times), byte_size(operator.output_bytes), "yes" if operator.multiplies else "no", where
    return [Cell(field) for field in fields]


def _how(report: SummaryReport) -> str:
    why = f" ({report.run.why})" if report.run.why else ""
    if report.run.on == "nothing":
        return f"not run, parameters only{why}"
    return f"{report.run.on} device, {report.run.mode} mode{why}"


def _tensors(found: tuple[TensorLeaf, ...]) -> str:
    texts = [f"{leaf.name} {shape(leaf.shape)} {leaf.dtype}".strip() for leaf in found[:_MOST_LEAVES]]
    more = f" and {len(found) - _MOST_LEAVES} more" if len(found) > _MOST_LEAVES else ""
    return ", ".join(texts) + more


def _parameters(report: SummaryReport) -> str:
    totals = report.totals
    frozen = totals.parameters - totals.trainable
    split = "all trainable" if not frozen else f"trainable {exact(totals.trainable)}, frozen {exact(frozen)}"
    parts = [
        exact(totals.parameters),
        *([split] if totals.parameters else []),
        *([f"buffers {exact(totals.buffers)}"] if totals.buffers else []),
    ]
    return " · ".join(parts)


def _macs(report: SummaryReport) -> str:
    macs = report.totals.macs or 0
    bound = "at least " if any(operator.multiplies for operator in report.uncounted) else ""
    rounded = f" ({_glued(compact(macs))})" if macs >= 10_000 else ""
    flops = f" · FLOPs = 2{GLUE}×{GLUE}MACs = {exact(2 * macs)}"
    return f"{bound}{exact(macs)}{rounded}{flops}{' · until the failure' if report.failure else ''}"


def _weights(memory: Memory) -> str:
    parts = [f"{name} {_by_dtype(sizes)}" for name, sizes in (("parameters", memory.parameters), ("buffers", memory.buffers)) if sizes]
    whole = sum(memory.parameters.values()) + sum(memory.buffers.values())
    return f"{_size(whole)}" + (f" = {' + '.join(parts)}" if parts else "")


def _by_dtype(sizes: dict[str, int]) -> str:
    return " and ".join(f"{_size(size)} {dtype}" for dtype, size in sizes.items())


def _activations(report: SummaryReport) -> list[Fact]:
    facts, memory = [], report.memory
    if memory.activations is not None:
        peak = f", at most {_size(memory.peak_activations)} at once" if memory.peak_activations is not None else ""
        facts.append(
            Fact(
                "activations", f"{_size(memory.activations)} made {'until the failure' if report.failure else 'by one forward pass'}{peak}"
            )
        )
    if memory.saved_for_backward is not None:
        mode = f" ({memory.saved_mode} mode)" if memory.saved_mode else ""
        facts.append(Fact("saved", f"{_size(memory.saved_for_backward)} kept for backward{mode}"))
    return facts


def _training(memory: Memory) -> list[Fact]:
    if memory.training_sgd is None or memory.training_adam is None or memory.saved_for_backward is None:
        return []
    parts = {
        "weights": sum(memory.parameters.values()) + sum(memory.buffers.values()),
        "inputs": memory.inputs,
        "gradients": memory.gradients,
        "saved": memory.saved_for_backward,
    }
    moments = _size(memory.training_adam - memory.training_sgd)
    sizes = " + ".join(f"{name} {_size(size)}" for name, size in parts.items() if size)
    return [
        Fact("SGD training", f"about {_size(memory.training_sgd)} = {sizes}"),
        Fact("Adam training", f"about {_size(memory.training_adam)} = the same + moments {moments}"),
        Fact("", "both are estimates, without workspace and fragmentation"),
    ]


def _time(report: SummaryReport) -> list[Fact]:
    if report.totals.seconds is None:
        return []
    return [Fact("time", f"{_glued(seconds(report.totals.seconds))} for one forward pass (median)")]


def _size(number: int | None) -> str:
    return _glued(byte_size(number or 0))


def _glued(text: str) -> str:
    return text.replace(" ", GLUE)
