"""What a function does with its `**kwargs`, read from its source."""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType

# torchvision's builders write what the weights ask for into their kwargs with these; they take nothing out.
WRITERS = ("_ovewrite_named_param", "_ovewrite_value_param")


def call_signature(target: Callable[..., object]) -> inspect.Signature | None:
    """Return the signature of a callable, or None for one that is written in C."""
    try:
        return inspect.signature(target)
    except (ValueError, TypeError):
        return None


def kwargs_reader(target: object, kwargs: str) -> KwargsReader | None:
    """Find the Python source that receives `**kwargs`: of the function, or of the `__init__` that the class uses."""
    owner: type | None = None
    if isinstance(target, type):
        owner = next((cls for cls in target.__mro__ if "__init__" in vars(cls)), None)
        function = vars(owner).get("__init__") if owner else None
    else:
        function = getattr(target, "__func__", target)
        owner = getattr(target, "__self__", None) if isinstance(getattr(target, "__self__", None), type) else None
    function = inspect.unwrap(function) if callable(function) else None
    if not isinstance(function, FunctionType):
        return None
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None
    named = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == function.__name__)
    body = next(named, None)
    return None if body is None else KwargsReader(body, function, kwargs, owner, target if isinstance(target, type) else owner)


@dataclass
class KwargsReader:
    """What the body of one function does with its `**kwargs`."""

    body: ast.FunctionDef
    function: FunctionType
    kwargs: str
    owner: type | None  # the class whose method this is
    instance: type | None  # the class that is built, which decides what super() means

    def picked(self) -> Iterator[str]:
        """Yield names that are taken out by hand: `kwargs.pop("backend", None)`."""
        for node in self._nodes():
            if isinstance(node, ast.Subscript) and self._is_kwargs(node.value) and isinstance(node.ctx, ast.Load):
                yield from _text(node.slice)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and self._is_kwargs(node.func.value) and node.args:
                yield from _text(node.args[0])

    def receivers(self) -> Iterator[tuple[object, set[str]]]:
        """Yield what is called with `**kwargs`, and the names that it gets from elsewhere in that call."""
        for node in self._nodes():
            if isinstance(node, ast.Call) and any(k.arg is None and self._is_kwargs(k.value) for k in node.keywords):
                callee = self._resolve(node.func)
                given = {keyword.arg for keyword in node.keywords if keyword.arg}
                yield callee, given | _positional(callee, node.args)

    def escapes(self) -> bool:
        """Whether kwargs are used in a way that does not show which names matter: `self.options = kwargs`."""
        harmless = {id(use) for node in self._nodes() for use in self._harmless(node)}
        reads = (node for node in self._nodes() if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))
        return any(node.id == self.kwargs and id(node) not in harmless for node in reads)

    def _harmless(self, node: ast.AST) -> Iterator[ast.AST]:
        """Yield the uses of kwargs inside `node` that are understood."""
        if isinstance(node, ast.Call):
            yield from (keyword.value for keyword in node.keywords if keyword.arg is None)
            if isinstance(node.func, ast.Name) and node.func.id in WRITERS:
                yield from node.args
            if isinstance(node.func, ast.Attribute) and node.func.attr in ("pop", "get", "setdefault", "update"):
                yield node.func.value
        elif isinstance(node, ast.Subscript):  # kwargs["width"]
            yield node.value
        elif isinstance(node, ast.Compare):  # "width" in kwargs
            yield from node.comparators
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            yield from self._rebuilt(node)

    def _rebuilt(self, node: ast.Assign | ast.AnnAssign) -> Iterator[ast.AST]:
        """Yield kwargs in `kwargs = {**defaults, **kwargs}`."""
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if isinstance(node.value, ast.Dict) and all(self._is_kwargs(target) for target in targets):
            yield from (value for key, value in zip(node.value.keys, node.value.values, strict=True) if key is None)

    def _nodes(self) -> Iterator[ast.AST]:
        for statement in self.body.body:
            yield from ast.walk(statement)

    def _is_kwargs(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Name) and node.id == self.kwargs

    def _resolve(self, node: ast.expr) -> object:
        """Return the object that an expression like `models.ResNet` or `super().__init__` stands for; None if it cannot be told."""
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name) and node.value.func.id == "super":
                return self._parent() if node.attr == "__init__" else None
            return getattr(self._resolve(node.value), node.attr, None)
        if not isinstance(node, ast.Name):
            return None
        if node.id == "cls" and self.owner is not None:
            return self.owner
        if node.id in self.function.__code__.co_varnames:
            return None  # a local variable
        outer = inspect.getclosurevars(self.function).nonlocals
        return outer.get(node.id, self.function.__globals__.get(node.id, getattr(builtins, node.id, None)))

    def _parent(self) -> object:
        if self.owner is None or self.instance is None:
            return None
        order = self.instance.__mro__
        after = order[order.index(self.owner) + 1 :]
        return next((cls for cls in after if "__init__" in vars(cls)), None)


def _text(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def _positional(callee: object, arguments: list[ast.expr]) -> set[str]:
    """Return the names of the parameters that positional arguments fill."""
    signature = call_signature(callee) if callable(callee) else None
    if signature is None or any(isinstance(argument, ast.Starred) for argument in arguments):
        return set()
    return {p.name for p in list(signature.parameters.values())[: len(arguments)]}
