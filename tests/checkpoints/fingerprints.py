"""Writes netlens/loading/checkpoints/architectures.py anew: `python -m tests.checkpoints.fingerprints`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

from netlens.loading.checkpoints import architectures
from netlens.loading.checkpoints.identify import Entry, body, whole
from netlens.loading.models import find_model
from netlens.loading.specs import parse_model_spec
from netlens.probing.building import built_on_meta

Tables = tuple[dict[str, str], dict[str, str]]


def entries_of(name: str) -> list[Entry]:
    """Return names and shapes of a torchvision model's state dict."""
    with warnings.catch_warnings(), built_on_meta():
        warnings.simplefilter("ignore")
        model = find_model(parse_model_spec(name), {}).build()
    return [(key, tuple(tensor.shape)) for key, tensor in model.state_dict().items()]


def tables() -> Tables:
    """Fingerprint every model of torchvision; the quantised ones only differ from the plain ones once they are quantised."""
    import torchvision

    models = {name: entries_of(name) for name in torchvision.models.list_models() if not name.startswith("quantized_")}
    return _table(models, whole), _table(models, body)


def source(found: Tables) -> str:
    """Return the text of the module that holds the tables."""
    head = '"""Fingerprints of torchvision\'s models, for `identify`; written by `python -m tests.checkpoints.fingerprints`."""\n\n'
    return head + "from __future__ import annotations\n\n" + "\n".join(map(_dict, ("WHOLE", "BODIES"), found))


def _table(models: dict[str, list[Entry]], fingerprint: Callable[[Iterable[Entry]], str]) -> dict[str, str]:
    table: dict[str, list[str]] = {}
    for name, entries in models.items():
        table.setdefault(fingerprint(entries), []).append(name)
    return {key: " ".join(names) for key, names in table.items()}


def _dict(name: str, table: dict[str, str]) -> str:
    return f"{name}: dict[str, str] = {{\n" + "".join(f'    "{key}": "{names}",\n' for key, names in table.items()) + "}\n"


if __name__ == "__main__":
    Path(architectures.__file__).write_text(source(tables()), encoding="utf-8")
