"""The files in `deploy/` match the code: commands, settings, probes, metrics. Needs no Docker or cluster."""

import argparse
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml
from django.core.management import load_command_class

from controlplane.core import schedule
from tests.support import deployment
from tests.support.deployment import DEPLOY, Process
from tests.support.sources import ROOT

COMMANDS = {
    "serve": "controlplane",
    "setup_instance": "policies_app",
    "migrate": "controlplane",
    "collectstatic": "django.contrib.staticfiles",
}
PROCESSES = deployment.processes()


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.where)
def test_each_command_exists(process: Process) -> None:
    program, *arguments = process.command
    if program == "celery":
        assert arguments[:2] == ["-A", "controlplane.celery"]
        assert arguments[2] in ("worker", "beat")
        return
    assert (program, arguments[0]) == ("python", "manage.py")
    name = arguments[1]
    parser = load_command_class(COMMANDS[name], name).create_parser("manage.py", name)
    parser.error = _raise  # type: ignore[method-assign]
    parser.parse_args(arguments[2:])


def _raise(message: str) -> None:
    raise argparse.ArgumentTypeError(message)


@pytest.mark.parametrize("kind", ["compose", "kubernetes", "systemd"])
def test_each_kind_of_installation_runs_every_process(kind: str) -> None:
    files = {"compose": "compose ", "kubernetes": ".yaml", "systemd": ".service"}[kind]
    words = [process.command for process in PROCESSES if files in process.where]
    assert {"serve", "migrate", "setup_instance"} <= {word for command in words for word in command}
    assert {"worker", "beat"} <= {command[3] for command in words if command[0] == "celery"}


def test_only_existing_settings_are_set() -> None:
    source = (ROOT / "controlplane" / "settings.py").read_text()
    read = set(re.findall(r"""env\.\w+\(\s*"([A-Z0-9_]+)\"""", source))
    for where, names in deployment.settings_named().items():
        assert names, where
        assert {name.removesuffix("_FILE") for name in names} <= read, where
    assert set(re.findall(r"^ *(?:ENV )?([A-Z_]+)=", _dockerfile(), re.MULTILINE)) - _PYTHONS <= read


_PYTHONS = {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}


def _dockerfile() -> str:
    return (DEPLOY / "Dockerfile").read_text()


def test_the_image_copies_existing_files_and_runs_as_an_unprivileged_user() -> None:
    copied = [
        name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", _dockerfile(), re.MULTILINE)
        for name in line.split()
    ]  # fmt: skip
    assert copied
    assert [name for name in copied if not (ROOT / name).exists()] == []
    shown = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert set(copied) <= shown
    assert re.findall(r"^USER (.*)$", _dockerfile(), re.MULTILINE) == ["10001"]
    assert ":latest" not in _dockerfile()


def test_the_image_has_every_package() -> None:
    """Packages that settings and URLs import; without one the server would not start."""
    for name in ("controlplane", "policies_app", "rollout_app", "templates", "router_client", "manage.py"):
        assert re.search(rf"^COPY .*\b{re.escape(name)}\b", _dockerfile(), re.MULTILINE), name


@pytest.mark.parametrize("path", deployment.KUBERNETES, ids=lambda path: path.name)
def test_the_manifests_are_valid(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        if document["kind"] != "Kustomization":
            kubernetes_validate.validate(document, "1.33", strict=True)


def test_kustomize_lists_every_manifest() -> None:
    listed = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())["resources"]
    assert {*listed, "kustomization.yaml"} == {path.name for path in deployment.KUBERNETES}


def test_every_pod_is_confined() -> None:
    for path, document in deployment.documents():
        if "template" not in document.get("spec", {}):
            continue
        pod = document["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"], path
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert container["securityContext"]["readOnlyRootFilesystem"], path
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, path
            assert container["resources"]["limits"]["memory"], path


def test_compose_restarts_processes_and_waits_for_health() -> None:
    services = yaml.safe_load(deployment.COMPOSE.read_text())["services"]
    assert set(services) == {"postgres", "redis", "migrate", "gateway", "worker", "beat"}
    for name, service in services.items():
        assert service["restart"] == ("no" if name == "migrate" else "unless-stopped"), name
        assert "healthcheck" in service, name
    for name in ("gateway", "worker", "beat"):
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


@pytest.mark.parametrize("path", deployment.UNITS, ids=lambda path: path.name)
def test_a_unit_is_well_formed(path: Path) -> None:
    unit = deployment.unit(path)
    assert unit["Service"]["User"] == "pointsman"
    assert unit["Service"]["NoNewPrivileges"] == "yes"
    assert unit["Install"]["WantedBy"] == "pointsman.target"


@pytest.mark.parametrize("name", ["gateway", "worker", "beat"])
def test_systemd_restarts_every_process(name: str) -> None:
    """F14: Celery's workers end when Redis is out of memory or killed."""
    service = deployment.unit(DEPLOY / "systemd" / f"pointsman-{name}.service")["Service"]
    assert (service["Restart"], service["RestartSec"]) == ("always", "2")


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze")
    for path in (DEPLOY / "systemd").glob("pointsman*.[st]*"):
        # The paths of an installation do not exist on this machine: `true` replaces each program.
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", path.read_text(), flags=re.MULTILINE)
        (tmp_path / path.name).write_text(re.sub(r"^User=.*$", "User=root", text, flags=re.MULTILINE))
    found = subprocess.run(
        [program, "verify", "--man=no", *map(str, tmp_path.glob("*.service"))],
        capture_output=True,
        text=True,
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
    )
    ours = [line for line in found.stderr.splitlines() if "pointsman" in line]
    assert ours == []


def test_the_hosts_of_the_cluster_are_its_services() -> None:
    """Routers in the cluster call the service; a name that is not in ALLOWED_HOSTS is answered with 400."""
    services = {d["metadata"]["name"] for _, d in deployment.documents() if d["kind"] == "Service"}
    (config,) = (d["data"] for _, d in deployment.documents() if d["kind"] == "ConfigMap")
    public = urlsplit(config["PUBLIC_URL"]).hostname
    inside = set(config["ALLOWED_HOSTS"].split(",")) - {public}
    assert inside == {host for name in services for host in (name, f"{name}.default.svc")}


def test_the_documents_that_the_files_name_exist() -> None:
    files = [path for place in ("deploy", "examples") for path in (ROOT / place).rglob("*") if path.is_file()]
    named = {
        name for path in files for name in re.findall(r"docs/[\w/-]+\.\w+", path.read_text(errors="ignore"))
    }
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", ["operate.md", "restore.md"])
def test_the_backup_names_every_file_of_the_instance(page: str) -> None:
    """Without them a restored instance signs with another key, and cannot read what it encrypted."""
    text = (ROOT / "docs" / "how-to" / page).read_text()
    files = ("secret-key", "signing-key", "signing-key.retired", "checkpoints", "served.json")
    assert [name for name in (*files, "SECRET_KEY", "POINTSMAN_SIGNING_KEY") if f"`{name}`" not in text] == []


def test_an_upgrade_stops_every_process_and_starts_it_again() -> None:
    text = (ROOT / "docs" / "how-to" / "operate.md").read_text()
    deployments = [document for _, document in deployment.documents() if document["kind"] == "Deployment"]
    names = [document["metadata"]["name"] for document in deployments]
    (scaled,) = re.findall(r"^kubectl scale deployment (.*) --replicas=0$", text, re.MULTILINE)
    assert sorted(scaled.split()) == sorted(names)
    assert all(document["spec"]["replicas"] for document in deployments), "`apply` would leave them at 0"
    (selected,) = re.findall(r"component in \((.*)\)'", text)
    labels = {d["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] for d in deployments}
    assert set(selected.split(",")) == labels
    assert re.search(r"^docker compose stop gateway worker beat$", text, re.MULTILINE)


def _scrape_configs() -> dict[str, dict[str, Any]]:
    """Return the job of Prometheus for each kind of installation: the file's, and with one of its comments instead."""
    text = (DEPLOY / "monitoring" / "prometheus.yaml").read_text()
    head, _, kinds = text.partition("    # One of the following, by the kind of installation.\n")
    systemd, compose, kubernetes = re.split(
        r"^    # (?:Docker Compose|Kubernetes)\b.*\n", kinds, flags=re.MULTILINE
    )
    found = {}
    for kind, lines in {"systemd": systemd, "compose": compose, "kubernetes": kubernetes}.items():
        document = yaml.safe_load(
            head + re.sub(r"^    # (?=[a-z_ ]+:|  )", "    ", lines, flags=re.MULTILINE)
        )
        (found[kind],) = document["scrape_configs"]
    return found


def test_prometheus_scrapes_the_gateways_of_each_kind_of_installation() -> None:
    """It named a host that none of them has."""
    jobs = _scrape_configs()
    rules = yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())["groups"][0]["rules"]
    named = {job for rule in rules for job in re.findall(r'up\{job="(\w+)"', rule["expr"])}
    assert {job["job_name"] for job in jobs.values()} == named

    def target(kind: str) -> tuple[str, str]:
        ((host, port),) = (one.split(":") for each in jobs[kind]["static_configs"] for one in each["targets"])
        return host, port

    def option(where: str, name: str) -> str:
        (words,) = (process.command for process in PROCESSES if process.where == where)
        return words[words.index(name) + 1]

    unit = "pointsman-gateway.service"
    assert target("systemd") == (option(unit, "--host"), option(unit, "--port"))
    assert target("compose") == ("gateway", option("compose gateway", "--port"))
    (discovery,) = jobs["kubernetes"]["kubernetes_sd_configs"]
    selected = dict(pair.split("=") for pair in discovery["selectors"][0]["label"].split(","))
    (pod,) = (
        document["spec"]["template"]
        for path, document in deployment.documents()
        if path.name == "gateway.yaml" and document["kind"] == "Deployment"
    )
    assert selected == pod["metadata"]["labels"]
    kept = jobs["kubernetes"]["relabel_configs"][0]["regex"]
    assert kept in [port["name"] for container in pod["spec"]["containers"] for port in container["ports"]]


def _metrics_named(text: str) -> set[str]:
    return {name.removesuffix("_bucket") for name in re.findall(r"pointsman_[a-z_]+", text)}


def test_alerts_and_panels_use_existing_metrics() -> None:
    documented = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    rules = yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())["groups"][0]["rules"]
    dashboard = json.loads((DEPLOY / "monitoring" / "grafana-dashboard.json").read_text())
    queries = [rule["expr"] for rule in rules]
    queries += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    names = set().union(*map(_metrics_named, queries))
    assert names
    assert {name for name in names if f"`{name.removeprefix('pointsman_')}`" not in documented} == set()
    for rule in rules:
        assert {"summary", "description"} == set(rule["annotations"]), rule["alert"]


def test_alerts_name_existing_jobs() -> None:
    rules = yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())["groups"][0]["rules"]
    named = {job for rule in rules for job in re.findall(r'job_age_seconds\{job="([\w.]+)"', rule["expr"])}
    assert len(named) == 2
    assert named <= {job.path for job in schedule.TABLE}


def test_promtool_accepts_the_alerts() -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("there is no promtool (Debian: the package prometheus)")
    path = DEPLOY / "monitoring" / "alerts.yaml"
    done = subprocess.run([program, "check", "rules", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
