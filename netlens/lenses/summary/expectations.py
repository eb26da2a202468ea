"""Compare a report with what a CI job demands of it; `expectation_syntax` says how the demands are written."""

from __future__ import annotations

from netlens.findings import Finding, Severity
from netlens.lenses.summary.expectation_syntax import Amount, Expectations, OutputPattern, parse_expectations
from netlens.lenses.summary.report import SummaryReport, TensorLeaf
from netlens.lenses.summary.wording import counted, leaf_text, listed, sizes

__all__ = ["Expectations", "check", "parse_expectations"]


def check(report: SummaryReport, expectations: Expectations) -> tuple[Finding, ...]:
    """Compare the report with everything that is demanded; never stops at the first finding."""
    return (
        *_check_outputs(report, expectations.output),
        *_check_params(report.totals.parameters, expectations.params),
        *_check_limits(report, expectations),
    )


def _check_outputs(report: SummaryReport, patterns: tuple[OutputPattern, ...]) -> list[Finding]:
    leaves = report.outputs
    if not patterns or (len(patterns) == 1 and patterns[0].text == "?"):
        return []
    if reason := _why_partial(report) or ("" if leaves else "the model returned no tensor"):
        return [_output_finding("output", f"the output is unknown: {reason}", "unknown", _texts(patterns))]
    if patterns[0].name:
        return [finding for pattern in patterns for finding in _check_named(pattern, leaves)]
    if len(patterns) != len(leaves):
        return [_wrong_number(patterns, leaves)]
    return [finding for pattern, leaf in zip(patterns, leaves, strict=True) for finding in _check_leaf(pattern, leaf)]


def _check_named(pattern: OutputPattern, leaves: tuple[TensorLeaf, ...]) -> list[Finding]:
    """A name means the leaf of that name, else every leaf whose dotted name ends with it: `boxes` is `0.boxes` and `1.boxes`."""
    meant = [leaf for leaf in leaves if leaf.name == pattern.name] or [leaf for leaf in leaves if leaf.name.endswith("." + pattern.name)]
    if not meant:
        bare = len(leaves) == 1 and not leaves[0].name
        remedy = "the output is one tensor without a name: leave the name out" if bare else f"it has {_leaves(leaves)}"
        return [_output_finding("output", f"the output has no tensor named {pattern.name!r}", _leaves(leaves), pattern.text, remedy)]
    return [finding for leaf in meant for finding in _check_leaf(pattern, leaf)]


def _wrong_number(patterns: tuple[OutputPattern, ...], leaves: tuple[TensorLeaf, ...]) -> Finding:
    first = next((leaf.name for leaf in leaves if leaf.name), "0")
    return _output_finding(
        "output",
        f"the output has {counted(len(leaves), 'tensor')}, expected {len(patterns)}",
        _leaves(leaves),
        _texts(patterns),
        f"name the tensor (--expect-output {first}={patterns[0].text}), or give one --expect-output for each in order ('?' skips one)",
    )


def _check_leaf(pattern: OutputPattern, leaf: TensorLeaf) -> list[Finding]:
    problems = []
    if pattern.shape is not None and not fits(pattern.shape, leaf.shape):
        problems.append(_difference(pattern.shape, leaf.shape))
    if pattern.dtype and pattern.dtype != leaf.dtype:
        problems.append(f"the dtype is {leaf.dtype}, expected {pattern.dtype}")
    if not problems:
        return []
    shown = f"{sizes(leaf.shape)} {leaf.dtype}"
    name = f"output {leaf.name!r}" if leaf.name else "the output"
    message = f"{name} is {shown}: {'; '.join(problems)}"
    remedy = "if the change is intended, change --expect-output"
    return [_output_finding(f"output.{leaf.name}".rstrip("."), message, shown, pattern.text, remedy)]


def fits(wanted: tuple[int | str, ...], shape: tuple[int, ...]) -> bool:
    """Whether a shape has the wanted sizes, `*` standing for any size and `...` for any number of dimensions, none included."""
    if "..." in wanted:
        head = wanted.index("...")
        missing = len(shape) - (len(wanted) - 1)
        if missing < 0:
            return False
        wanted = (*wanted[:head], *["*"] * missing, *wanted[head + 1 :])
    return len(wanted) == len(shape) and all(want in ("*", size) for want, size in zip(wanted, shape, strict=True))


def _difference(wanted: tuple[int | str, ...], shape: tuple[int, ...]) -> str:
    if "..." in wanted or len(wanted) != len(shape):
        return f"expected {','.join(map(str, wanted)) or '()'}"
    return "; ".join(
        f"dimension {i} is {size}, expected {want}"
        for i, (want, size) in enumerate(zip(wanted, shape, strict=True))
        if want not in ("*", size)
    )


def check_weights(parameters: int, size: int, expectations: Expectations) -> tuple[Finding, ...]:
    """Compare weights without a model with what is demanded of their number and size in bytes."""
    limits = (
        _check_limit("max-params", expectations.max_params, parameters, "{} parameters", ""),
        _check_limit("max-size", expectations.max_size, size, "{} bytes of parameters and buffers", ""),
    )
    return (*_check_params(parameters, expectations.params, "the checkpoint"), *filter(None, limits))


def _check_params(found: int, wanted: Amount | None, owner: str = "the model") -> list[Finding]:
    if wanted is None or wanted.low <= found <= wanted.high:
        return []
    if wanted.low == wanted.high:
        meant = f"{wanted.low:,}"
        gap = f"{abs(found - wanted.low):,} {'more' if found > wanted.low else 'fewer'} than expected"
    else:
        meant = f"{wanted.text}, that is {wanted.low:,} to {wanted.high:,}"
        gap = f"expected {meant}"
    message = f"{owner} has {found:,} parameters, {gap}"
    remedy = f"if the change is intended, use --expect-params {found}"
    return [Finding("expect-params", Severity.ERROR, "", message, f"{found:,}", meant, remedy)]


def _check_limits(report: SummaryReport, expectations: Expectations) -> list[Finding]:
    totals, memory = report.totals, report.memory
    macs = sum(layer.macs for layer in report.layers) if totals.macs is None else totals.macs  # those until it failed
    size = sum(memory.parameters.values()) + sum(memory.buffers.values())
    least = size + memory.inputs + 3 * memory.gradients  # gradients and Adam's two moments, without activations
    adam = least if memory.training_adam is None else memory.training_adam
    partial = _why_partial(report)
    no_memory = partial or ("what backward keeps could not be measured" if memory.training_adam is None else "")
    checks = [
        _check_limit("max-params", expectations.max_params, totals.parameters, "{} parameters", ""),
        _check_limit("max-macs", expectations.max_macs, macs, "{} multiply-adds", _why_macs(report)),
        _check_limit("max-size", expectations.max_size, size, "{} bytes of parameters and buffers", ""),
        _check_limit("max-memory", expectations.max_memory, adam, "{} bytes to train with Adam", no_memory),
    ]
    return [finding for finding in checks if finding]


def _check_limit(code: str, limit: Amount | None, found: int, what: str, why_unknown: str) -> Finding | None:
    """`found` is exact, or a lower bound where there is a reason why the whole is unknown."""
    if limit is None or (found <= limit.high and not why_unknown):
        return None
    shown = what.format(f"at least {found:,}" if why_unknown else f"{found:,}")
    allowed = f"{limit.high:,}" if limit.text == str(limit.high) else f"{limit.text} ({limit.high:,})"
    if found > limit.high:
        message = f"{shown}, at most {allowed} allowed"
        remedy = f"make the model smaller, or raise --{code}"
    else:
        message = f"unknown whether at most {allowed}: {why_unknown}"
        shown = f"unknown: {shown}"
        remedy = f"leave --{code} out, or give an input with which the whole can be measured"
    return Finding(code, Severity.ERROR, "", message, shown, allowed, remedy)


def _why_partial(report: SummaryReport) -> str:
    """Why the report covers less than a whole forward pass; "" where it covers one."""
    if report.failure:
        return f"the forward pass failed at {report.failure.path or 'the model itself'}"
    if report.run.on == "nothing":
        return f"the model was not run ({report.run.why})" if report.run.why else "the model was not run"
    return ""


def _why_macs(report: SummaryReport) -> str:
    missing = [operator.name for operator in report.uncounted if operator.multiplies]
    if missing:
        return f"no formula for {listed(missing)}"
    return _why_partial(report) or ("no multiply-adds were counted" if report.totals.macs is None else "")


def _output_finding(where: str, message: str, measured: str, wanted: str, remedy: str = "") -> Finding:
    return Finding("expect-output", Severity.ERROR, where, message, measured, wanted, remedy)


def _texts(patterns: tuple[OutputPattern, ...]) -> str:
    return " and ".join(pattern.text for pattern in patterns)


def _leaves(leaves: tuple[TensorLeaf, ...]) -> str:
    return listed([leaf_text(leaf, dtype=False) for leaf in leaves])
