"""Who may import whom. Read from the source, so that a rule holds for code that no test runs."""

import subprocess
import sys

from tests.source import HOUSE, eager_closure, imports, modules, tops

# Layers of `app`, lowest first: a module imports from its own layer or from below it, never upward.
LAYERS: dict[str, set[str]] = {
    "settings and errors": {"errors", "settings", "logs", "interpreter"},
    "base": {
        *("tables", "db", "migrations", "leases", "paging", "names", "signing"),
        *("storage", "queue", "formats", "bundles", "tars"),
    },
    "data sets and models": {
        *("datasets", "preview", "registry", "sampling", "exporting", "batches"),
        *("provenance", "inspection"),
    },
    "jobs": {"jobs"},
    "operations": {"sweep", "orphans", "workers", "health"},
    "http": {"schemas", "http"},
    "routes": {"routes"},
    "application": {"main", "__main__"},
    "tools": {"client", "up"},
    "command": {"cli"},
}
MODELS_MAY_USE = {"torch", "numpy", "PIL", "pydantic", "safetensors"}
TORCH_FREE = ("models.config", "models.catalog", "models.presets", "models.randomness")
# The local programs, which run on a machine with neither broker nor database.
PROGRAMS = (
    "worker.trainer.__main__",
    "worker.trainer.launcher",
    "worker.data.__main__",
    "worker.probe.__main__",
    "worker.export",
)
# The program that makes batches has what answers single requests make its samples. It is told of rows and never sees one.
BATCH_MAY_USE = {
    "app.provenance",
    "app.sampling",
    "app.formats",
    "app.bundles",
    "app.tars",
    "app.registry",
    "app.errors",
    "app.interpreter",
}
SERVICE_LIBRARIES = {"fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "celery", "redis", "obstore", "httpx"}


def of(package: str) -> list[str]:
    return [name for name in modules() if name == package or name.startswith(f"{package}.")]


def layer(name: str) -> int:
    """The layer of a module `app.<part>...`; a new module must be given one in LAYERS."""
    part = name.split(".")[1]
    found = [index for index, parts in enumerate(LAYERS.values()) if part in parts]
    assert found, f"{name} stands in no layer: add it to LAYERS"
    return found[0]


def program_side() -> set[str]:
    """The modules that the local programs are made of, also those that they import only when needed."""
    reached: set[str] = set()
    waiting = list(PROGRAMS)
    while waiting:
        name = waiting.pop()
        if name in modules() and name not in reached:
            reached.add(name)
            waiting += [entry.module for entry in imports(name)]
    return reached


def offenders(rule: dict[str, set[str]]) -> dict[str, set[str]]:
    """The modules for which a rule found something."""
    return {name: found for name, found in rule.items() if found}


def tops_of(name: str) -> set[str]:
    return {entry.top for entry in imports(name)}


def test_models_stand_alone() -> None:
    """models imports nothing of ours but models, and of others only what the mathematics needs."""
    allowed = MODELS_MAY_USE | sys.stdlib_module_names | {"models"}
    assert offenders({name: tops_of(name) - allowed for name in of("models")}) == {}


def test_what_describes_networks_needs_no_torch() -> None:
    """The config, the catalog, presets, randomness and every family's spec can be read without torch."""
    names = [*TORCH_FREE, *(name for name in of("models") if name.endswith(".spec"))]
    assert offenders({name: tops(eager_closure(name)) & {"torch"} for name in names}) == {}


def test_local_programs_need_no_service() -> None:
    """Training and preparing are plain local programs: what they are made of never imports app or a service library."""
    assert offenders({name: tops_of(name) & ({"app"} | SERVICE_LIBRARIES) for name in program_side()}) == {}


def test_batches_are_made_by_what_answers_requests() -> None:
    """The program that makes batches uses of app what makes and encodes samples, and neither database, storage nor settings."""
    found = {name: {entry.module for entry in imports(name)} for name in of("worker.batch")}
    ours = {name: {module for module in used if module.startswith("app")} for name, used in found.items()}
    allowed = {module for part in BATCH_MAY_USE for module in of(part)}
    assert offenders({name: used - allowed for name, used in ours.items()}) == {}
    libraries = {name: tops_of(name) & SERVICE_LIBRARIES for name in found}
    assert offenders(libraries) == {}


def test_nobody_imports_the_program_that_makes_batches() -> None:
    """It brings torch in when it runs: the worker starts it as a child."""
    others = {*of("worker"), *of("app")} - {*of("worker.batch")}
    assert offenders({name: {entry.module for entry in imports(name)} & {*of("worker.batch")} for name in others}) == {}


def test_evaluation_and_preparation_know_nothing_of_training() -> None:
    """They judge and prepare for whoever asks; training asks them."""
    names = [*of("worker.evaluation"), *of("worker.data"), "worker.engine"]
    found = {name: {entry.module for entry in imports(name)} & {*of("worker.trainer")} for name in names}
    assert offenders(found) == {}


def test_service_side_of_the_worker_needs_no_torch() -> None:
    """What claims, supervises and ships never imports torch, not even lazily: a trainer's crash is not its own."""
    names = {*of("worker")} - program_side()
    assert offenders({name: (tops(eager_closure(name)) | tops_of(name)) & {"torch"} for name in names}) == {}


def test_app_never_imports_worker() -> None:
    """The web process rings for work by task name and never imports who does it."""
    assert offenders({name: tops_of(name) & {"worker"} for name in of("app")}) == {}


def test_only_sampling_reaches_torch_and_lazily() -> None:
    """Of app, only app.sampling imports torch or a module that brings torch in, and only when first needed."""
    heavy = {
        name: [entry for entry in imports(name) if "torch" in tops(eager_closure(entry.module))] for name in of("app")
    }
    assert offenders({name: {entry.module for entry in found if not entry.lazy} for name, found in heavy.items()}) == {}
    assert [name for name, found in heavy.items() if found and not name.startswith("app.sampling")] == []


def test_app_imports_downward() -> None:
    """Routes use domain modules, these the database, storage and queue, these the settings: never upward."""
    ours = {
        name: {entry.module for entry in imports(name)} & {*of("app")} - {"app"} for name in of("app") if name != "app"
    }
    upward = {name: {module for module in found if layer(module) > layer(name)} for name, found in ours.items()}
    assert offenders(upward) == {}


def test_importing_the_api_leaves_torch_out() -> None:
    """`import app.main` does not load torch, which takes seconds and hundreds of megabytes."""
    program = "import sys, app.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=HOUSE, timeout=60, check=False).returncode == 0
