"""What was measured, as a table for people, as Markdown for the document, and as JSON for programs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.rows import ROWS, Result

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
MARKS = {"aim": " [aim]", "must": " [must]", "missed": " [MISSED]", "": ""}
BUSY = 0.25  # cores of other work from which on it is mentioned


def number(value: float | None) -> str:
    """Three digits that say something."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def target(value: float, result: Result) -> str:
    return f"{value:g} × limit" if result.of_limit else f"{value:,g} {result.unit}"


def measured(result: Result) -> str:
    """The median with its range, the ratio to the limit, and what it reaches."""
    if result.failed:
        return f"FAILED: {result.failed}"
    text = f"{number(result.value)} {result.unit}"
    if len(result.values) > 1:
        text += f" ({number(min(result.values))}–{number(max(result.values))})"
    if result.ratio is not None:
        text += f", {number(result.ratio)} × limit"
    if result.cpu is not None:
        text += f", CPU {number(result.cpu)} µs a delivery"
    if result.others >= BUSY:
        text += f", others {result.others:.1f} cores"
    return f"{text}{MARKS[result.reached]}" + (f" {result.note}" if result.note else "")


def servers_of(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(result.server for result in results))


def table(results: Sequence[Result]) -> list[list[str]]:
    """Lines of cells: title, must, aim, limit of the machine, then one cell for each server."""
    servers = servers_of(results)
    lines = [["", "must", "aim", "limit", *servers]]
    for row in ROWS:
        of_row = {result.server: result for result in results if result.row == row.name}
        if not of_row:
            continue
        some = next(iter(of_row.values()))
        shown_limit = next((_limit(result) for result in of_row.values() if result.limit is not None), "–")
        cells = [measured(of_row[server]) if server in of_row else "–" for server in servers]
        lines.append([some.title, target(row.must, some), target(row.aim, some), shown_limit, *cells])
    return lines


def _limit(result: Result) -> str:
    busy = f", others {result.limit_others:.1f} cores" if result.limit_others >= BUSY else ""
    return f"{number(result.limit)} {result.unit}, CPU {number(result.limit_cpu)} µs a delivery{busy}"


def as_text(results: Sequence[Result]) -> str:
    """For a terminal."""
    lines = table(results)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def as_markdown(results: Sequence[Result], settings: dict[str, Any], machine: dict[str, Any]) -> str:
    """For the document."""
    head, *body = table(results)
    rows = [head, ["---"] * len(head), *body]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    where = (
        f"Measured on {settings['date']}: {machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, "
        f"Python {machine['python']}, event loop {settings['loop']}; {packages}. "
        f"Load before the run: {machine['load']}."
    )
    lines = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join([where, "", *lines])


def as_json(results: Sequence[Result], settings: dict[str, Any], machine: dict[str, Any]) -> str:
    body = {"settings": settings, "machine": machine, "results": [result.as_dict() for result in results]}
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


def write_between_markers(file: Path, text: str) -> None:
    """Replaces what stands between the two markers of the document."""
    before, _, rest = file.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{file} must hold {BEGIN} and {END}, each on a line of its own")
    file.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
