"""deploy/: each file passes the checker of its own kind, and names only options, metrics and files that exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import BIN, ROOT, RunningServer, run, tool
from tests.test_docs import command_options, options_in

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
OBJECTS = sorted(path for path in KUBERNETES.glob("*/*.yaml") if path.name != "kustomization.yaml")
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
VERSION = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)[1]  # type: ignore[index]


def checked(*command: str | Path, cwd: Path = DEPLOY, env: dict[str, str] | None = None) -> str:
    """The output of a checker that is content."""
    result = subprocess.run(
        command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def objects(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


ALL_OBJECTS = [item for path in OBJECTS for item in objects(path)]


@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose.gpu.yaml"]], ids=["cpu", "gpu"])
def test_compose(files: list[str], tmp_path: Path) -> None:
    named = [word for name in files for word in ("-f", f"compose/{name}")]
    text = checked(BIN / "docker-compose", *named, "config", "--format=json", env={"MODEL_REPOSITORY": str(tmp_path)})
    services = json.loads(text)["services"]

    assert set(services) == {"triton", "gateway", "prometheus", "grafana"}
    for service in services.values():
        for volume in service.get("volumes", []):
            assert volume["type"] == "volume" or Path(volume["source"]).exists(), volume
        if "build" in service:
            assert (Path(service["build"]["context"]) / service["build"]["dockerfile"]).is_file()
            assert Path(service["build"]["context"]) == ROOT
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", []))
    assert ("build" in services["triton"]) == (len(files) == 1)


@pytest.mark.parametrize("path", sorted((DEPLOY / "docker").glob("*.Dockerfile")), ids=lambda path: path.name)
def test_dockerfiles(path: Path, tmp_path: Path) -> None:
    checked(BIN / "hadolint", path)

    ignored = path.with_name(path.name + ".dockerignore").read_text().splitlines()
    assert "**/libgomin_ops.*" in ignored[ignored.index("!clients") :]  # not what this machine built
    context = tmp_path / "src"
    context.mkdir()
    for name in (line.removeprefix("!") for line in ignored if line.startswith("!")):
        (context / name).symlink_to(ROOT / name)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    checked(*build, cwd=context, env={"GOMIN_BUILD_NATIVE": "0"})
    with zipfile.ZipFile(*tmp_path.glob("*.whl")) as wheel:
        assert {"gomin_client/vocoder.py", "gomin_gateway/app.py", "gomin_server/cli.py"} <= set(wheel.namelist())
    extras = set(re.search(r"\[(\w+(?:,\w+)+)\]['\"]", path.read_text())[1].split(","))  # type: ignore[index]
    assert extras <= set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize(("tag", "status"), [("py3-none-linux_x86_64", 0), ("py3-none-any", 2)])
def test_the_server_image_has_the_operators_or_is_not_built(tag: str, status: int, tmp_path: Path) -> None:
    """The steps of the stage with the compiler, with a pip that builds a wheel with this tag."""
    text = (DEPLOY / "docker/server.Dockerfile").read_text().replace("\\\n", "")
    builder, final = re.findall(r"^FROM python:(\S+)", text, flags=re.MULTILINE)
    assert builder == final.replace("-slim", "")  # of one Debian: the library needs its C library
    (step,) = re.findall(r"^RUN (pip wheel .+)", text, flags=re.MULTILINE)
    wheels = tmp_path / "wheels"
    pip = tmp_path / "pip"
    pip.write_text(f'#!/bin/sh\nmkdir "{wheels}" && touch "{wheels}/gomin_triton-0-{tag}.whl"\n')
    pip.chmod(0o755)

    step = step.replace("/wheels", str(wheels))
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(["sh", "-c", step], env={"PATH": path}, capture_output=True, text=True, check=False)

    assert (result.returncode, len(list(wheels.iterdir()))) == (status, 1), result.stderr


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.relative_to(KUBERNETES).as_posix())
def test_kubernetes_objects(path: Path) -> None:
    import kubernetes_validate

    for item in objects(path):
        kubernetes_validate.validate(item, "1.31", strict=True)


def test_kustomizations_have_every_file() -> None:
    named = set()
    for path in KUBERNETES.glob("*/kustomization.yaml"):
        content = yaml.safe_load(path.read_text())
        entries = [
            *content["resources"],
            *(name for map_ in content.get("configMapGenerator", []) for name in map_["files"]),
        ]
        named |= {(path.parent / entry).resolve() for entry in entries}

    files = {path for path in KUBERNETES.glob("*/*") if path.name != "kustomization.yaml"}
    assert named == files | {KUBERNETES / "common"}


def test_kubernetes_objects_name_each_other() -> None:
    deployments = [item for item in ALL_OBJECTS if item["kind"] == "Deployment"]
    pods = {item["metadata"]["name"]: item["spec"]["template"] for item in deployments}
    labels = {name: pod["metadata"]["labels"].items() for name, pod in pods.items()}
    assert sorted(item["metadata"]["name"] for item in deployments) == ["gomin-gateway", "gomin-triton", "gomin-triton"]

    for item in ALL_OBJECTS:
        name, spec = item["metadata"]["name"], item["spec"]
        if item["kind"] == "Service":
            assert spec["selector"].items() <= labels[name]
            ports = {port["name"] for container in pods[name]["spec"]["containers"] for port in container["ports"]}
            assert {port["targetPort"] for port in spec["ports"]} <= ports
        elif item["kind"] in ("PodDisruptionBudget", "Deployment"):
            assert spec["selector"]["matchLabels"].items() <= labels[name]
        elif item["kind"] == "HorizontalPodAutoscaler":
            assert spec["scaleTargetRef"]["name"] in pods
        elif item["kind"] == "NetworkPolicy":
            assert spec["podSelector"]["matchLabels"].items() <= labels[name]
    for item in deployments:
        pod = item["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] >= 5 + 30  # preStop; Triton's --exit-timeout-secs, or --drain
        claims = [
            volume["persistentVolumeClaim"]["claimName"]
            for volume in pod["volumes"]
            if "persistentVolumeClaim" in volume
        ]
        assert set(claims) <= {"gomin-models"}


def test_images_have_the_version_of_the_project() -> None:
    texts = [
        path.read_text() for pattern in ("*/*.yaml", "*/*/*.yaml", "*/*.Dockerfile") for path in DEPLOY.glob(pattern)
    ]
    tags = {tag for text in texts for tag in re.findall(r"gomin-(?:server|gateway):([\w.]+)", text)}

    assert tags == {VERSION}


def test_the_kserve_service() -> None:
    """Checked against the schema of KServe's own definition (August 2026) by hand; here, that its fields stay those."""
    (service,) = objects(DEPLOY / "kserve/inferenceservice.yaml")
    predictor = service["spec"]["predictor"]

    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert set(predictor) == {"minReplicas", "maxReplicas", "terminationGracePeriodSeconds", "model"}
    fields = {"modelFormat", "protocolVersion", "runtime", "runtimeVersion", "storageUri", "ports", "resources"}
    assert set(predictor["model"]) == fields
    assert predictor["model"]["protocolVersion"] == "grpc-v2"
    assert predictor["model"]["storageUri"] == "pvc://gomin-models"


def test_systemd_units(tmp_path: Path) -> None:
    system = tmp_path / "etc/systemd/system"
    system.mkdir(parents=True)
    programs = tmp_path / "opt/gomin/bin"
    programs.mkdir(parents=True)
    for name in (
        "network.target",
        "multi-user.target",
        "sysinit.target",
        "basic.target",
        "shutdown.target",
        "-.slice",
        "system.slice",
    ):
        (system / name).write_text("[Unit]\nDefaultDependencies=no\n")
    for unit in UNITS:
        shutil.copy(unit, system)
        program = programs / unit.stem
        program.touch(mode=0o755)
        assert (BIN / unit.stem).exists()

    assert checked(tool("systemd-analyze"), "verify", f"--root={tmp_path}", *(unit.name for unit in UNITS)) == ""

    (system / UNITS[0].name).write_text(UNITS[0].read_text().replace("Restart=", "Restrat="))
    assert "Restrat" in checked(tool("systemd-analyze"), "verify", f"--root={tmp_path}", UNITS[0].name)


def test_the_alarms() -> None:
    promtool = tool("promtool")
    checked(promtool, "check", "config", "prometheus/prometheus.yml")
    checked(promtool, "test", "rules", "prometheus/rules.test.yaml")

    rules = {
        rule["alert"]
        for group in objects(DEPLOY / "prometheus/rules.yaml")[0]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    tested = {
        case["alertname"]
        for test in objects(DEPLOY / "prometheus/rules.test.yaml")[0]["tests"]
        for case in test.get("alert_rule_test", [])
        if case.get("exp_alerts")
    }
    assert tested == rules
    operations = (ROOT / "docs/operations.md").read_text()
    assert [name for name in rules if f"`{name}`" not in operations] == []


@pytest.mark.server
def test_metrics_exist(server: RunningServer) -> None:
    """Those that dashboard, alarms and scaling ask for, at a real server and a real gateway."""
    from tests.gateway.running import running

    dashboard = json.loads((DEPLOY / "grafana/gomin.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += re.findall(
        r"expr: (?:>-)?\n?(.+?)(?:\n +for|\n +- |\n\n)", (DEPLOY / "prometheus/rules.yaml").read_text(), flags=re.DOTALL
    )
    asked += [(KUBERNETES / "prometheus-adapter.yaml").read_text()]
    scaled = [
        metric["pods"]["metric"]["name"]
        for item in ALL_OBJECTS
        if item["kind"] == "HorizontalPodAutoscaler"
        for metric in item["spec"]["metrics"]
    ]
    names = {name for text in asked for name in re.findall(r"\b(?:nv|gomin_gateway)_\w+", text)} | set(scaled)
    assert len(names) > 8

    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics") as answer:
        exposed = answer.read().decode()
    with running([server.grpc]) as gateway:
        exposed += gateway.call("GET", "/metrics").body.decode()
    # a counter without a value yet has a TYPE line alone; Prometheus' client writes that of a counter without _total
    known = set(re.findall(r"^# TYPE (\w+)", exposed, flags=re.MULTILINE)) | set(
        re.findall(r"^(\w+)[{ ]", exposed, flags=re.MULTILINE)
    )
    assert [name for name in names if name not in known and name.removesuffix("_bucket") not in known] == []


def test_the_dashboard_is_complete() -> None:
    dashboard = json.loads((DEPLOY / "grafana/gomin.json").read_text())
    panels = dashboard["panels"]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    assert all(panel["title"] and panel["description"] for panel in panels)
    uids = {panel["datasource"]["uid"] for panel in panels}
    assert uids == {"${" + variable["name"] + "}" for variable in dashboard["templating"]["list"]}
    providers = objects(DEPLOY / "grafana/provisioning/dashboards/gomin.yaml")[0]["providers"]
    assert f"{providers[0]['options']['path']}/gomin.json" in (DEPLOY / "compose/compose.yaml").read_text()


def test_options_exist() -> None:
    """Of our programs, in every file; the values of tritonserver's are checked with a real one elsewhere."""
    known = {
        name: set(re.findall(r"--[\w-]+", run(name, "--help").stdout)) for name in ("gomin-server", "gomin-gateway")
    }
    commands: list[tuple[str, str]] = [
        (unit.stem, unit.read_text().partition("ExecStart=")[2].partition("\n")[0]) for unit in UNITS
    ]
    services = objects(DEPLOY / "compose/compose.yaml")[0]["services"]
    commands += [
        ("gomin-server", str(services["triton"]["command"])),
        ("gomin-gateway", str(services["gateway"]["command"])),
    ]
    for path in sorted((DEPLOY / "docker").glob("*.Dockerfile")):
        commands.append((f"gomin-{path.name.partition('.')[0]}", path.read_text().partition("ENTRYPOINT")[2]))
    for item in ALL_OBJECTS:
        if item["kind"] == "Deployment":
            for container in item["spec"]["template"]["spec"]["containers"]:
                program = container["image"].partition(":")[0]
                if program in known:
                    commands.append((program, str(container["args"])))

    assert len(commands) == 8
    for program, text in commands:
        options = set(re.findall(r"--[\w-]+", text))
        assert options
        assert options <= known[program], (program, text)


def test_commands_in_comments_exist() -> None:
    known = command_options()
    commands = [
        (path.name, command, options)
        for path in DEPLOY.rglob("*")
        if path.is_file()
        for command, options in re.findall(r"(gomin-export (?:gan|diffusion|verify))\b(.*)", path.read_text())
    ]

    assert {name for name, _, _ in commands} >= {"compose.yaml", "gomin-server.service"}
    for name, command, options in commands:
        assert set(options_in(options)) <= known[command], name


def test_the_docs_name_every_folder() -> None:
    text = (ROOT / "docs/operations.md").read_text()

    assert [path.name for path in DEPLOY.iterdir() if f"deploy/{path.name}/" not in text] == []
