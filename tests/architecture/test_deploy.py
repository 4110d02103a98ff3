"""What docker-compose.yml and infra/deploy say, read against the services, the settings and the lock there are."""

import json
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from dotenv import dotenv_values

from chassis.settings import read_settings
from cli.demo.command import demo
from cli.deploy import deploy
from cli.registry import load, service_names
from contracts.problems import Problem
from infra.embedded.errors import CannotStart

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
GATEWAY = (ROOT / "infra/deploy/gateway/nginx.conf").read_text()
#: What is made by others, and says itself as whom it runs.
SERVERS = {"postgres", "kafka-1", "kafka-2", "kafka-3"}


def init(folder: Path, *arguments: str) -> Result:
    result = CliRunner().invoke(
        deploy, ["init", "--folder", str(folder / "deploy"), "--settings", str(folder / ".env"), *arguments]
    )
    assert result.exit_code == 0, result.output
    return result


def given(folder: Path, name: str) -> dict[str, str]:
    """What a container is given, as docker compose reads it."""
    return {name: value or "" for name, value in dotenv_values(folder / "deploy" / f"{name}.env").items()}


def pinned(lock: str) -> list[tuple[str, str, str]]:
    """Each package of a lock, with its version and its hashes."""
    pins = re.compile(r"^([a-z0-9._-]+)==(\S+)((?:.|\n)*?)(?=^[a-z]|\Z)", re.MULTILINE)
    return pins.findall((ROOT / lock).read_text())


@pytest.mark.parametrize("name", service_names())
def test_each_service_is_an_entry_and_answers_behind_the_gateway(name: str) -> None:
    entry = COMPOSE["services"][name]
    assert entry["env_file"] == [f"${{KISUM_DEPLOY_FOLDER:-.kisum-deploy}}/{name}.env"]
    assert entry["depends_on"] == {"bootstrap": {"condition": "service_completed_successfully"}}
    group = load([name])[name].manifest.route_group
    assert f"~^{group}(/|$) {name};" in GATEWAY


def test_the_gateway_passes_on_what_is_under_a_route_group_and_nothing_else() -> None:
    assert set(re.findall(r"\(/\|\$\) (\w+);", GATEWAY)) == set(service_names())
    answers = re.findall(r"location @(\w+) \{[^}]*return (\d+) '(.*)';", GATEWAY)
    assert all(Problem.model_validate_json(body).status == int(status) for _, status, body in answers)
    # Without the sign the status stays the one of the error, whatever is returned.
    kept = {name: codes for codes, sign, name in re.findall(r"error_page ([\d ]+?)( =)? @(\w+);", GATEWAY) if not sign}
    assert kept.items() <= {name: status for name, status, _ in answers}.items()


def test_prometheus_asks_every_service() -> None:
    (job,) = yaml.safe_load((ROOT / "infra/deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert found["names"] == service_names()
    command = (ROOT / "infra/deploy/Dockerfile").read_text().rpartition("CMD ")[2]
    assert f'"--metrics-port", "{found["port"]}"' in command


@pytest.mark.parametrize("name", sorted(COMPOSE["services"]))
def test_no_container_has_more_than_it_needs(name: str) -> None:
    entry = COMPOSE["services"][name]
    assert entry["cap_drop"] == ["ALL"]
    assert entry["security_opt"] == ["no-new-privileges:true"]
    assert entry["mem_limit"]
    assert entry["stop_grace_period"] == "10s"
    if name not in SERVERS:
        assert entry["read_only"] is True
    if name != "bootstrap":
        assert entry["healthcheck"]["test"]
    published = entry.get("ports", [])
    assert not published or name in {"gateway", "prometheus"}
    if name == "gateway":
        assert entry["networks"] == ["edge"]


def test_the_image_runs_as_nobody_in_particular() -> None:
    last_stage = (ROOT / "infra/deploy/Dockerfile").read_text().rpartition("\nFROM ")[2]
    assert "\nUSER kisum\n" in last_stage
    assert "apt-get" not in last_stage


def test_a_service_is_given_all_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init(tmp_path)
    for name, service in load(service_names()).items():
        with monkeypatch.context() as environment:
            for variable, value in given(tmp_path, name).items():
                environment.setenv(variable, value)
            assert read_settings(service.settings).kafka_username == name


def test_a_service_is_given_its_own_secrets_only(tmp_path: Path) -> None:
    init(tmp_path)
    secrets = {path.name: path.read_text() for path in (tmp_path / "deploy" / "secrets").iterdir()}
    for name in service_names():
        held = (tmp_path / "deploy" / f"{name}.env").read_text()
        own = {f"kafka-{name}", f"postgres-{name}"}
        own |= {secret for secret in secrets if secret.startswith(f"{name.replace('_', '-')}-")}
        assert {secret for secret, value in secrets.items() if value in held} <= own, name
        # The owner's password is for migrations.
        assert secrets[f"postgres-{name}-owner"] not in held


def test_what_init_writes_is_private_and_stays(tmp_path: Path) -> None:
    init(tmp_path)
    folder = tmp_path / "deploy"
    files = [tmp_path / ".env", *folder.glob("*.env"), *(folder / "secrets").iterdir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    before = {path: path.read_bytes() for path in files}
    init(tmp_path)
    assert {path: path.read_bytes() for path in files} == before


@pytest.mark.parametrize("arguments", [("--cluster",), ("--port", "9999")])
def test_init_does_not_say_otherwise_than_what_is_there(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    init(tmp_path, "--port", "8090")
    folder = ("--folder", str(tmp_path / "deploy"), "--settings", str(tmp_path / ".env"))
    result = CliRunner().invoke(deploy, ["init", *folder, *arguments])
    assert isinstance(result.exception, CannotStart)
    assert str(tmp_path / ".env") in str(result.exception)
    assert given(tmp_path, "checkout")["KISUM_CHECKOUT_PUBLIC_URL"] == "http://127.0.0.1:8090"


def test_a_cluster_has_three_of_all_that_must_not_be_lost(tmp_path: Path) -> None:
    init(tmp_path, "--cluster")
    chosen = dotenv_values(tmp_path / ".env")
    assert chosen["COMPOSE_PROFILES"] == "cluster"
    assert chosen["KISUM_KAFKA_VOTERS"] == "1@kafka-1:9093,2@kafka-2:9093,3@kafka-3:9093"
    assert (chosen["KISUM_KAFKA_REPLICAS"], chosen["KISUM_INSTANCES"]) == ("3", "2")
    assert given(tmp_path, "bootstrap")["KISUM_BOOTSTRAP_REPLICATION_FACTOR"] == "3"
    assert given(tmp_path, "finance")["KISUM_FINANCE_KAFKA_BOOTSTRAP_SERVERS"].count(",") == 2


def test_the_example_names_all_that_may_be_said_and_no_secret(tmp_path: Path) -> None:
    init(tmp_path)
    example = dotenv_values(ROOT / ".env.example")
    assert example.keys() == dotenv_values(tmp_path / ".env").keys()
    said = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text())) | {"COMPOSE_PROFILES"}
    assert said - {"COMPOSE_PROJECT_NAME"} == example.keys()


def test_bootstrap_is_given_a_password_for_every_principal(tmp_path: Path) -> None:
    init(tmp_path)
    passwords = json.loads(given(tmp_path, "bootstrap")["KISUM_BOOTSTRAP_PASSWORDS"])
    assert passwords.keys() == {
        name
        for service in service_names()
        for name in (f"kafka-{service}", f"postgres-{service}", f"postgres-{service}-owner")
    }


@pytest.mark.parametrize("name", ["infra/deploy/requirements.lock", "benchmarks/requirements.lock"])
def test_what_is_pinned_apart_is_pinned_to_the_same_versions(name: str) -> None:
    versions = {package: version for package, version, _ in pinned("requirements.lock")}
    apart = pinned(name)
    assert apart
    for package, version, hashes in apart:
        assert "--hash=sha256:" in hashes, package
        assert versions.get(package, version) == version, package


def test_three_brokers_are_a_choice_of_containers_only() -> None:
    result = CliRunner().invoke(demo, ["--cluster"])
    assert result.exit_code == 2
    assert "--cluster is a choice of --containers" in result.output


def test_the_image_has_everything_that_services_depend_on() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.match(r"[A-Za-z0-9._-]+", each)[0] for each in declared}  # type: ignore[index]
    # What these depend on in turn is refused by pip itself where it has no hash.
    assert names - {package for package, _, _ in pinned("infra/deploy/requirements.lock")} == set()
