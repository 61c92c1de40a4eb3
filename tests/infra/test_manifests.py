"""Manifests of Kubernetes, judged by its own schemas, and what they say of the profile."""

from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.infra import images
from tests.infra.deployments import check_kubernetes

MANIFEST = images.ROOT / "infra/kubernetes/provider.yaml"
UNFIT = (
    ("selector: {app: provider}\n  ports", "selector: {app: nobody}\n  ports"),
    ("metadata: {labels: {app: provider}}", "metadata: {labels: {app: somebody}}"),
    ("failureThreshold: 300", "failureThreshold: 1"),
    ("periodSeconds: 2, failureThreshold: 1}", "periodSeconds: 2, failureThreshold: 3}"),
    ("path: /livez", "path: /readyz"),
    ("key: api-key", "key: apikey"),
    ("secretKeyRef: {name: provider", "secretKeyRef: {name: another"),
    ("name: PROVIDER_API_KEY", "name: PROVIDER_KEY"),
    ("value: kubernetes", "value: knative"),
    ("value: /data", "value: /tmp"),
    ("mountPath: /data", "mountPath: /tmp"),
    ("targetPort: 8000", "targetPort: 8080"),
    ("port: 80,", "port: 8080,"),
    ("terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds: 3"),
    ("fsGroup: 10001", "fsGroup: 0"),
    ("replicas: 2", "replicas: 0"),
    ("maxUnavailable: 0", "maxUnavailable: 1"),
    ("- name: provider\n          image", "- name: server\n          image"),
)
"""What Kubernetes would take, and nobody could use."""


def documents(text: str) -> dict[str, Any]:
    """What a manifest holds, by kind."""
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


def refusal(document: dict[str, Any]) -> str:
    """Why Kubernetes would not take it; empty if it would. Unknown fields count, too."""
    try:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error)
    return ""


def test_kubernetes_takes_them() -> None:
    """All of them."""
    found = documents(MANIFEST.read_text(encoding="utf-8"))
    assert found.keys() == {"Deployment", "Service"}
    assert [refusal(each) for each in found.values()] == ["", ""]


def test_they_are_what_the_profile_says() -> None:
    """Ports, paths, times, and what the page creates."""
    check_kubernetes(documents(MANIFEST.read_text(encoding="utf-8")))


@pytest.mark.parametrize(("right", "wrong"), UNFIT)
def test_what_does_not_fit_is_noticed(right: str, wrong: str) -> None:
    """One mistake at a time, which the schemas let pass."""
    text = MANIFEST.read_text(encoding="utf-8")
    assert text.count(right) == 1
    found = documents(text.replace(right, wrong))
    assert [refusal(each) for each in found.values()] == ["", ""]
    with pytest.raises(AssertionError):
        check_kubernetes(found)


@pytest.mark.parametrize("field", ["readinessPrope", "terminationGraceSeconds"])
def test_a_misspelled_field_is_refused(field: str) -> None:
    """So the schemas do judge."""
    deployment = documents(MANIFEST.read_text(encoding="utf-8"))["Deployment"]
    deployment["spec"]["template"]["spec"][field] = 1
    assert field in refusal(deployment)
