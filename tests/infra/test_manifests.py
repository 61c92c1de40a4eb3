"""Manifests of Kubernetes, judged by its own schemas, and what they say of the profile."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from provider_core.server.health import BUILT_IN
from provider_core.settings import load_settings
from tests.infra import images

MANIFEST = images.ROOT / "infra/kubernetes/provider.yaml"


def documents(path: Path) -> dict[str, Any]:
    """What a file holds, by kind."""
    return {each["kind"]: each for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))}


def refusal(document: dict[str, Any]) -> str:
    """Why Kubernetes would not take it; empty if it would. Unknown fields count, too."""
    try:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error)
    return ""


def test_kubernetes_takes_them() -> None:
    """All of them."""
    found = documents(MANIFEST)
    assert found.keys() == {"Deployment", "Service"}
    assert [refusal(each) for each in found.values()] == ["", ""]


def test_they_are_what_the_profile_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports, paths, the grace and the folder."""
    found = documents(MANIFEST)
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    for each in container["env"]:
        monkeypatch.setenv(each["name"], each.get("value", "sk-1234567890"))
    settings = load_settings()

    assert settings.platform == "kubernetes"
    assert pod["terminationGracePeriodSeconds"] == settings.server.grace_s
    assert pod["securityContext"]["fsGroup"] == images.user_id()
    assert container["image"] == images.REFERENCE
    assert container["ports"] == [{"containerPort": settings.port}]
    assert container["volumeMounts"] == [{"name": "data", "mountPath": str(settings.data_dir)}]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == settings.port
        assert container[probe]["httpGet"]["path"] in BUILT_IN
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == settings.port


@pytest.mark.parametrize("field", ["readinessPrope", "terminationGraceSeconds"])
def test_a_misspelled_field_is_refused(field: str) -> None:
    """So the schemas do judge."""
    deployment = documents(MANIFEST)["Deployment"]
    deployment["spec"]["template"]["spec"][field] = 1
    assert field in refusal(deployment)
