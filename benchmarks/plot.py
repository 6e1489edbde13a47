"""The table as a picture."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot

from benchmarks.report import number, servers_of
from benchmarks.rows import ROWS, Result

COLOURS = ("#2b6cb0", "#dd6b20", "#718096", "#2f855a")
COLUMNS = 4


def write_plot(results: Sequence[Result], file: Path) -> None:
    """One panel for each row: a bar for each server, the machine's limit, and lines for must and aim."""
    mpl.use("Agg")
    rows = [row for row in ROWS if any(result.row == row.name for result in results)]
    lines = -(-len(rows) // COLUMNS)
    figure, panels = pyplot.subplots(lines, COLUMNS, figsize=(4 * COLUMNS, 3.4 * lines), squeeze=False)
    for panel in panels.flat:
        panel.set_visible(False)
    for row, panel in zip(rows, panels.flat, strict=False):
        _draw(panel, [result for result in results if result.row == row.name], servers_of(results))
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def _draw(panel: pyplot.Axes, results: list[Result], servers: list[str]) -> None:
    panel.set_visible(True)
    first = results[0]
    limit = next((result.limit for result in results if result.limit is not None), None)
    bars = [] if limit is None else [("limit", limit, COLOURS[2])]
    for result in results:
        bars.append((result.server, result.value or 0.0, COLOURS[servers.index(result.server) % 2]))
    for place, (_, value, colour) in enumerate(bars):
        panel.bar(place, value, color=colour, width=0.6)
        panel.text(place, value, number(value) if value else "failed", ha="center", va="bottom", fontsize=9)
    panel.set_xticks(range(len(bars)), [name for name, _, _ in bars])
    factor = limit if first.of_limit else 1.0
    for target, style, name in ((first.must, "-", "must"), (first.aim, ":", "aim")):
        if factor is not None:
            panel.axhline(target * factor, color="#c53030", linestyle=style, linewidth=1, label=name)
    panel.set_title(first.title.replace(": ", ":\n").replace(", all", ",\nall"), fontsize=9)
    panel.set_ylabel(first.unit, fontsize=9)
    panel.margins(y=0.15)
    panel.legend(fontsize=7)
