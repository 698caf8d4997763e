"""deploy/compose.yaml and deploy/kubernetes: valid by their schemas, without privilege, with settings that exist."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings

from audit_svc.settings import AuditSettings
from demo.processes import REPOSITORY
from gateway_svc.engines.kinds import engine_kinds
from gateway_svc.settings import GatewaySettings
from gateway_svc.tools.jail.sandbox import JailSettings
from gateway_svc.tools.kinds import kinds
from intake_svc.settings import IntakeSettings
from service_kit.settings import variables

COMPOSE = REPOSITORY / "deploy/compose.yaml"
KUBERNETES = REPOSITORY / "deploy/kubernetes"
KUSTOMIZATION = KUBERNETES / "base/kustomization.yaml"
MANIFESTS = sorted(path for path in KUSTOMIZATION.parent.glob("*.yaml") if path != KUSTOMIZATION)
DOCUMENTS = [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]
PODS = {d["metadata"]["name"]: d["spec"]["template"]["spec"] for d in DOCUMENTS if "template" in d.get("spec", {})}
SETTINGS: dict[str, type[AuditSettings | GatewaySettings | IntakeSettings]] = {
    "audit": AuditSettings,
    "gateway": GatewaySettings,
    "intake": IntakeSettings,
}
ENGINES = [kind.settings for kind in engine_kinds()]
PARTS: list[type[BaseSettings]] = [JailSettings, *ENGINES, *(kind.settings for kind in kinds().values())]
VARIABLES = {
    "audit": variables(AuditSettings),
    "gateway": variables(GatewaySettings).union(*(variables(part) for part in PARTS)),
    "intake": variables(IntakeSettings),
}


def compose() -> Any:
    return yaml.safe_load(COMPOSE.read_text())


def rendered(folder: str) -> list[Any]:
    """What `kubectl apply -k` would apply."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    command = ["kubectl", "kustomize", str(KUBERNETES / folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return list(yaml.safe_load_all(ran.stdout))


def environments() -> Iterator[tuple[str, dict[str, str]]]:
    for name in SETTINGS:
        variables = compose()["services"][name]["environment"]
        # What the user's environment does not set has the value after the dash.
        yield name, {key: re.sub(r"\$\{\w+:?-(.*)\}", r"\1", value) for key, value in variables.items()}
        yield name, {variable["name"]: variable["value"] for variable in PODS[name]["containers"][0]["env"]}


@pytest.mark.image
@pytest.mark.parametrize("version", ["1.37.0", "1.30.0"])
def test_kubernetes_would_take_each_manifest(version):
    import kubernetes_validate  # from the extra `deploy`, which only this target installs

    for document in DOCUMENTS:
        kubernetes_validate.validate(document, version, strict=True)


def test_the_kustomization_names_each_manifest_and_each_image():
    wanted = yaml.safe_load(KUSTOMIZATION.read_text())
    assert wanted["resources"] == [path.name for path in MANIFESTS]
    images = {container["image"] for pod in PODS.values() for container in pod["containers"]}
    assert {f"{image['name']}:{image['newTag']}" for image in wanted["images"]} == images


def test_each_pod_has_the_port_and_the_label_by_which_it_is_scraped():
    monitor = yaml.safe_load((KUBERNETES / "monitoring/pods.yaml").read_text())
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    templates = [d["spec"]["template"] for d in DOCUMENTS if "template" in d.get("spec", {})]
    for template in templates:
        assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        ports = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
        assert endpoint["port"] in ports
    assert monitor["metadata"]["namespace"] == "onrecord"


@pytest.mark.long
@pytest.mark.parametrize("folder", [".", "monitoring"])
def test_kubectl_renders_what_the_manifests_say(folder):
    source = DOCUMENTS if folder == "." else list(yaml.safe_load_all((KUBERNETES / folder / "pods.yaml").read_text()))
    assert sorted(rendered(folder), key=str) == sorted(source, key=str)


@pytest.mark.image
def test_compose_would_take_its_file():
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    checked = subprocess.run(check, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(("name", "environment"), list(environments()))
def test_a_service_starts_with_the_settings_that_a_manifest_gives_it(name, environment, monkeypatch, tmp_path):
    for variable in [v for v in os.environ if v.startswith(("AUDIT_", "GATEWAY_", "INTAKE_"))]:
        monkeypatch.delenv(variable)
    assert environment.keys() <= VARIABLES[name]
    image = dict(re.findall(rf"({name.upper()}_\w+)=(\S+)", (REPOSITORY / "Dockerfile").read_text()))
    needed = {"GATEWAY_OLLAMA_URL": "http://ollama:11434", "GATEWAY_OLLAMA_MODEL": "m"} if name == "gateway" else {}
    for variable, value in {**needed, **image, **environment}.items():
        monkeypatch.setenv(variable, value)
    settings = SETTINGS[name]()
    assert settings.listen.startswith("0.0.0.0:")
    assert settings.server_files is not None


@pytest.mark.parametrize("name", SETTINGS)
def test_a_pod_has_no_privilege_and_no_key_to_the_cluster(name):
    pod = PODS[name]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    written = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert written == {"/var/lib/onrecord", "/tmp"}
    assert container["readinessProbe"]["exec"]["command"] == ["onrecord-health", name]
    for probe in ("startupProbe", "livenessProbe"):
        # What a restart does not cure, such as a full disk or a model server that is away, must not cause one.
        assert container[probe]["exec"]["command"] == ["onrecord-health", name, "--live"]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_container_of_compose_has_no_privilege(name):
    service = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "user", "pid", "network_mode", "devices"}
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


@pytest.mark.parametrize("name", SETTINGS)
def test_a_service_is_given_more_time_to_end_than_it_takes(name):
    for found, environment in environments():
        if found == name:
            drain = float(environment[f"{name.upper()}_DRAIN_SECONDS"])
            assert drain + 10 <= PODS[name]["terminationGracePeriodSeconds"]
    assert compose()["services"][name]["stop_grace_period"] == "45s"
