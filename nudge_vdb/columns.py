"""Figures in columns that fit the terminal, or one below the other where it is narrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

GAP = 2
Row = tuple[str, Sequence[str]]
"""A name and its cells; an empty cell has nothing to say."""


def laid_out(headings: Sequence[str], rows: Sequence[Row], width: int) -> Iterator[str]:
    """Yield the lines of a table with *headings* above its cells; no cell is ever cut.

    Where *width* characters do not hold the columns, each cell stands in a line of its own behind its heading.
    """
    widths = [max(map(len, column)) for column in zip(headings, *(cells for _, cells in rows), strict=True)]
    names = max((len(name) for name, _ in rows), default=0)
    if GAP + names + sum(GAP + each for each in widths) <= width:
        yield _line("", headings, names, widths)
        yield from (_line(name, cells, names, widths) for name, cells in rows)
    else:
        for name, cells in rows:
            yield from _stacked(name, headings, cells)


def _line(name: str, cells: Sequence[str], names: int, widths: Sequence[int]) -> str:
    padded = "".join(" " * GAP + cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return f"{' ' * GAP}{name:<{names}}{padded}".rstrip()


def _stacked(name: str, headings: Sequence[str], cells: Sequence[str]) -> Iterator[str]:
    yield f"{' ' * GAP}{name}"
    told = ((heading, cell) for heading, cell in zip(headings, cells, strict=True) if cell)
    yield from (f"{' ' * 2 * GAP}{heading} {cell}" for heading, cell in told)
