"""Every service is alike: one name, the same files, a guard on each route."""

from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from chassis.routing import GuardedRoute
from cli.registry import load, service_names
from contracts.services import MODULES, SERVICES
from middleware.guards import Public, guard_of

ROOT = Path(__file__).parents[2]
ALWAYS = {"__init__.py", "README.md", "manifest.py", "settings.py", "app.py"}
SERVICE_FILES = ALWAYS | {"consumers.py", "jobs.py", "database.py"}
#: What no other service has, and why it is of the whole service and not of one resource.
OWN_FILES = {
    "auth": {"judge.py"},  # it judges its guards by its own rows, where others have an access cache
    "checkout": {"provider.py"},  # the port to payment providers
}
RESOURCE_FILES = {"__init__.py", "rules.py", "tables.py", "operations.py", "http.py", "seed.toml"}
NOT_RESOURCES = {"migrations", "projections", "__pycache__"}

names = pytest.mark.parametrize("name", service_names())


@names
def test_a_services_name_is_one(name: str) -> None:
    service = load([name])[name]
    assert name in SERVICES
    assert service.name == service.manifest.key == name
    assert service.settings.model_config.get("env_prefix") == f"KISUM_{name.upper()}_"
    assert (service.manifest.kind == "system") == (name not in MODULES)
    assert service.migrations == ROOT / "services" / name / "migrations"


@names
def test_a_service_has_the_files_every_service_has_and_no_others(name: str) -> None:
    folder = ROOT / "services" / name
    files = {entry.name for entry in folder.iterdir() if entry.is_file()}
    assert ALWAYS <= files <= SERVICE_FILES | OWN_FILES.get(name, set())
    for resource in (entry for entry in folder.iterdir() if entry.is_dir() and entry.name not in NOT_RESOURCES):
        found = {entry.name for entry in resource.iterdir() if entry.name != "__pycache__"}
        assert found <= RESOURCE_FILES, resource


@names
def test_each_route_is_in_its_group_guarded_and_says_what_it_answers(name: str) -> None:
    service = load([name])[name]
    routes = [route for router in service.routers for route in router.routes]
    assert routes
    for route in routes:
        assert isinstance(route, GuardedRoute)
        assert route.path.startswith(service.manifest.route_group + "/")
        guard = guard_of(route.endpoint)
        assert guard is not None
        # Of all others the document tells it by their guard.
        assert not isinstance(guard, Public) or 503 in _declared(route), (
            f"{route.path} can meet a database that is away"
        )


def _declared(route: APIRoute) -> set[int]:
    return {int(status) for status in route.responses}


@names
def test_a_change_may_leave_out_any_field_and_none_has_a_default(name: str) -> None:
    app = FastAPI()
    for router in load([name])[name].routers:
        app.include_router(router)
    document = app.openapi()
    for path, item in document["paths"].items():
        if "patch" in item:
            body = item["patch"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            schema = document["components"]["schemas"][body.rpartition("/")[2]]
            assert "required" not in schema, path
            assert [field for field, told in schema["properties"].items() if "default" in told] == [], path


@names
def test_a_service_copies_what_the_registry_and_its_manifest_say(name: str) -> None:
    service = load([name])[name]
    for projection in service.projections:
        # Without it there are no dead letters to park a record in.
        assert name in projection.topic.projected_by
        assert projection.name in service.manifest.reads


@names
def test_a_service_says_what_it_must_not_do(name: str) -> None:
    manifest = load([name])[name].manifest
    assert manifest.must_nots
    assert manifest.owns
    readme = (ROOT / "services" / name / "README.md").read_text()
    assert "## Invariants" in readme
    assert "## When it fails" in readme
