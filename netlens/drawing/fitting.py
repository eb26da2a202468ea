"""Tables that fit: which columns give way, and how long names become shorter, so that no number has to be cut."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from netlens.drawing.tables import Cell, Column, Sheet, kept, total_width
from netlens.wording import abbreviated


def fitted(
    columns: Mapping[str, Column],
    fields: Mapping[str, Sequence[Cell]],
    width: int | None,
    *,
    gives_way: Sequence[str],
    stays: tuple[str, ...],
    ill: Collection[str] = (),
) -> tuple[Sheet, tuple[str, ...], bool]:
    """Make a table that is `width` cells wide at most: blank columns go first, then `gives_way` in its order, at last names are shortened.

    Args:
        columns: how each is set; that of names is called "name".
        fields: the cells of each column.
        width: None: as wide as needed.
        gives_way: columns, those of least use first.
        stays: columns that are never given up.
        ill: columns with a sick cell, which give way among the last.

    Returns:
        The table, the columns that it has, and whether names are shortened.
    """
    sheet, shown = _sheet(columns, fields, tuple(fields)), tuple(fields)
    if width is not None and total_width(sheet.widths()) > width:
        filled = tuple(name for name, field in fields.items() if any(cell.text for cell in field))
        sheet = _sheet(columns, fields, filled)
        left = kept(filled, sheet.narrowest(), width, tuple(sorted(gives_way, key=ill.__contains__)), stays)
        sheet, shown = sheet.select(left), tuple(filled[index] for index in left)
    drawn = with_short_names(sheet, shown.index("name"), width) if "name" in shown else sheet
    return drawn, shown, drawn.rows != sheet.rows


def with_short_names(sheet: Sheet, place: int, width: int | None) -> Sheet:
    """Abbreviate the names in one column where the table is too wide, so that they need not be cut."""
    widths = sheet.widths()
    if width is None or total_width(widths) <= width:
        return sheet
    room = max(sheet.columns[place].shortest or 0, width - total_width(widths) + widths[place])
    names = abbreviated([row[place].text for row in sheet.rows], room)
    rows = [(*row[:place], replace(row[place], text=name), *row[place + 1 :]) for row, name in zip(sheet.rows, names, strict=True)]
    return Sheet(sheet.columns, rows, sheet.footer)


def _sheet(columns: Mapping[str, Column], fields: Mapping[str, Sequence[Cell]], names: Sequence[str]) -> Sheet:
    return Sheet(tuple(columns[name] for name in names), list(zip(*(fields[name] for name in names), strict=True)))
