"""What a platform's file must declare, so that the server serves there as its profile says.

Each function is given what the platform's own package, or Kubernetes' schemas, read of a file and
take; it raises AssertionError if nobody could use what is deployed by it.
"""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from provider_core.server.configuration import read_configuration
from provider_core.settings import Settings, load_settings
from tests.infra import images
from tests.platform.documents import read

LONGEST_START_S = 600
"""For the fetching and loading of a model, where a platform ends what takes longer."""

CPUS = 4
MEMORY_MB = 8192
MOST_REPLICAS = 3
"""The same on every platform that is told."""

_IDLE_S = range(60, 601)  # kept for a client that goes on, and not paid for much longer
_KEY = "sk-1234567890"
_PROBES = {"startupProbe": "/startupz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}


def check_kubernetes(found: Mapping[str, Any]) -> None:
    """A deployment and its service, by kind."""
    deployment, service = found["Deployment"]["spec"], found["Service"]["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    settings = _check_container(container, "kubernetes", _PROBES)
    startup, readiness = container["startupProbe"], container["readinessProbe"]

    assert settings.platform == "kubernetes"
    assert deployment["replicas"] == 2
    assert deployment["strategy"] == {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert container["name"] == "provider"  # which recipes of infra/logs look for
    assert pod["terminationGracePeriodSeconds"] == settings.server.grace_s
    assert pod["securityContext"]["fsGroup"] == images.user_id()
    assert {each["name"] for each in pod["volumes"]} == {"data"}
    assert container["ports"] == [{"containerPort": settings.port}]
    for probe in _PROBES:
        assert container[probe]["httpGet"]["port"] == settings.port
    assert startup["periodSeconds"] * startup["failureThreshold"] >= LONGEST_START_S
    noticed_s = readiness["periodSeconds"] * readiness["failureThreshold"]
    assert 0 < noticed_s < settings.server.drain_delay_s

    labels = deployment["template"]["metadata"]["labels"]
    assert labels == deployment["selector"]["matchLabels"] == service["selector"]
    (port,) = service["ports"]
    assert port["targetPort"] == settings.port
    names = {each["metadata"]["name"] for each in found.values()}
    page = read("kubernetes")
    assert re.findall(r"deployment/(\S+)", page) == re.findall(r"service/(\S+)", page) == [*names]
    assert f"8000:{port['port']} " in page


def check_knative(document: Mapping[str, Any]) -> None:
    """A service; its probes ask the one port there is."""
    template = document["spec"]["template"]
    spec, there = template["spec"], read_configuration("knative")
    (container,) = spec["containers"]
    settings = _check_container(container, "knative", {**_PROBES, "startupProbe": None})

    assert settings.platform == "knative"
    assert {each["name"] for each in spec["volumes"]} == {"data"}
    assert spec["timeoutSeconds"] == settings.server.grace_s
    assert spec["timeoutSeconds"] > settings.limits.request_timeout_s
    assert spec["containerConcurrency"] == there.num_places
    assert template["metadata"]["annotations"] == {
        "autoscaling.knative.dev/metric": "concurrency",
        "autoscaling.knative.dev/target": str(there.num_slots),
    }
    assert f" ksvc/{document['metadata']['name']} " in read("knative")


def check_kserve(found: Mapping[str, Any]) -> None:
    """A runtime and a service, by kind, where Knative's is, for that is what it serves on."""
    runtime, service = found["ServingRuntime"], found["InferenceService"]
    there = read_configuration("knative")
    (container,) = runtime["spec"]["containers"]
    predictor = service["spec"]["predictor"]
    _check_container(container, "knative", {**_PROBES, "startupProbe": None})

    assert container["name"] == "kserve-container"  # to which KServe adds what a service has
    assert container["args"] == ["serve", "--platform", "knative"]
    assert container["ports"] == [{"containerPort": there.settings.port, "protocol": "TCP"}]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == there.settings.port
    assert container["resources"] == {
        "requests": {"cpu": str(CPUS), "memory": f"{MEMORY_MB >> 10}Gi"},
        "limits": {"memory": f"{MEMORY_MB >> 10}Gi"},
    }
    assert container["securityContext"] == {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {each["name"] for each in runtime["spec"]["volumes"]} == {"data"}
    assert service["metadata"]["annotations"] == {"serving.kserve.io/deploymentMode": "Knative"}
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (0, MOST_REPLICAS)
    assert predictor["containerConcurrency"] == there.num_places
    assert (predictor["scaleMetric"], predictor["scaleTarget"]) == ("concurrency", there.num_slots)
    assert predictor["timeout"] == there.settings.server.grace_s
    assert predictor["timeout"] > there.settings.limits.request_timeout_s
    assert predictor["model"]["runtime"] == runtime["metadata"]["name"]
    assert predictor["model"]["modelFormat"]["name"] in {
        each["name"] for each in runtime["spec"]["supportedModelFormats"]
    }


def check_modal(asked: Mapping[str, Any]) -> None:
    """An image that can start Modal's own process, too, and places as the server has them."""
    function, there = asked["function"], read_configuration("modal")
    ((method, served),) = function["method_definitions"].items()
    server, class_name = served["webhook_config"], function["function_name"].removesuffix(".*")
    (volume,) = function["volume_mounts"]

    assert server["type"] == "WEBHOOK_TYPE_WEB_SERVER"
    address = f"--{function['app_name']}-{class_name}-{method}.modal.run".lower()
    assert address in read("modal")
    assert server["web_server_port"] == there.settings.port
    assert server["web_server_startup_timeout"] == 60
    assert function["max_concurrent_inputs"] == there.num_places
    assert function["target_concurrent_inputs"] == there.num_slots
    assert function["timeout_secs"] > there.settings.limits.request_timeout_s
    assert function["resources"]["milli_cpu"] == 1000 * CPUS
    assert function["resources"]["memory_mb"] == MEMORY_MB
    assert function["autoscaler_settings"]["scaledown_window"] in _IDLE_S
    # A volume has no locks, which the journal of replicas that share one needs: models, no bills.
    assert volume["mount_path"] == f"{images.data_dir()}/models"
    assert asked["secrets"] == re.findall(
        r'^modal secret create (\S+) "PROVIDER_API_KEY=\$PROVIDER_API_KEY"$',
        read("modal"),
        re.MULTILINE,
    )
    assert asked["dockerfiles"][0] == images.DOCKERFILE.read_text(encoding="utf-8").split("\n")
    assert asked["dockerfiles"][-1][1:] == ["USER root", "ENTRYPOINT []"]


def check_beam(service: Mapping[str, Any]) -> None:
    """The image as it is, by the variables that the service has."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in service["environment"].items():
            patch.setenv(name, value)
        settings = load_settings()

    assert settings.platform == "beam"
    assert service["ports"] == [settings.port] == [read_configuration("beam").settings.port]
    assert service["image"] == images.REFERENCE
    assert not service["command"]  # the image's own
    assert service["memory_mb"] == MEMORY_MB
    assert service["keep_warm_seconds"] in _IDLE_S
    assert service["max_replicas"] == MOST_REPLICAS
    assert service["secrets"] == ["PROVIDER_API_KEY"]
    assert '\nbeam secret create PROVIDER_API_KEY "$PROVIDER_API_KEY"\n' in read("beam")


def check_baseten(config: Mapping[str, Any]) -> None:
    """The image, as a user who may write where it writes."""
    server, there = config["docker_server"], read_configuration("baseten")

    assert config["model_name"] == "provider"
    assert config["base_image"]["image"] == images.REFERENCE
    assert server["start_command"] == "provider serve --platform baseten"
    assert server["server_port"] == there.settings.port != 8080  # its proxy's
    assert server["run_as_user_id"] == images.user_id()
    assert server["predict_endpoint"] == "/v1/chat/completions"
    assert server["readiness_endpoint"] == _PROBES["readinessProbe"]
    assert server["liveness_endpoint"] == _PROBES["livenessProbe"]
    assert config["resources"]["cpu"] == str(CPUS)
    assert config["resources"]["memory"] == f"{MEMORY_MB >> 10}Gi"
    assert config["runtime"]["predict_concurrency"] == there.num_places
    assert config["runtime"]["streaming_read_timeout"] > there.settings.limits.sse_keepalive_s
    assert config["environment_variables"] == {"PROVIDER_ACCESS__REQUIRE_KEY": "false"}


def check_fal(app: Mapping[str, Any]) -> None:
    """The image as it is; fal ends a runner that answers 503, so it must wait for readiness."""
    there = read_configuration("fal")
    health = app["health_check_config"]

    assert app["image"] == {
        "image": images.REFERENCE,
        "cmd": ["serve", "--platform", "fal", "--data-dir", "/tmp/provider"],  # noqa: S108 - there
        "use_isolate": False,
    }
    assert app["machine_type"] == "L"
    assert app["exposed_port"] == there.settings.port
    assert app["startup_timeout"] >= LONGEST_START_S
    assert app["termination_grace_period_seconds"] == there.settings.server.grace_s
    assert app["request_timeout"] > there.settings.limits.request_timeout_s
    assert app["max_multiplexing"] == there.num_places
    assert app["max_concurrency"] == MOST_REPLICAS
    assert app["keep_alive"] in _IDLE_S
    assert (health["method"], health["path"]) == ("GET", _PROBES["readinessProbe"])
    assert 1 <= health["failure_threshold"] <= 5
    assert 1 <= health["timeout_seconds"] <= 10
    assert app["auth"] == "public"
    assert app["secrets"] == ["PROVIDER_API_KEY"]
    assert '\nfal secrets set "PROVIDER_API_KEY=$PROVIDER_API_KEY"\n' in read("fal")


def _check_container(
    container: Mapping[str, Any], platform: str, probes: Mapping[str, str | None]
) -> Settings:
    """The image, the secret that a page creates, and where bills are written.

    Returns:
        The settings by the container's variables.
    """
    ((name, key),) = re.findall(
        r'^kubectl create secret generic (\S+) --from-literal "(.+?)=\$PROVIDER_API_KEY"$',
        read(platform),
        re.MULTILINE,
    )
    secrets = [each["valueFrom"] for each in container["env"] if "valueFrom" in each]
    assert secrets == [{"secretKeyRef": {"name": name, "key": key}}]
    with pytest.MonkeyPatch.context() as patch:
        for each in container["env"]:
            patch.setenv(each["name"], each.get("value", _KEY))
        settings = load_settings()
    assert settings.api_key == _KEY
    assert str(settings.data_dir) == images.data_dir()
    assert container["volumeMounts"] == [{"name": "data", "mountPath": images.data_dir()}]
    assert container["image"] == images.REFERENCE
    asked = {each: container.get(each, {}).get("httpGet", {}).get("path") for each in probes}
    assert asked == probes
    return settings
