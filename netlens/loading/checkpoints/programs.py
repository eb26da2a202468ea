"""Programs written by torch.export.save: their tensors, and whether opening the file with torch would run more than the graph."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from netlens.loading.checkpoints.archive import ForeignGlobal, StoredTensor, TensorGroup
from netlens.loading.checkpoints.describe import runs
from netlens.loading.checkpoints.dtypes import EXPORTED, ITEMSIZES
from netlens.loading.checkpoints.files import in_memory
from netlens.loading.checkpoints.machine import Damaged, Patience
from netlens.loading.checkpoints.modules import text
from netlens.loading.checkpoints.pickles import Pickled, read_pickle
from netlens.loading.checkpoints.rebuild import NotAsExpected, dimensions
from netlens.loading.checkpoints.safetensors import parsed
from netlens.loading.checkpoints.stubs import Global, Storage, Tensor
from netlens.loading.checkpoints.tensors import stored
from netlens.loading.checkpoints.unwrap import entries
from netlens.loading.checkpoints.verdicts import foreign
from netlens.loading.checkpoints.zips import Zip, open_zip, place_storages

CONFIG = re.compile(r"data/(weights|constants)/(.+)_(?:weights|constants)_config\.json$")
WHOLE = re.compile(r"(?:data/(weights|constants|sample_inputs)/(.+)|serialized_(state_dict|constants|example_inputs))\.pt$")
GRAPH = re.compile(r"(models/.+|serialized_exported_program)\.json$")
LARGEST_JSON = 32 << 20

# A formula: names of symbols, of sympy's classes (which begin with a capital) and of assumptions; what size() and stride() give.
WORD = re.compile(r"[^\W\d]\w*")
TEXT = re.compile(r"'[\w .\[\]-]*'")
FORMULA_WORD = re.compile(
    r"([suzft]|zuf)\d+|[A-Z]\w*|positive|integer|nonnegative|negative|nonpositive|real|finite|infinite|nonzero|zero|even|odd|commutative|"
    r"extended_\w+|rational|complex|hermitian|size|stride|storage_offset|oo|int_oo|not|and|or|is|in|if|else|torch|sym_\w+|math|floor|ceil|sqrt"
)
CODE_WORD = re.compile(r"[A-Z]\w*(eval|exec)\w*|torch", re.IGNORECASE)


@dataclass(slots=True)
class Program:
    """What a .pt2 file lists."""

    groups: list[TensorGroup] = field(default_factory=list)
    foreign: tuple[ForeignGlobal, ...] = ()
    runs_code: str = ""
    scalars: dict[str, str] = field(default_factory=dict)
    oddities: list[str] = field(default_factory=list)


class ExportReader:
    """Reads one archive."""

    def __init__(self, archive: Zip) -> None:
        self.archive = archive
        self.found = Program()
        self.globals: dict[str, Global] = {}
        self.dangers: dict[str, None] = {}

    def read(self) -> Program:
        """List the tensors, then look for what torch would run."""
        patience = Patience(1.0)
        for name in self.archive.members:
            patience.check()
            inner = name.removeprefix(self.archive.root) if self.archive.root != "data/" else name
            if (match := CONFIG.search(inner)) is not None:
                self._config(name, match[1], match[2])
            elif (match := WHOLE.search(inner)) is not None:
                self._whole(name, match[1] or match[3] or "", match[2] or "model")
            elif GRAPH.search(inner):
                self._graph(name)
            elif re.search(r"(custom_obj|opaque_obj)_\d+$", inner):
                self.dangers[f"a pickled object ({inner.rsplit('/', 1)[-1][:40]})"] = None
        self.found.foreign = foreign(self.globals.values())
        if unpickling := runs(self.found.foreign):
            self.dangers[unpickling] = None
        self.found.runs_code = "; ".join(list(self.dangers)[:4])
        return self.found

    def _json(self, name: str) -> dict[str, object]:
        return parsed(self.archive.read(name, LARGEST_JSON))

    def _config(self, name: str, folder: str, model: str) -> None:
        config = self._json(name).get("config")
        if not isinstance(config, dict):
            raise Damaged(f"{name} does not list tensors")
        base = name[: name.rindex("/") + 1]
        tensors, storages = [], dict[str, Storage]()
        for key, meta in config.items():
            if (tensor := self._tensor(meta, storages)) is not None:
                tensors.append((key, tensor))
        self.found.oddities += place_storages(self.archive, base, storages)
        self._add(folder, model, [stored(key, tensor, f"{folder}/") for key, tensor in tensors])

    def _tensor(self, meta: object, storages: dict[str, Storage]) -> Tensor | None:
        """Describe one payload."""
        described = meta.get("tensor_meta") if isinstance(meta, dict) else None
        if not isinstance(meta, dict) or not isinstance(described, dict):
            return None
        path, device = str(meta.get("path_name"))[:200], described.get("device")
        code = described.get("dtype")
        dtype = EXPORTED.get(code, "unknown") if isinstance(code, int) else "unknown"
        try:
            shape, stride = _whole_numbers(described.get("sizes")), _whole_numbers(described.get("strides"))
            (offset,) = _whole_numbers([described.get("storage_offset")])
        except NotAsExpected as error:
            raise Damaged("it gives a tensor no valid size") from error
        member = next((m for m in (self._payload(folder, path) for folder in ("weights", "constants")) if m is not None), None)
        itemsize = ITEMSIZES.get(dtype, 0)
        storage = storages.get(path) or Storage(path, dtype, 0, "cpu", itemsize)
        storages[path] = storage
        storage.count = member // itemsize if member is not None and itemsize else 0
        storage.location = str(device.get("type"))[:20] if isinstance(device, dict) else "cpu"
        kind = "parameter" if meta.get("is_param") is True else "buffer"
        why = "pickled" if meta.get("use_pickle") is True else ""
        if why:
            storage.problem = "pickled"
        trainable = described.get("requires_grad") is True if kind == "parameter" else None
        return Tensor(shape, stride, dtype, offset, storage, kind, trainable, why)

    def _payload(self, folder: str, path: str) -> int | None:
        member = self.archive.members.get(f"{self.archive.root}data/{folder}/{path}") or self.archive.members.get(f"data/{folder}/{path}")
        return member.size if member else None

    def _add(self, folder: str, model: str, tensors: list[StoredTensor]) -> None:
        weights = folder in ("weights", "state_dict")
        key = ("" if model == "model" else model) if weights else f"{folder}" if model == "model" else f"{model}.{folder}"
        if tensors:
            self.found.groups.append(TensorGroup(key, "weights" if weights else "other", tuple(tensors)))

    def _whole(self, name: str, folder: str, model: str) -> None:
        """A file of torch.save inside of the archive: all tensors of older releases, the example inputs of all."""
        try:
            inner = open_zip(*self.archive.span(name))
            pickled = read_pickle(*in_memory(*inner.span(inner.root + "data.pkl")))
        except (Damaged, KeyError):
            self.dangers[f"the pickle {name.rsplit('/', 1)[-1][:40]}, which netlens cannot read"] = None
            return
        self.globals |= pickled.globals
        if folder not in ("sample_inputs", "example_inputs"):
            place_storages(inner, inner.root + "data/", pickled.storages)
            if self.archive.members[name].method:
                for storage in pickled.storages.values():
                    storage.place = -1
            self._add(folder, model, _listed(pickled, folder))

    def _graph(self, name: str) -> None:
        try:
            graph = self._json(name)
        except Damaged as error:
            self.dangers[f"the graph, which netlens cannot check: {error}"] = None
            return
        if isinstance(version := graph.get("torch_version"), str):
            self.found.scalars["torch_version"] = version[:50]
        guards = graph.get("guards_code")
        for formula in [*_formulas(graph), *(guards if isinstance(guards, list) else [])]:
            if not isinstance(formula, str) or not harmless(formula):
                self.dangers["a formula of its graph that is more than a formula: torch would evaluate it as Python"] = None


def _listed(pickled: Pickled, folder: str) -> list[StoredTensor]:
    named = [(text(key), value) for key, value in entries(pickled.value) if isinstance(value, Tensor)]
    return [stored(name, tensor, f"{folder}/") for name, tensor in named]


def _whole_numbers(value: object) -> tuple[int, ...]:
    """Return sizes from torch's JSON: [{"as_int": 3}, ...]."""
    if not isinstance(value, list):
        raise NotAsExpected
    return dimensions([size.get("as_int") if isinstance(size, dict) else None for size in value])


def _formulas(graph: dict[str, object]) -> Iterator[object]:
    """Yield what torch gives to sympy, which evaluates it as Python."""
    waiting: list[object] = [graph]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if "expr_str" in part:
                yield part["expr_str"]
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def harmless(formula: str) -> bool:
    """Whether a formula is one: numbers, operators and names that formulas use, and nothing that Python could call otherwise."""
    if len(formula) > 20_000 or "__" in formula or "\\" in formula or ":" in formula:
        return False
    bare = TEXT.sub("", formula)
    if "'" in bare or '"' in bare:
        return False
    return all(FORMULA_WORD.fullmatch(word) for word in WORD.findall(bare))
