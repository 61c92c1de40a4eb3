"""What is deployed to Modal, Beam, Baseten, fal, Knative and KServe, judged by their packages."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from provider_core.server.configuration import read_configuration
from provider_core.server.health import BUILT_IN
from provider_core.settings import load_settings
from tests.infra import images
from tests.infra.installed_sdks import MARKS, NAMES, Verdict, verdicts
from tests.infra.test_manifests import refusal

pytestmark = list(MARKS)

ROOT = Path(__file__).parents[2]
FILES = {
    "baseten": ROOT / "infra/baseten/config.yaml",
    "beam": ROOT / "infra/beam/app.py",
    "fal": ROOT / "infra/fal/pyproject.toml",
    "knative": ROOT / "infra/knative/provider.yaml",
    "kserve": ROOT / "infra/kserve/provider.yaml",
    "modal": ROOT / "infra/modal/app.py",
}
MISTAKES = {
    "baseten": (
        ("readiness_endpoint:", "ready_endpoint:"),
        ("server_port: 8000", "server_port: http"),
        ("predict_concurrency", "concurrency"),
        ("run_as_user_id: 10001", "run_as_user_id: 0"),
    ),
    "beam": (
        ("keep_warm_seconds", "scaledown_window"),
        ('"8Gi"', '"8 lots"'),
        ("max_replicas=3", "max_replicas=0"),
        ("Image.from_registry", "Image.from_register"),
    ),
    "fal": (
        ("exposed_port = 8080", 'exposed_port = "8080"'),
        ("max_multiplexing", "max_multiplex"),
        ('path = "/readyz"', 'route = "/readyz"'),
        ("image.cmd =", "image.command ="),
    ),
    "knative": (
        ("containerConcurrency", "concurrency"),
        ("timeoutSeconds: 300", "timeoutSeconds: 5m"),
        ("livenessProbe", "healthProbe"),
        ("kind: Service", "kind: Servce"),
        ("timeoutSeconds", "terminationGracePeriodSeconds"),  # a pod's, but not a revision's
    ),
    "kserve": (
        ("scaleTarget: 32", 'scaleTarget: "32"'),
        ("containerConcurrency", "concurrency"),
        ("supportedModelFormats", "modelFormats"),
        ("kind: InferenceService", "kind: InferenceServce"),
        ("modelFormat: {name: onnx}", "runtimeVersion: onnx"),
    ),
    "modal": (
        ("web_server(8000", 'web_server("8000"'),
        ("startup_timeout=60", "startup_timeout=0"),
        ("max_inputs=", "max_input="),
        ("target_inputs=32", "target_inputs=320"),
        ("modal.exit()", "modal.exit"),
        ("infra/docker/onnxruntime.Dockerfile", "infra/docker/none.Dockerfile"),
    ),
}
NOT_SENT = (".env", ".git/config", "provider_core/__pycache__/a.pyc", ".venv/a.py")
"""What a checkout also holds, and no image should."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an image is made of, cut short, and what it is not made of."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "infra/docker", folder / "infra/docker")
    for name in (".dockerignore", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("provider_core/a.py", "plugins/a.py", "handlers/a.py", *NOT_SENT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a = 1\n")
    return folder


@pytest.fixture(scope="module")
def judged(checkout: Path) -> Mapping[str, list[Verdict]]:
    """Of each platform: the verdict on its file, and then those on its mistakes."""
    found = {}
    for name, path in FILES.items():
        text = path.read_text(encoding="utf-8")
        paths = [path]
        for number, (right, wrong) in enumerate(MISTAKES[name]):
            assert text.count(right) == 1, right
            paths.append(checkout / name / str(number) / path.name)
            paths[-1].parent.mkdir(parents=True)
            paths[-1].write_text(text.replace(right, wrong))
        found[name] = verdicts(name, paths, checkout)
    return found


def declared(judged: Mapping[str, list[Verdict]], name: str) -> dict[str, Any]:
    """What a platform's file declares."""
    return judged[name][0].declared


def test_every_package_has_a_file() -> None:
    """And every file a package."""
    assert sorted(FILES) == NAMES


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_taken(name: str, judged: Mapping[str, list[Verdict]]) -> None:
    """As it is in the repository."""
    assert judged[name][0].refused == ""


@pytest.mark.parametrize(
    ("name", "number"),
    [(name, number) for name, each in MISTAKES.items() for number in range(len(each))],
)
def test_a_mistake_is_refused(name: str, number: int, judged: Mapping[str, list[Verdict]]) -> None:
    """So the package does judge: misspelled names, wrong types and values."""
    assert judged[name][1 + number].refused != "", MISTAKES[name][number]


def test_modal_starts_what_the_profile_says(judged: Mapping[str, list[Verdict]]) -> None:
    """In the image of the repository, which can start Modal's own process, too."""
    asked, there = declared(judged, "modal"), read_configuration("modal")
    function = asked["function"]
    (server,) = (each["webhook_config"] for each in function["method_definitions"].values())

    assert server["type"] == "WEBHOOK_TYPE_WEB_SERVER"
    assert server["web_server_port"] == there.settings.port
    assert server["web_server_startup_timeout"] == 60
    assert function["max_concurrent_inputs"] == there.num_places
    assert function["target_concurrent_inputs"] == there.num_slots
    assert function["timeout_secs"] > there.settings.limits.request_timeout_s
    assert asked["secrets"] == ["provider"]
    assert asked["dockerfiles"][0] == _lines(ROOT / "infra/docker/onnxruntime.Dockerfile")
    assert asked["dockerfiles"][-1][1:] == ["USER root", "ENTRYPOINT []"]
    assert '["provider", "serve", "--platform", "modal"]' in FILES["modal"].read_text()


def test_modal_keeps_models_and_no_bills(judged: Mapping[str, list[Verdict]]) -> None:
    """A volume has no locks, which the journal of replicas that share one needs."""
    (volume,) = declared(judged, "modal")["function"]["volume_mounts"]
    assert volume["mount_path"] == f"{images.data_dir()}/models"


def test_modal_is_sent_what_the_image_is_made_of(judged: Mapping[str, list[Verdict]]) -> None:
    """And nothing else that lies in a checkout."""
    files = declared(judged, "modal")["files"]
    assert {"/pyproject.toml", "/provider_core/a.py", "/infra/docker/healthcheck.py"} <= set(files)
    assert [each for each in files if each.removeprefix("/") in NOT_SENT] == []


def test_beam_starts_what_the_profile_says(
    judged: Mapping[str, list[Verdict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the variables that the service has."""
    service = declared(judged, "beam")
    for name, value in service["environment"].items():
        monkeypatch.setenv(name, value)
    settings = load_settings()

    assert settings.platform == "beam"
    assert service["ports"] == [settings.port]
    assert service["image"] == images.REFERENCE
    assert not service["command"]  # the image's own
    assert service["secrets"] == ["PROVIDER_API_KEY"]


def test_baseten_starts_what_the_profile_says(judged: Mapping[str, list[Verdict]]) -> None:
    """As a user who may write where the image writes."""
    config, there = declared(judged, "baseten"), read_configuration("baseten")
    server = config["docker_server"]

    assert config["base_image"]["image"] == images.REFERENCE
    assert server["start_command"] == "provider serve --platform baseten"
    assert server["server_port"] == there.settings.port != 8080  # its proxy's
    assert server["run_as_user_id"] == images.user_id()
    assert {server["readiness_endpoint"], server["liveness_endpoint"]} <= BUILT_IN.keys()
    assert config["runtime"]["predict_concurrency"] == there.num_places
    assert config["runtime"]["streaming_read_timeout"] > there.settings.limits.sse_keepalive_s
    assert config["environment_variables"] == {"PROVIDER_ACCESS__REQUIRE_KEY": "false"}


def test_fal_starts_what_the_profile_says(judged: Mapping[str, list[Verdict]]) -> None:
    """In the image as it is; fal ends a runner that answers 503, so it must wait for readiness."""
    app, there = declared(judged, "fal"), read_configuration("fal")

    assert app["image"] == {
        "image": images.REFERENCE,
        "cmd": ["serve", "--platform", "fal", "--data-dir", "/tmp/provider"],  # noqa: S108 - there
        "use_isolate": False,
    }
    assert app["exposed_port"] == there.settings.port
    assert app["termination_grace_period_seconds"] == there.settings.server.grace_s
    assert app["request_timeout"] > there.settings.limits.request_timeout_s
    assert app["max_multiplexing"] == there.num_places
    assert BUILT_IN[app["health_check_config"]["path"]].starting == 503
    assert app["health_check_config"]["method"] == "GET"
    assert app["auth"] == "public"
    assert app["secrets"] == ["PROVIDER_API_KEY"]


def test_knative_starts_what_the_profile_says(
    judged: Mapping[str, list[Verdict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the variables that the container has; probes ask the one port there is."""
    template = declared(judged, "knative")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    for each in container["env"]:
        monkeypatch.setenv(each["name"], each.get("value", "sk-1234567890"))
    settings, there = load_settings(), read_configuration("knative")

    assert settings.platform == "knative"
    assert container["image"] == images.REFERENCE
    assert container["volumeMounts"] == [{"name": "data", "mountPath": images.data_dir()}]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in BUILT_IN
    assert template["spec"]["timeoutSeconds"] == settings.server.grace_s
    assert template["spec"]["timeoutSeconds"] > settings.limits.request_timeout_s
    assert template["spec"]["containerConcurrency"] == there.num_places
    target = template["metadata"]["annotations"]["autoscaling.knative.dev/target"]
    assert target == str(there.num_slots)


def test_kserve_starts_what_the_profile_says(judged: Mapping[str, list[Verdict]]) -> None:
    """Where Knative's is, for that is what it serves on."""
    runtime, service = declared(judged, "kserve").values()
    there = read_configuration("knative")
    (container,) = runtime["spec"]["containers"]
    predictor = service["spec"]["predictor"]

    assert container["image"] == images.REFERENCE
    assert container["args"] == ["serve", "--platform", "knative"]
    assert container["ports"] == [{"containerPort": there.settings.port, "protocol": "TCP"}]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == there.settings.port
        assert container[probe]["httpGet"]["path"] in BUILT_IN
    assert container["volumeMounts"] == [{"name": "data", "mountPath": images.data_dir()}]
    assert predictor["containerConcurrency"] == there.num_places
    assert predictor["scaleTarget"] == there.num_slots
    assert predictor["timeout"] == there.settings.server.grace_s
    assert predictor["timeout"] > there.settings.limits.request_timeout_s
    assert predictor["model"]["runtime"] == runtime["metadata"]["name"]
    assert predictor["model"]["modelFormat"]["name"] in {
        each["name"] for each in runtime["spec"]["supportedModelFormats"]
    }


def test_the_container_of_kserve_is_kubernetes(judged: Mapping[str, list[Verdict]]) -> None:
    """By its own schemas, which KServe's classes leave to it."""
    spec = declared(judged, "kserve")["ServingRuntime"]["spec"]
    pod = {"containers": spec["containers"], "volumes": spec["volumes"]}
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "provider"}, "spec": pod}
    assert refusal(document) == ""


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")
