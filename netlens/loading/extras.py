"""Packages that only some models need."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

from netlens.errors import MissingExtra, ModelNotBuilt
from netlens.loading.words import cause


def import_extra(package: str, extra: str, wanted: str) -> Any:
    """Import an optional package.

    Raises:
        MissingExtra: it is not installed. ModelNotBuilt: it is, and does not import.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name == package:
            raise MissingExtra(package, extra, wanted) from None
        raise _broken(package, extra, error) from error
    except (ImportError, RuntimeError, OSError) as error:
        raise _broken(package, extra, error) from error


def version(package: str) -> str:
    """Return the version of an installed package without its local part: "0.29.2", not "0.29.2+cpu"."""
    return importlib.metadata.version(package).partition("+")[0]


def _broken(package: str, extra: str, error: Exception) -> ModelNotBuilt:
    what = f"{package} {version(package)} cannot be imported: {cause(error)}"
    return ModelNotBuilt(what, hint=f"pip install --upgrade 'netlens[{extra}]'")
