"""Manifests of `docs/deploy`, judged by Kubernetes' own schemas."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "docs/deploy"
KNATIVE_ONLY = ("containerConcurrency", "timeoutSeconds")  # in a revision's spec, beside a pod's


def documents(page: str) -> Iterator[dict[str, Any]]:
    """What the YAML blocks of a page hold."""
    for block in re.findall(r"```yaml\n(.*?)```", (FOLDER / page).read_text(), re.DOTALL):
        yield from yaml.safe_load_all(block)


def refusal(document: dict[str, Any]) -> str:
    """Why Kubernetes would not take it; empty if it would."""
    try:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error)
    return ""


def test_kubernetes_takes_its_manifests() -> None:
    """Unknown fields count, too."""
    found = list(documents("kubernetes.md"))
    assert {"Deployment", "Service"} <= {each["kind"] for each in found}
    assert [refusal(each) for each in found] == [""] * len(found)


def test_the_revision_of_knative_is_a_pod() -> None:
    """But for the fields that are Knative's own."""
    services = [each for each in documents("knative.md") if each["kind"] == "Service"]
    assert services
    for service in services:
        assert service["apiVersion"] == "serving.knative.dev/v1"
        template = service["spec"]["template"]
        spec = {key: value for key, value in template["spec"].items() if key not in KNATIVE_ONLY}
        for container in spec["containers"]:
            container.setdefault("name", "user-container")  # as Knative does
            for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
                if probe in container:
                    container[probe]["httpGet"].setdefault("port", 8080)  # as Knative does
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "revision"}, "spec": spec}
        assert refusal(pod) == ""


@pytest.mark.parametrize("field", ["readinessPrope", "terminationGraceSeconds"])
def test_a_misspelled_field_is_refused(field: str) -> None:
    """So the schemas do judge."""
    (deployment,) = (each for each in documents("kubernetes.md") if each["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"][field] = 1
    assert field in refusal(deployment)
