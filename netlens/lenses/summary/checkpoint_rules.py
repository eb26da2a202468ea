"""What is wrong with a checkpoint, or worth knowing before it is used. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from netlens.findings import Finding, Severity
from netlens.lenses.summary.checkpoint_report import CheckpointReport, Tensor, counted_once
from netlens.lenses.summary.checkpoint_words import dimensions, named, number, short
from netlens.lenses.summary.wording import counted

HALF = ("float16", "bfloat16", "float8", "float4")
FAT_SHARE = 20  # a twentieth of what is stored without being used is worth a warning
PICKLED = "pickled module"
MOST_ODDITIES = 10
TOLD = ("belong to no tensor", "incomplete")  # oddities of the reader that are findings of their own here


def diagnose(report: CheckpointReport) -> tuple[Finding, ...]:
    """Return what a reader should not overlook; a plain file of weights gives nothing."""
    return (
        *_foreign(report),
        *_runs_code(report),
        *_without_weights(report),
        *_not_finite(report),
        *_constant(report),
        *_fat(report),
        *_unreadable(report),
        *_half(report),
        *_incomplete(report),
        *_odd(report),
    )


def _foreign(report: CheckpointReport) -> Iterator[Finding]:
    names = {verdict: [name.name for name in report.foreign if name.verdict == verdict] for verdict in ("hostile", "foreign")}
    if hostile := names["hostile"]:
        yield Finding(
            "checkpoint-foreign-code",
            Severity.ERROR,
            "",
            f"looks hostile: {named(hostile)}",
            measured=f"{counted(len(hostile), 'name')} that no weights need, and that can run commands or change files",
            remedy="nothing of it was run here; never open this file with weights_only=False, and ask where it comes from",
        )
    if foreign := names["foreign"]:
        whole = f"is a whole pickled module, {short(report.model_class)}, and " if report.kind == PICKLED else ""
        yield Finding(
            "checkpoint-foreign-code",
            Severity.WARNING,
            "",
            f"it {whole}names classes or functions that only run with their own package: {named(foreign)}",
            measured=counted(len(foreign), "name"),
            remedy="none was imported or run; its tensors are read without them, and can be loaded into a model: --checkpoint",
        )


def _runs_code(report: CheckpointReport) -> Iterator[Finding]:
    """Say what opening it would run, unless the names in it have said so."""
    if not report.runs_code or any(name.verdict != "known" for name in report.foreign):
        return
    if report.kind == PICKLED:
        yield Finding(
            "checkpoint-runs-code",
            Severity.WARNING,
            "",
            f"it is a whole pickled module, {short(report.model_class)}: torch would run its class to open it",
            remedy="it was not run, only its tensors were looked at; they can be loaded into a model: --checkpoint",
        )
    else:
        yield Finding(
            "checkpoint-runs-code",
            Severity.WARNING,
            "",
            f"its own loader would run {short(report.runs_code, 200)}; only its tensors were looked at here",
            remedy="open it as a program only if you trust where it comes from",
        )


def _without_weights(report: CheckpointReport) -> Iterator[Finding]:
    roles = {group.role for group in report.groups if group.tensors}
    if roles == {"optimizer"}:
        yield Finding(
            "checkpoint-optimizer-only",
            Severity.WARNING,
            "",
            "it holds the state of an optimizer, and no weights",
            measured=counted(sum(len(group.tensors) for group in report.groups), "tensor"),
            remedy="the weights are in another file",
        )
    elif not roles:
        yield Finding(
            "checkpoint-no-tensors", Severity.WARNING, "", "it holds no tensors at all", remedy="check that the right object was saved"
        )


def _not_finite(report: CheckpointReport) -> Iterator[Finding]:
    found = [tensor for tensor in _once(report) if tensor.values is not None and tensor.values.nan + tensor.values.infinite]
    if not found:
        return
    nan = sum(tensor.values.nan for tensor in found if tensor.values is not None)
    infinite = sum(tensor.values.infinite for tensor in found if tensor.values is not None)
    yield Finding(
        "checkpoint-values-nonfinite",
        Severity.ERROR,
        short(found[0].name),
        f"{counted(len(found), 'tensor')} with elements that are not finite: {named((tensor.name for tensor in found[:10]), len(found))}",
        measured=f"{nan:,} nan and {infinite:,} infinite",
        threshold="0",
        remedy="training diverged before it was saved: go back to an earlier checkpoint",
    )


def _constant(report: CheckpointReport) -> Iterator[Finding]:
    """Weights of several dimensions that are all the same say that something was never trained; biases of zero are normal."""
    found = [tensor for tensor in _once(report, "weights", "ema") if tensor.constant and len(tensor.shape) > 1]
    if found:
        values = {number(tensor.values.minimum) for tensor in found if tensor.values is not None}
        what = f"all {values.pop()}" if len(values) == 1 else "constant"
        yield Finding(
            "checkpoint-values-constant",
            Severity.INFO,
            short(found[0].name),
            f"{counted(len(found), 'tensor')} of two or more dimensions {'is' if len(found) == 1 else 'are'} {what}: "
            f"{named((tensor.name for tensor in found[:10]), len(found))}",
            remedy="normal where a layer starts from zero on purpose; otherwise it was never trained",
        )


def _fat(report: CheckpointReport) -> Iterator[Finding]:
    fat = report.storages.fat
    wasted = sum(storage.bytes - storage.used for storage in fat)
    if wasted * FAT_SHARE < report.storages.bytes or not wasted:
        return
    first = fat[0]
    yield Finding(
        "checkpoint-fat-view",
        Severity.WARNING,
        short(first.tensors[0]),
        f"the file holds {wasted:,} bytes that belong to no tensor: {named((storage.tensors[0] for storage in fat), len(fat))} "
        f"{'is a view' if len(fat) == 1 else 'are views'} of something larger",
        measured=f"{first.used:,} of {first.bytes:,} bytes used by {short(first.tensors[0], 60)}",
        remedy="save a copy of its own: tensor.clone() before torch.save",
    )


def _unreadable(report: CheckpointReport) -> Iterator[Finding]:
    found = [tensor for tensor in _once(report) if tensor.unreadable]
    if found:
        reasons = list(dict.fromkeys(tensor.unreadable for tensor in found))
        yield Finding(
            "checkpoint-unreadable",
            Severity.WARNING,
            short(found[0].name),
            f"{counted(len(found), 'tensor')} cannot be read as plain numbers: {named((tensor.name for tensor in found[:10]), len(found))}",
            measured=named(reasons),
            remedy="names, shapes and types are known all the same; their values only to the package that wrote them, if they are whole",
        )


def _half(report: CheckpointReport) -> Iterator[Finding]:
    sizes = {dtype: size for group in report.of_role("weights") for dtype, size in group.dtypes.items() if dtype.startswith(HALF)}
    if sizes:
        yield Finding(
            "checkpoint-half-precision",
            Severity.INFO,
            "",
            f"weights are stored in {named(sizes)}",
            remedy="loading them into a float32 model converts them; what was rounded away does not come back",
        )


def _incomplete(report: CheckpointReport) -> Iterator[Finding]:
    if not report.complete:
        yield Finding(
            "checkpoint-incomplete",
            Severity.WARNING,
            "",
            "it holds more than netlens follows: some tensors are not listed, and sums are lower bounds",
            remedy="save the weights alone, as a state dict or as safetensors",
        )


def _odd(report: CheckpointReport) -> Iterator[Finding]:
    oddities = [text for text in report.oddities if not any(words in text for words in TOLD)]
    oddities += [*_same_but_for_case(report), *_expanded(report), *_strided(report)]
    for text in oddities[:MOST_ODDITIES]:
        yield Finding("checkpoint-odd", Severity.INFO, "", short(text, 300))
    if len(oddities) > MOST_ODDITIES:
        yield Finding("checkpoint-odd", Severity.INFO, "", f"and {len(oddities) - MOST_ODDITIES:,} more oddities")


def _same_but_for_case(report: CheckpointReport) -> Iterator[str]:
    for group in report.groups:
        seen: dict[str, str] = {}
        twins = []
        for tensor in group.tensors:
            other = seen.setdefault(tensor.name.lower(), tensor.name)
            if other != tensor.name:
                twins.append(f"{short(other, 60)} and {short(tensor.name, 60)}")
        if twins:
            yield f"names that differ only in case: {named(twins)}"


def _expanded(report: CheckpointReport) -> Iterator[str]:
    told = "\n".join(report.oddities)
    found = [tensor for tensor in _once(report) if tensor.layout == "expanded" and tensor.name not in told]
    if found:
        yield f"{_are(found, 'expanded')}: elements share memory, so the file holds fewer than the shape says: {_with_shapes(found)}"


def _strided(report: CheckpointReport) -> Iterator[str]:
    found = [tensor for tensor in _once(report) if tensor.layout in ("strided", "permuted", "channels_last")]
    if found:
        yield f"{_are(found, 'not contiguous')}: {_with_shapes(found)}"


def _are(found: Sequence[Tensor], what: str) -> str:
    return f"{counted(len(found), 'tensor')} {'is' if len(found) == 1 else 'are'} {what}"


def _with_shapes(found: Sequence[Tensor]) -> str:
    return named((f"{short(tensor.name, 60)} ({dimensions(tensor.shape)})" for tensor in found[:10]), len(found))


def _once(report: CheckpointReport, *roles: str) -> Iterator[Tensor]:
    for group in report.of_role(*roles) if roles else report.groups:
        yield from counted_once(group.tensors)
