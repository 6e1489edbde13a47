"""`python -m benchmarks.fanout`: how quickly, and at what cost, a stored killmail reaches every socket."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from benchmarks import report
from benchmarks.board import MeasuredBoard
from benchmarks.child import ROOT, Child, Failure
from benchmarks.machine import description, most_sockets, raise_open_files
from benchmarks.measure import Measured, Scene, middle
from benchmarks.rows import BURST, IDLE, MEMORY, ROWS, SCENARIOS, Result, Row, Scenario

DOCUMENT = ROOT / "docs" / "benchmarks.md"
IDLE_SECONDS = 70.0  # two rounds of the pings that uvicorn sends every 35 s, daphne every 20
FULL_IDLE_SECONDS = 140.0


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when all was measured, 1 when something failed: events lost, doubled, out of order, or sockets closed."""
    options = _options(arguments)
    if options.plot:
        import_module("benchmarks.plot")  # what it needs is missed now, and not after six minutes
    raise_open_files()
    machine = description()
    settings = {
        "date": datetime.now(UTC).date().isoformat(),
        "loop": options.loop,
        "quick": options.quick,
        "full": options.full,
        "profile": options.profile,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    results = _measure_all(options)
    sys.stdout.write(report.as_text(results) + "\n")
    (options.out / "fanout.json").write_text(report.as_json(results, settings, machine))
    if options.plot:
        _plot(results, options.out / "fanout.png")
    if options.write_docs:
        report.write_between_markers(DOCUMENT, report.as_markdown(results, settings, machine))
    sys.stdout.write(f"Written to {options.out}\n")
    return 1 if any(result.failed for result in results) else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fanout", description=__doc__)
    parser.add_argument("--server", choices=("uvicorn", "daphne", "both"), default="both")
    parser.add_argument("--only", default=",".join(names), help=f"rows, separated by commas: {', '.join(names)}")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="uvicorn's event loop")
    parser.add_argument("--quick", action="store_true", help="a tenth of the sockets: whether it runs, not how fast")
    parser.add_argument("--full", action="store_true", help="more events and twice the idleness")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "benchmarks", help="folder for JSON and picture")
    parser.add_argument("--no-plot", dest="plot", action="store_false", help="no picture (needs matplotlib)")
    parser.add_argument("--no-limit", dest="limit", action="store_false", help="without the bare server")
    parser.add_argument("--profile", action="store_true", help="py-spy beside the server; numbers get worse")
    parser.add_argument("--write-docs", action="store_true", help=f"put the table into {DOCUMENT.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    options.only = set(options.only.split(","))
    if unknown := options.only - set(names):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    options.servers = ["uvicorn", "daphne"] if options.server == "both" else [options.server]
    return options


def _measure_all(options: argparse.Namespace) -> list[Result]:
    results: list[Result] = []
    with MeasuredBoard(options.loop) as board, Child("benchmarks.publisher", board.env, board.folder) as publisher:
        publisher.ask("prepare")
        idle_seconds = FULL_IDLE_SECONDS if options.full else 2.0 if options.quick else IDLE_SECONDS
        scene = Scene(board, publisher, idle_seconds, options.out if options.profile else None)
        for scenario in SCENARIOS:
            wanted = options.only & {row.name for row in scenario.rows}
            if wanted:
                results += _measure(scene, _sized(scenario, options), wanted, options)
    return results


def _sized(scenario: Scenario, options: argparse.Namespace) -> Scenario:
    """As large as asked for, and as this system lets it be."""
    part = 10 if options.quick else 1
    sockets = min(max(scenario.sockets // part, 1), most_sockets())
    rounds = max(scenario.rounds // (5 if options.quick else 1), 3) * (3 if options.full else 1)
    if scenario.burst:
        rounds = 3 if options.full else 1
    everybody = scenario.receivers == scenario.sockets
    receivers = sockets if everybody else scenario.receivers
    return replace(scenario, sockets=sockets, receivers=receivers, rounds=rounds, burst=scenario.burst // part)


def _measure(scene: Scene, scenario: Scenario, wanted: set[str], options: argparse.Namespace) -> list[Result]:
    """On each server, and then on the bare one, close together in time."""
    results, frame = [], ""
    for server in options.servers:
        sys.stderr.write(f"{scenario.name} on {server} …\n")
        of_server = [_empty(row, server, scenario) for row in scenario.rows if row.name in wanted]
        try:
            measured = scene.measure(server, scenario, wanted)
            _fill(of_server, measured)
            frame = measured.frame
        except Failure as failure:
            for result in of_server:
                result.failed = str(failure)
        sys.stderr.writelines(f"  {result.row}: {report.measured(result)}\n" for result in of_server)
        results += of_server
    if options.limit and frame:
        sys.stderr.write(f"{scenario.name} on the bare server …\n")
        _compare(results, scene.limit(scenario, frame))
    return results


def _fill(results: list[Result], measured: Measured) -> None:
    for result in results:
        result.values = measured.values[result.row]
        result.value = middle(result.values)
        result.others = measured.others
        if result.row not in (MEMORY.name, IDLE.name):
            result.cpu = measured.cpu


def _compare(results: list[Result], limit: Measured) -> None:
    for result in results:
        if result.row in limit.values:
            result.limit = middle(limit.values[result.row])
            result.limit_cpu, result.limit_others = limit.cpu, limit.others


def _empty(row: Row, server: str, scenario: Scenario) -> Result:
    asked = next(one for one in SCENARIOS if one.name == scenario.name)
    note = "" if scenario.sockets == asked.sockets else f"(only {scenario.sockets:,} sockets)"
    if scenario.burst not in (0, BURST):
        note += f"(only {scenario.burst} events)"
    return Result(row.name, row.title, server, row.unit, row.must, row.aim, row.of_limit, scenario.sockets, note=note)


def _plot(results: Sequence[Result], file: Path) -> None:
    from benchmarks.plot import write_plot

    write_plot(results, file)


if __name__ == "__main__":
    sys.exit(main())
