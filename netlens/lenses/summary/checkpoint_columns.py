"""The columns that the table of a checkpoint can have, and how the user names them; standard library only."""

from __future__ import annotations

from netlens.lenses.summary.columns import ColumnInfo

COLUMNS: dict[str, ColumnInfo] = {
    "name": ColumnInfo("tensor", "the tensor's name below its prefix"),
    "shape": ColumnInfo("shape", "its shape, or how many tensors a row stands for"),
    "dtype": ColumnInfo("dtype", "the type of its elements"),
    "elements": ColumnInfo("elements", "elements, the same memory counted once", "elements"),
    "bytes": ColumnInfo("size", "bytes of the elements", "bytes"),
    "share": ColumnInfo("%", "share of the total of the sort key (bytes by default), in percent"),
    "tensors": ColumnInfo("tensors", "how many tensors"),
    "kind": ColumnInfo("kind", "parameter or buffer, where the file says so"),
    "layout": ColumnInfo("layout", "how the elements lie in memory"),
    "stride": ColumnInfo("stride", "steps between elements, for each dimension"),
    "storage": ColumnInfo("storage", "bytes of the storage that it is a part of"),
    "location": ColumnInfo("saved on", "the device that it was saved from"),
    "min": ColumnInfo("min", "the least element, with --values"),
    "max": ColumnInfo("max", "the greatest element, with --values"),
    "mean": ColumnInfo("mean", "the mean of the elements, with --values"),
    "std": ColumnInfo("std", "the standard deviation of the elements, with --values"),
    "zeros": ColumnInfo("zeros", "how many elements are 0, with --values"),
    "nonfinite": ColumnInfo("not finite", "how many elements are nan or infinite, with --values"),
}
USUAL = ("name", "shape", "dtype", "elements", "bytes", "share")
VALUES = ("min", "max", "mean", "std")
WITH_VALUES = frozenset({*VALUES, "zeros", "nonfinite"})
GIVES_WAY = ("share", "dtype", "elements", "std", "bytes", "min", "max", "mean", "shape")  # where the terminal is too narrow
SORT_KEYS = {"params": "elements", "elements": "elements", "size": "bytes", "bytes": "bytes"}  # as the user says it -> a column
