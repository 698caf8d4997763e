"""deploy/compose.scaled.yaml and deploy/kubernetes/scaled: replicas that keep nothing, and who may reach whom."""

import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from audit_svc.settings import AuditSettings
from demo.processes import REPOSITORY
from gateway_svc.settings import GatewaySettings
from tests.deploy.test_manifests import SETTINGS, VARIABLES, rendered

COMPOSE = REPOSITORY / "deploy/compose.scaled.yaml"
ENVOY = REPOSITORY / "deploy/kubernetes/scaled/envoy.yaml"
OF_LIBPQ = {"PGPASSFILE", "PGPASSWORD"}
REPLICAS = ("audit", "gateway", "envoy")


def compose() -> Any:
    return yaml.safe_load(COMPOSE.read_text())["services"]


@pytest.fixture(scope="module")
def cluster() -> dict[tuple[str, str], Any]:
    """What the overlay renders, by kind and name."""
    return {(d["kind"], re.sub(r"-[a-z0-9]{10}$", "", d["metadata"]["name"])): d for d in rendered("scaled")}


def pod(cluster: dict[tuple[str, str], Any], name: str) -> Any:
    return cluster["Deployment", name]["spec"]["template"]["spec"]


@pytest.mark.image
@pytest.mark.parametrize("version", ["1.37.0", "1.30.0"])
def test_kubernetes_would_take_each_manifest(cluster, version):
    import kubernetes_validate  # from the extra `deploy`, which only this target installs

    for document in cluster.values():
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.image
def test_compose_would_take_its_file():
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    checked = subprocess.run(check, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.long
@pytest.mark.parametrize("name", ["audit", "gateway"])
def test_a_replica_starts_with_the_settings_that_it_is_given(cluster, name, monkeypatch):
    env = pod(cluster, name)["containers"][0]["env"]
    in_cluster = {v["name"]: v.get("value", "postgresql://someone@postgres/db") for v in env}
    in_compose = {k: re.sub(r"\$\{\w+:?-(.*)\}", r"\1", v) for k, v in compose()[name]["environment"].items()}
    image = dict(re.findall(rf"({name.upper()}_\w+)=(\S+)", (REPOSITORY / "Dockerfile").read_text()))
    needed = {"GATEWAY_OLLAMA_URL": "http://ollama:11434", "GATEWAY_OLLAMA_MODEL": "m"} if name == "gateway" else {}
    for environment in (in_cluster, in_compose):
        assert environment.keys() - OF_LIBPQ <= VARIABLES[name]
        with monkeypatch.context() as patch:
            for variable, value in {**image, **environment, **needed}.items():
                patch.setenv(variable, value)
            settings = SETTINGS[name]()
        if isinstance(settings, AuditSettings):
            database = settings.database_url or ""
        else:
            assert isinstance(settings, GatewaySettings)
            assert settings.sessions is not None
            database = settings.sessions.get_secret_value()
        assert re.fullmatch(r"postgresql://\w+@postgres(:5432)?/\w+", database), "a password is in it"


@pytest.mark.long
@pytest.mark.parametrize("name", REPLICAS)
def test_a_replica_has_no_privilege_keeps_nothing_and_stands_apart_from_the_other(cluster, name):
    spec = pod(cluster, name)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all(volume.keys() & {"emptyDir", "secret", "configMap"} for volume in spec["volumes"])
    zones = {spread["topologyKey"] for spread in spec["topologySpreadConstraints"]}
    assert zones == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    chosen = cluster["Deployment", name]["spec"]["selector"]["matchLabels"]
    assert all(spread["labelSelector"]["matchLabels"] == chosen for spread in spec["topologySpreadConstraints"])
    budget = cluster["PodDisruptionBudget", name]["spec"]
    assert (budget["maxUnavailable"], budget["selector"]["matchLabels"]) == (1, chosen)
    service = compose()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert not service.keys() & {"privileged", "cap_add", "pid", "network_mode", "devices"}


@pytest.mark.long
def test_gateways_are_as_many_as_their_turns_want(cluster):
    scaler = cluster["HorizontalPodAutoscaler", "gateway"]["spec"]
    assert "replicas" not in cluster["Deployment", "gateway"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == "gateway"
    (metric,) = scaler["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert f'"{name}"' in (REPOSITORY / "gateway_svc/watching/metrics.py").read_text()


def allowed(cluster: dict[tuple[str, str], Any], name: str, way: str) -> set[str]:
    """Which parts a part's network policy names, of those that stand in the namespace."""
    peers = {"ingress": "from", "egress": "to"}[way]
    rules = cluster["NetworkPolicy", name]["spec"][way]
    found = [peer for rule in rules for peer in rule.get(peers, []) if "namespaceSelector" not in peer]
    labels = [peer["podSelector"]["matchLabels"] for peer in found if "podSelector" in peer]
    return {label["app.kubernetes.io/name"] for label in labels}


@pytest.mark.long
def test_whom_a_policy_lets_call_another_lets_be_called(cluster):
    for caller, called in [("gateway", "envoy"), ("intake", "envoy"), ("envoy", "gateway"), ("envoy", "audit")]:
        assert called in allowed(cluster, caller, "egress")
        assert caller in allowed(cluster, called, "ingress")
    assert "gateway" not in allowed(cluster, "audit", "ingress")


@pytest.mark.long
def test_envoy_leads_to_names_and_ports_that_are_there(cluster):
    config = yaml.safe_load(ENVOY.read_text())["static_resources"]
    assert yaml.safe_load(cluster["ConfigMap", "envoy"]["data"]["envoy.yaml"])["static_resources"] == config
    for cluster_ in config["clusters"]:
        for place in cluster_["load_assignment"]["endpoints"][0]["lb_endpoints"]:
            address = place["endpoint"]["address"]["socket_address"]
            ports = cluster["Service", address["address"]]["spec"]["ports"]
            assert address["port_value"] in [port["port"] for port in ports]
            assert address["address"] in compose()
    listened = {listener["address"]["socket_address"]["port_value"] for listener in config["listeners"]}
    assert listened == {port["port"] for port in cluster["Service", "envoy"]["spec"]["ports"]}
    assert listened == {int(port.rpartition(":")[2]) for port in compose()["envoy"]["ports"]}
