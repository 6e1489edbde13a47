"""Who may import whom, how large things are, and what the linter says: the house rules, as tests."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
APPS = ("killboard", "killmails", "realtime", "health")
FILES = [path for app in APPS for path in sorted((ROOT / app).rglob("*.py")) if path.parent.name != "migrations"]

# A module, and what of the project it may import; the longest name that fits counts. Also in docs/architecture.md.
MAY_IMPORT = {
    "killboard": ("killboard", "killmails.schema", "killmails.events", "realtime", "health"),
    "killboard.tasks": ("killmails.accounts",),
    "killboard.queries": ("killboard", "killmails.accounts", "realtime"),
    "killboard.login": (
        "killboard",
        "killmails.accounts",
        "killmails.errors",
        "killmails.models",
        "killmails.upstream.sso",
        "killmails.users",
    ),
    "killboard.account": (
        "killboard",
        "killmails.accounts",
        "killmails.models",
        "killmails.queueing",
        "killmails.schema",
    ),
    "killboard.feed_step": ("killboard.queues", "killmails.ingest", "killmails.upstream"),
    "killboard.registration": ("killboard", "health", "killmails.ingest", "killmails.upstream"),
    "killboard.asgi": (
        "killboard",
        "killmails.accounts",
        "killmails.events",
        "killmails.schema.sync",
        "killmails.universe",
        "realtime",
        "health",
    ),
    "killboard.management": (
        "killboard",
        "killmails.errors",
        "killmails.ingest",
        "killmails.recording",
        "killmails.universe",
        "killmails.upstream",
    ),
    "health": (
        "health",
        "killmails.models",
        "realtime.doorbell",
        "realtime.canary",
        "realtime.pulse",
        "realtime.limits",
    ),
    "realtime": ("realtime",),
    "realtime.protocol": (),
    "realtime.legacy": ("realtime.protocol",),
    "realtime.callers": (),
    "realtime.watch": (),
    "realtime.limits": (),
    "realtime.server": ("realtime.limits",),
    "realtime.origin": (),
    "killmails": (),
    "killmails.errors": (),
    "killmails.strict_json": (),
    "killmails.fields": ("killmails.errors",),
    "killmails.records": ("killmails.errors", "killmails.fields", "killmails.strict_json"),
    "killmails.models": ("killmails.models",),
    "killmails.loading": ("killmails.loading", "killmails.models", "killmails.valuation"),
    "killmails.columns": ("killmails.models", "killmails.records", "killmails.valuation"),
    "killmails.sealing": ("killmails.errors",),
    "killmails.queueing": ("killmails.models",),
    "killmails.withholding": ("killmails.models",),
    "killmails.withheld": (
        "killmails.errors",
        "killmails.columns",
        "killmails.loading",
        "killmails.models",
        "killmails.records",
        "killmails.valuation",
    ),
    "killmails.accounts": ("killmails.models", "killmails.queueing", "killmails.withholding"),
    "killmails.users": (
        "killmails.users",
        "killmails.ingest",
        "killmails.upstream",
        "killmails.models",
        "killmails.columns",
        "killmails.records",
        "killmails.queueing",
        "killmails.withheld",
        "killmails.withholding",
        "killmails.sealing",
        "killmails.errors",
    ),
    "killmails.values": ("killmails.values",),
    "killmails.valuation": ("killmails.values",),
    "killmails.events": ("killmails.models", "killmails.filters", "killmails.loading", "realtime.log"),
    "killmails.fitting": ("killmails.fitting", "killmails.models", "killmails.loading"),
    "killmails.filters": ("killmails.filters", "killmails.models", "killmails.errors"),
    "killmails.schema": (
        "killmails.schema",
        "killmails.models",
        "killmails.loading",
        "killmails.events",
        "killmails.filters",
        "killmails.fitting",
        "killmails.values",
        "killmails.accounts",
        "killmails.queueing",
        "killmails.withheld",
        "killmails.errors",
        "realtime.callers",
        "realtime.limits",
        "realtime.log",
        "realtime.watch",
    ),
    "killmails.upstream": (
        "killmails.upstream",
        "killmails.counts",
        "killmails.errors",
        "killmails.fields",
        "killmails.strict_json",
    ),
    "killmails.ingest": (
        "killmails.ingest",
        "killmails.counts",
        "killmails.upstream",
        "killmails.models",
        "killmails.columns",
        "killmails.records",
        "killmails.events",
        "killmails.valuation",
        "killmails.values",
        "killmails.errors",
        "realtime.doorbell",
    ),
    "killmails.universe": (
        "killmails.universe",
        "killmails.upstream.static_data",
        "killmails.models",
        "killmails.fields",
        "killmails.errors",
    ),
    "killmails.recording": ("killmails.recording", "killmails.records", "killmails.errors", "killmails.strict_json"),
    "killmails.fake_eve": ("killmails.fake_eve", "killmails.recording.tape"),
    "killmails.tasks": (
        "killmails.ingest",
        "killmails.universe",
        "killmails.users",
        "killmails.models",
        "killmails.errors",
    ),
    "killmails.admin": (
        "killmails.admin",
        "killmails.accounts",
        "killmails.tasks",
        "killmails.ingest",
        "killmails.models",
        "killmails.errors",
    ),
    "killmails.management": (
        "killmails.management",
        "killmails.models",
        "killmails.queueing",
        "killmails.users",
        "killmails.fake_eve",
        "killmails.tasks",
        "killmails.ingest",
        "killmails.universe",
        "killmails.events",
        "killmails.recording",
        "killmails.errors",
    ),
    "killmails.apps": (),
}
# Each of these has one owner, or two that belong together.
OWNERS = {
    "requests": {"killmails.upstream.http"},
    "channels.layers": {"realtime.doorbell", "realtime.canary"},
    "os.environ": {"killboard.settings"},
    "events.append(": {"killmails.ingest.store"},
}
NAMES_THE_SETTINGS = ("killboard.asgi", "killboard.celery")  # os.environ.setdefault("DJANGO_SETTINGS_MODULE", …)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(source: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}.")


def forbidden_imports(module: str, source: str) -> list[str]:
    rule = max((place for place in MAY_IMPORT if within(module, place)), key=len)
    ours = {name for name in imports_of(source) if name.split(".")[0] in APPS}
    return sorted(name for name in ours if not any(within(name, place) for place in MAY_IMPORT[rule]))


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_module_imports_only_what_its_layer_may(path: Path) -> None:
    assert forbidden_imports(module_of(path), path.read_text()) == []


def test_a_forbidden_import_is_found() -> None:
    source = "def f():\n    from killmails.ingest import store\n"
    assert forbidden_imports("killmails.schema.types", source) == ["killmails.ingest.store"]
    assert forbidden_imports("realtime.hub", "import killmails.models") == ["killmails.models"]
    assert forbidden_imports("realtime.protocol", "from realtime import hub") == ["realtime.hub"]


@pytest.mark.parametrize(("what", "owners"), OWNERS.items())
def test_each_of_these_has_one_owner(what: str, owners: set[str]) -> None:
    def uses(path: Path) -> bool:
        source = path.read_text()
        if what in ("os.environ", "events.append("):
            return what in source
        return any(within(name, what) for name in imports_of(source))

    users = {module_of(path) for path in FILES if uses(path)} - set(NAMES_THE_SETTINGS)
    assert users == owners


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_and_functions_stay_small_and_say_what_they_hold(path: Path) -> None:
    source = path.read_text()
    tree = ast.parse(source)
    assert ast.get_docstring(tree), "begin with a line that says what lives here"
    assert source.count("\n") <= 300, "two things may live here"
    long = [
        f"{node.name} ({node.end_lineno - node.lineno + 1} lines)"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 40
    ]
    assert long == []


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_the_linter_is_content(command: list[str]) -> None:
    result = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_the_type_checker_is_content() -> None:
    result = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_models_and_migrations_agree() -> None:
    command = [sys.executable, "manage.py", "makemigrations", "--check", "--dry-run"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
