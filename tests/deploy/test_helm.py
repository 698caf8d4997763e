"""deploy/helm/onrecord, rendered by Helm's own engine: what it makes is what deploy/kubernetes makes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.processes import REPOSITORY
from tests.deploy.test_manifests import DOCUMENTS

CHART = REPOSITORY / "deploy/helm/onrecord"
pytestmark = pytest.mark.image
helm = pytest.importorskip("helm_python", reason="the extra `deploy` is not installed, which has Helm's engine")


def rendered(folder: Path = CHART, namespace: str = "onrecord", **values: Any) -> dict[tuple[str, str], Any]:
    """What an installation with these values would make, by kind and name."""
    with helm.Chart.load(str(folder)) as chart:
        texts = chart.render(values, name="onrecord", namespace=namespace)
    documents = [one for text in texts.values() for one in yaml.safe_load_all(text) if one]
    return {(one["kind"], one["metadata"]["name"]): one for one in documents}


def test_by_default_it_makes_what_the_kustomization_makes_but_for_the_namespace():
    wanted = {(one["kind"], one["metadata"]["name"]): one for one in DOCUMENTS}
    del wanted["Namespace", "onrecord"]
    assert rendered() == wanted


def test_values_go_where_they_belong():
    door = {"enabled": False}
    gateway = {"replicas": 5, "env": [{"name": "GATEWAY_ENGINE", "value": "openai"}], "storage": {"class": "nfs4"}}
    image = {"registry": "registry.example.org/team/", "tag": "9.9"}
    made = rendered(namespace="agents", image=image, gateway=gateway, audit={"secret": "ledger"}, intake=door)
    assert not [name for _, name in made if "intake" in name]
    assert {one["metadata"]["namespace"] for one in made.values()} == {"agents"}
    pod = made["Deployment", "gateway"]["spec"]["template"]["spec"]
    assert made["Deployment", "gateway"]["spec"]["replicas"] == 5
    assert pod["containers"][0]["image"] == "registry.example.org/team/onrecord-gateway:9.9"
    env = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
    assert env["GATEWAY_ENGINE"] == "openai"
    assert env["GATEWAY_AUDIT_TARGET"] == "dns:///audit.agents.svc:50052"
    assert made["PersistentVolumeClaim", "gateway-state"]["spec"]["storageClassName"] == "nfs4"
    volumes = made["StatefulSet", "audit"]["spec"]["template"]["spec"]["volumes"]
    assert volumes[0]["secret"]["secretName"] == "ledger"
    assert "onrecord.svc" not in json.dumps(list(made.values()))


def test_the_chart_is_of_the_version_that_the_images_are_of():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    images = {c["image"] for one in rendered().values() for c in _containers(one)}
    assert images == {f"onrecord-{name}:{chart['appVersion']}" for name in ("audit", "gateway", "intake")}


def test_a_template_that_is_broken_is_not_rendered(tmp_path):
    """The engine is Helm's: what it would refuse fails here."""
    copy = shutil.copytree(CHART, tmp_path / "onrecord")
    audit = copy / "templates/audit.yaml"
    audit.write_text(audit.read_text().replace("{{ .Release.Namespace }}", "{{ .Release.Namespace", 1))
    with pytest.raises(helm.HelmError):
        rendered(copy)


def _containers(document: Any) -> list[Any]:
    template = document.get("spec", {}).get("template")
    return list(template["spec"]["containers"]) if template else []
