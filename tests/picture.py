"""Draw the terminal picture of the README: `python -m tests.picture`.

It runs the real command, as in a terminal, and writes what it prints, colours included, as `.github/summary.svg`.
"""

from __future__ import annotations

import html
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from rich.text import Text

COMMAND = ("netlens", "summary", "resnet18", "--input", "1,3,224,224", "--depth", "2")
COLUMNS = 86
FILE = Path(__file__).parents[1] / ".github" / "summary.svg"
CELL, LINE, MARGIN = 8.4, 18, 16  # pixels; a monospaced glyph of 14 px is 8.4 px wide
GROUND, INK, DIM, RED = "#10151c", "#d6dde6", "#7d8896", "#ff7b72"


def main() -> None:
    """Run the command and write the picture."""
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    run = subprocess.run([sys.executable, "-m", *COMMAND], capture_output=True, text=True, check=True, env=environment)
    lines = [Text(f"$ {' '.join(COMMAND)}", "bold"), *Text.from_ansi(run.stdout).split("\n")]
    FILE.write_text(svg(list(lines)), encoding="utf-8")
    print(f"wrote {FILE}", file=sys.stderr)


def svg(lines: list[Text]) -> str:
    """Place every run of one style at its column, so that columns line up whatever font the reader has."""
    while not lines[-1].plain.strip():
        lines.pop()
    width, height = COLUMNS * CELL + 2 * MARGIN, len(lines) * LINE + 2 * MARGIN
    drawn = [f'<rect width="{width:g}" height="{height:g}" rx="8" fill="{GROUND}"/>']
    for row, line in enumerate(lines):
        y = MARGIN + row * LINE + 13
        for start, end, style in _runs(line):
            text = line.plain[start:end]
            if text.strip():
                x = MARGIN + start * CELL
                length = f'textLength="{len(text) * CELL:g}" lengthAdjust="spacingAndGlyphs"'
                drawn.append(f'<text x="{x:g}" y="{y}" {length} {style}>{html.escape(text)}</text>')
    font = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}" '
        f'font-family="{font}" font-size="14" xml:space="preserve">\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def _runs(line: Text) -> list[tuple[int, int, str]]:
    cuts = sorted({0, len(line.plain), *(edge for span in line.spans for edge in (span.start, span.end))})
    return [(start, end, _paint(line, start)) for start, end in pairwise(cuts)]


def _paint(line: Text, place: int) -> str:
    words = " ".join([str(line.style), *(str(span.style) for span in line.spans if span.start <= place < span.end)])
    ink = DIM if "dim" in words else RED if "red" in words else INK
    return f'fill="{ink}"' + (' font-weight="bold"' if "bold" in words else "")


if __name__ == "__main__":
    main()
