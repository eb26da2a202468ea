"""The user's own training step: called as it is, and watched. It trains the user's model; nothing of that is undone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from netlens.errors import ForwardFailed, InputError, NetlensError
from netlens.lenses.gradflow.backward import Unmeasured
from netlens.lenses.gradflow.measure import Measured
from netlens.lenses.gradflow.report import LayerFlow, Rank, Stepping
from netlens.lenses.gradflow.stepnames import Names
from netlens.lenses.gradflow.stepnumbers import Numbers, Seen, loss_of
from netlens.lenses.gradflow.steprows import in_order, layer_rows, parameter_rows, step_row, where_broken, without_top
from netlens.lenses.gradflow.stepwatch import Watch
from netlens.loading.arguments import required_arguments
from netlens.loading.loss_labels import described
from netlens.loading.losses import own_loss
from netlens.loading.named import user_line
from netlens.loading.shortage import out_of_memory
from netlens.loading.words import cause, listed
from netlens.wording import counted, number

if TYPE_CHECKING:
    from netlens.lenses.gradflow.distributed import Processes

RETURN = "let it return the loss, a tensor of one number, without .item()"


@dataclass(frozen=True)
class Stepped:
    """What some calls of a step function showed."""

    measured: Measured  # `update` and `cosine` are filled in; `first_nonfinite` is a layer, without the operation
    optimizer: str  # "the step function's own AdamW(lr=0.001)"; "" where none stepped
    ranks: tuple[Rank, ...]  # of the first backward pass, before gradients were reduced
    stepping: Stepping | None = None


def check_step(found: Any, name: str) -> Callable[[], Any]:
    """Return a function that can be called as a training step.

    Args:
        found: what the user named.
        name: as it was typed.

    Raises:
        InputError: it is something else, or takes arguments.
    """
    if isinstance(found, nn.Module) or not callable(found):
        kind = "a model" if isinstance(found, nn.Module) else f"of type {type(found).__name__}"
        raise InputError(f"{name} is {kind}, not a function", hint="name a function that runs one training step and returns the loss")
    needed = required_arguments(found)
    if needed:
        what = f"{name} takes {listed(needed)}, and a training step is called without arguments"
        raise InputError(what, hint=f"name a function that calls it: def step(): return {getattr(found, '__name__', 'train')}(...)")
    checked: Callable[[], Any] = found
    return checked


def measured_steps(
    step: Callable[[], Any],
    name: str,
    *,
    steps: int = 1,
    processes: Processes | None = None,
    done: Callable[[], object] = lambda: None,
) -> Stepped:
    """Call a training step some times, and measure the gradients of each call as its backward pass left them.

    A step that calls no backward gets one, and its gradients are taken away again. Of a parameter that an optimizer moves several times
    in one call, the first time counts.

    Args:
        step: the user's function, checked.
        name: for messages.
        steps: calls; none follows one that is not finite.
        processes: this one among others, each of which calls its own.
        done: called after each.

    Raises:
        NetlensError: it raises, or returns nothing of which a gradient can be taken.
    """
    ranks: list[Rank] = []

    def own(parameters: Sequence[Any], gradients: list[Tensor]) -> None:
        if processes is not None:
            ranks.extend(processes.ranks(torch.nan, gradients, parameters))

    watch = Watch(Names(step), processes or Numbers(), None if processes is None else own, cosines=steps > 1)
    history: list[_Call] = []
    for index in range(steps):
        with torch.inference_mode(False), torch.enable_grad(), watch.watching() as seen:
            result = _called(step, name)
            passive = _differentiated(result, seen, name, watch)
        call = _Call(seen, loss_of(seen, result), layer_rows(seen), passive)
        if processes is not None:
            every = processes.gathered((call.loss, max(1, seen.samples)))
            if index == 0:
                ranks[:] = [replace(rank, loss=value) for rank, (value, _) in zip(ranks, every, strict=True)]
            loss = sum(value * count for value, count in every) / sum(count for _, count in every)
            call = replace(call, loss=loss, layers=processes.layers(call.layers, max(1, seen.samples)))
        history.append(call)
        done()
        if call.broken:
            break
    return _stepped(watch, history, name, tuple(ranks))


@dataclass(frozen=True)
class _Call:
    """One call of the step function."""

    seen: Seen
    loss: float
    layers: tuple[LayerFlow, ...]
    passive: bool  # it called no backward

    @property
    def broken(self) -> bool:
        """Whether anything is not finite that no GradScaler takes care of."""
        found: list[Any] = [*self.seen.gradients.values(), *self.layers] if self.seen.scale == 1 else []
        return not isfinite(self.loss) or any(each.nan or each.infinite for each in found)


def _called(step: Callable[[], Any], name: str) -> Any:
    try:
        with redirect_stdout(sys.stderr):  # stdout is for the report
            return step()
    except (Exception, SystemExit) as error:
        if isinstance(error, (NetlensError, Unmeasured)) or out_of_memory(error):
            raise
        line = user_line(error)
        what = f"{name} raised {cause(error)}{f' ({line})' if line else ''}"
        raise ForwardFailed(what, hint="let it run on its own first; --traceback shows the way there") from error


def _differentiated(result: Any, seen: Seen, name: str, watch: Watch) -> bool:
    """Take the gradients of the loss that the step returned, where it has not done so itself; tell whether that was so."""
    if seen.backwards:
        return False
    loss = result
    if not isinstance(result, Tensor) and (found := own_loss(result)) is not None:
        loss = found[1]
    if isinstance(loss, (int, float)):
        raise InputError(f"{name} returned a {type(loss).__name__}, of which no gradient can be taken", hint=RETURN)
    if not isinstance(loss, Tensor):
        kind = "nothing" if loss is None else f"an object of type {type(loss).__name__}"
        raise InputError(f"{name} called no backward and returned {kind}, so there is no loss", hint=RETURN)
    if loss.numel() != 1 or not loss.is_floating_point():
        raise InputError(f"{name} returned {described(loss)}, which is no loss", hint=f"{RETURN}; several numbers have a .mean()")
    if not loss.requires_grad:
        what = f"{name} returned a loss that depends on no parameter that requires a gradient"
        raise InputError(what, hint="look for detach(), torch.no_grad(), .item() and requires_grad_(False) on the way to it")
    try:
        watch.differentiate(loss)
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
        what = f"{name} calls no backward, and changes what the backward pass of its loss needs: {cause(error)}"
        raise InputError(what, hint="call loss.backward() before optimizer.step()") from error
    return True


def _stepped(watch: Watch, history: Sequence[_Call], name: str, ranks: tuple[Rank, ...]) -> Stepped:
    last = history[-1]
    order, tops = in_order(watch.order, last.seen), list(watch.tops)
    if any(call.seen.rebuilt for call in history):  # of models of earlier calls nothing is left to tell
        tops = [top for top in tops if any(known.top == top and id(known.tensor) in last.seen.gradients for known in order)]
        order = [known for known in order if known.top in tops or id(known.tensor) in last.seen.gradients]
    rows = parameter_rows(order, last.seen, watch.held, watch.cosines, tops)
    layers = tuple(replace(row, name=without_top(row.name, tops)) for row in last.layers)
    first = where_broken(last.seen, last.loss, layers, rows) if last.broken else None
    taken = tuple(step_row(order, call.seen, call.loss) for call in history)
    rates = {kind: rate for call in history for kind, rate in call.seen.rates.items()}
    kinds = [f"{kind}(lr={rate:.3g})" for kind, rate in rates.items()]
    measured = Measured(rows, layers, taken, first, max(call.seen.samples for call in history), tuple(_notes(watch, history, name)))
    optimizer = f"the step function's own {listed(kinds)}" if kinds else ""
    return Stepped(measured, optimizer, ranks, _stepping(watch, history, tuple(rates.values())))


def _stepping(watch: Watch, history: Sequence[_Call], rates: tuple[float, ...]) -> Stepping:
    idle = [call for call in history if not call.seen.stepped]
    clipped = [call.seen.clipped for call in history if call.seen.clipped]
    return Stepping(
        calls=len(history),
        passive=sum(call.passive for call in history),
        optimizer=bool(watch.held) or watch.names.optimizer,
        idle=len(idle),
        still=all(not call.seen.moved and call.seen.scale == 1 for call in idle),  # a GradScaler leaves steps out
        early=sum(call.seen.early > 0 for call in history),
        kept=sum(call.seen.left for call in history),
        cleared=sum(call.seen.cleared for call in history),
        rebuilt=sum(call.seen.rebuilt for call in history),
        clipped=clipped[-1] if clipped else None,
        rates=rates,
    )


def _notes(watch: Watch, history: Sequence[_Call], name: str) -> Iterator[str]:
    calls, last = len(history), history[-1].seen
    stepped = [sum(call.seen.stepped.values()) for call in history]
    idle = stepped.count(0)
    yield f"{name} ran {counted(calls, 'time')}: it runs your code, and what that changed stays changed"
    if any(call.passive for call in history):
        yield f"{name} calls no backward: netlens took the gradients of what it returned"
    if idle:
        yield f"no optimizer stepped in {idle} of {calls} calls" if watch.held else "no optimizer stepped" + _unmoved(history)
    if max(stepped) > 1 and len(watch.tops) < 2:
        yield f"up to {max(stepped)} optimizer steps in one call: gradients and updates are those of the first of each parameter"
    if any(len(call.seen.losses.steps) > 1 for call in history):
        yield "the loss of a call with several steps is the one that it returns, or else their mean"
    if last.scale != 1:
        yield f"the loss was scaled by {number(last.scale)}, which is divided out"
    clipped = [call.seen.clipped for call in history if call.seen.clipped]
    if clipped:
        before, after = clipped[-1]
        made = f"gradients were clipped before the optimizer in {len(clipped)} of {calls} calls, the last from a norm of {number(before)}"
        yield f"{made} to {number(after)}; statistics are of gradients as backward left them, updates as they happened"


def _unmoved(history: Sequence[_Call]) -> str:
    return "" if any(call.seen.moved for call in history) else ": the weights did not move"
