"""What is deployed to Modal, Beam, Baseten, fal, Knative and KServe, judged by their packages."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.deployments import (
    check_baseten,
    check_beam,
    check_fal,
    check_knative,
    check_kserve,
    check_modal,
)
from tests.infra.installed_sdks import FOLDER as SDKS
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
        ("kind: Service", "kind: Servizio"),
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
UNFIT = {
    "baseten": (
        ("predict_endpoint: /v1/chat/completions", "predict_endpoint: v1/nothing"),
        ("start_command: provider serve --platform baseten", 'start_command: ""'),
        ("server_port: 8000", "server_port: 8080"),
        ("memory: 8Gi", "memory: 8Mi"),
        ('cpu: "4"', 'cpu: "1"'),
        ("predict_concurrency: 96", "predict_concurrency: -96"),
        ("readiness_endpoint: /readyz", "readiness_endpoint: /livez"),
        ("liveness_endpoint: /livez", "liveness_endpoint: /readyz"),
    ),
    "beam": (
        ('"PROVIDER_PLATFORM": "beam"', '"PROVIDER_PLATFORM": "fal"'),
        ('"8Gi"', '"8Mi"'),
        ("keep_warm_seconds=600", "keep_warm_seconds=0"),
        ('secrets=["PROVIDER_API_KEY"]', 'secrets=["PROVIDER_KEY"]'),
    ),
    "fal": (
        ("startup_timeout = 600", "startup_timeout = 1"),
        ("max_concurrency = 3", "max_concurrency = 0"),
        ("failure_threshold = 3", "failure_threshold = 0"),
        ("timeout_seconds = 5", "timeout_seconds = 0"),
        ("keep_alive = 300", "keep_alive = 0"),
        ('path = "/readyz"', 'path = "/livez"'),
        ('secrets = ["PROVIDER_API_KEY"]', "secrets = []"),
    ),
    "knative": (
        ("key: api-key", "key: apikey"),
        ("secretKeyRef: {name: provider", "secretKeyRef: {name: another"),
        ("name: PROVIDER_API_KEY", "name: PROVIDER_KEY"),
        ("knative.dev/metric:", "knative.dev/metrics:"),
        ("knative.dev/metric: concurrency", "knative.dev/metric: cpu"),
        ('knative.dev/target: "32"', 'knative.dev/target: "320"'),
        ("timeoutSeconds: 300", "timeoutSeconds: -1"),
        ("path: /livez", "path: /readyz"),
        ("mountPath: /data", "mountPath: /tmp"),
    ),
    "kserve": (
        ("deploymentMode:", "deploymentMoode:"),
        ("deploymentMode: Knative", "deploymentMode: Nonsense"),
        ("scaleMetric: concurrency", "scaleMetric: nonsense"),
        ("minReplicas: 0", "minReplicas: -5"),
        ("maxReplicas: 3", "maxReplicas: 0"),
        ("drop: [ALL]", "drop: [NONE]"),
        ("secretKeyRef: {name: provider", "secretKeyRef: {name: another"),
        ("key: api-key", "key: apikey"),
        ("runtime: provider", "runtime: another"),
        ("limits: {memory: 8Gi}", "limits: {memory: 8Mi}"),
        ("path: /livez", "path: /readyz"),
    ),
    "modal": (
        ('Secret.from_name("provider")', 'Secret.from_name("providers")'),
        ("memory=8192", "memory=8"),
        ("def serve(", "def server("),
        ("scaledown_window=300", "scaledown_window=2"),
        ("startup_timeout=60", "startup_timeout=1"),
        ('"/data/models": modal', '"/data": modal'),
        ('"ENTRYPOINT []"', '"CMD []"'),
    ),
}
"""What the packages take, and nobody could use."""
CHECKS = {
    "baseten": check_baseten,
    "beam": check_beam,
    "fal": check_fal,
    "knative": check_knative,
    "kserve": check_kserve,
    "modal": check_modal,
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
    """Of each platform: the verdicts on its file, an empty one, its mistakes, and what is unfit."""
    found = {}
    for name, path in FILES.items():
        text = path.read_text(encoding="utf-8")
        paths = [path]
        for number, (right, wrong) in enumerate([(text, ""), *MISTAKES[name], *UNFIT[name]]):
            assert text.count(right) == 1, right
            paths.append(checkout / name / str(number) / path.name)
            paths[-1].parent.mkdir(parents=True)
            paths[-1].write_text(text.replace(right, wrong))
        found[name] = verdicts(name, paths, checkout)
    return found


def check(name: str, verdict: Verdict) -> None:
    """Want a file that is taken, and starts what the profile says."""
    assert verdict.refused == ""
    CHECKS[name](verdict.declared)


def test_every_package_has_a_file() -> None:
    """And every file a package."""
    assert sorted(FILES) == NAMES


@pytest.mark.parametrize("name", FILES)
def test_the_file_starts_what_the_profile_says(
    name: str, judged: Mapping[str, list[Verdict]]
) -> None:
    """As it is in the repository, and as its package reads it."""
    check(name, judged[name][0])


@pytest.mark.parametrize("name", FILES)
def test_an_empty_file_is_refused(name: str, judged: Mapping[str, list[Verdict]]) -> None:
    """By its package, or for what it does not declare."""
    with pytest.raises(AssertionError):
        check(name, judged[name][1])


@pytest.mark.parametrize(
    ("name", "number"),
    [(name, number) for name, each in MISTAKES.items() for number in range(len(each))],
)
def test_a_mistake_is_refused(name: str, number: int, judged: Mapping[str, list[Verdict]]) -> None:
    """So the package does judge: misspelled names, wrong types and values."""
    assert judged[name][2 + number].refused != "", MISTAKES[name][number]


@pytest.mark.parametrize(
    ("name", "number"),
    [(name, number) for name, each in UNFIT.items() for number in range(len(each))],
)
def test_what_does_not_fit_is_noticed(
    name: str, number: int, judged: Mapping[str, list[Verdict]]
) -> None:
    """One mistake at a time, which the package lets pass."""
    verdict = judged[name][2 + len(MISTAKES[name]) + number]
    assert verdict.refused == "", UNFIT[name][number]
    with pytest.raises(AssertionError):
        CHECKS[name](verdict.declared)


def test_modal_is_sent_what_the_image_is_made_of(judged: Mapping[str, list[Verdict]]) -> None:
    """And nothing else that lies in a checkout."""
    files = judged["modal"][0].declared["files"]
    assert {"/pyproject.toml", "/provider_core/a.py", "/infra/docker/healthcheck.py"} <= set(files)
    assert [each for each in files if each.removeprefix("/") in NOT_SENT] == []


def test_truss_passes_the_header_of_a_key_on() -> None:
    """As the page says of its part of Baseten's proxy."""
    (proxy,) = (SDKS / ".venv/baseten").rglob("docker_server/proxy.conf.jinja")
    assert "proxy_pass http" in proxy.read_text(encoding="utf-8")
    assert "authorization" not in proxy.read_text(encoding="utf-8").lower()


def test_what_kserve_leaves_to_kubernetes_is_taken(judged: Mapping[str, list[Verdict]]) -> None:
    """By its own schemas: the container, its volumes, and what is said of each resource."""
    assert [refusal(each) for each in _pods(judged["kserve"][0].declared.values())] == ["", ""]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("annotations:", "annotation:"),
        ("readinessProbe", "readyProbe"),
        ("emptyDir", "emptyDirr"),
        ("drop: [ALL]", "drops: [ALL]"),
    ],
)
def test_what_kubernetes_does_not_know_is_refused(right: str, wrong: str) -> None:
    """So its schemas do judge."""
    text = FILES["kserve"].read_text(encoding="utf-8")
    assert text.count(right) == 1
    assert any(refusal(each) for each in _pods(yaml.safe_load_all(text.replace(right, wrong))))


def _pods(documents: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each document a pod of what is Kubernetes' own in it."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": document["metadata"],
            "spec": {
                "containers": document["spec"].get("containers", [{"name": "none"}]),
                "volumes": document["spec"].get("volumes", []),
            },
        }
        for document in documents
    ]
