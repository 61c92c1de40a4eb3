"""What hosting platforms do to a container, from their documentation and not from our profiles.

A row is what the simulator plays. Where a platform does not document its grace, the row has that of
the strictest GPU platform that does, Cloud Run's 10 s.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from signal import SIGINT, SIGTERM, Signals
from typing import Literal

UNDOCUMENTED_GRACE_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A health check.

    Attributes:
        path: Asked with GET.
        purpose: `liveness` must always pass; `readiness` only when requests should be sent;
            `startup` never before that, and ever after.
        passes: The least and the greatest status code that pass.
        initialising: The one code that means "not yet" and not "broken", if there is one.
    """

    path: str
    purpose: Literal["liveness", "readiness", "startup"]
    passes: tuple[int, int] = (200, 200)
    initialising: int | None = None

    def is_passed(self, status: int) -> bool:
        """Whether the platform is content."""
        return self.passes[0] <= status <= self.passes[1]


@dataclass(frozen=True, kw_only=True)
class Contract:
    """One platform.

    Attributes:
        default_port: Where it connects if nobody says otherwise.
        port_variables: By which it tells the container, the strongest first.
        probe_port_variable: By which it tells another port for health checks.
        forbidden_port: Taken by the platform itself.
        is_same_host: Whether it connects from within the container.
        environment: What else it sets.
        probes: What it asks.
        timeout_s: After which it cuts a request.
        max_body_bytes: Of a request.
        proxy_idle_s: How long its proxy keeps a connection to the container.
        stop_signal: What it sends.
        grace_s: Then, after so long, SIGKILL.
        keeps_sending: Whether requests still come for a while after the signal.
        address_header: Where its proxy puts the client's address.
        request_id_header: Where it puts its own name of a request.
        region: The variable that names the region.
        writable: The only folder that can be written.
    """

    default_port: int
    port_variables: tuple[str, ...] = ()
    probe_port_variable: str | None = None
    forbidden_port: int | None = None
    is_same_host: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    probes: tuple[Probe, ...] = ()
    timeout_s: float | None = None
    max_body_bytes: int | None = None
    proxy_idle_s: float = 60.0
    stop_signal: Signals = SIGTERM
    grace_s: float = UNDOCUMENTED_GRACE_S
    keeps_sending: bool = False
    address_header: str | None = None
    request_id_header: str = "X-Request-Id"
    region: str | None = None
    writable: str | None = None


_KUBELET = (
    Probe(path="/startupz", purpose="startup", passes=(200, 399)),
    Probe(path="/readyz", purpose="readiness", passes=(200, 399)),
    Probe(path="/livez", purpose="liveness", passes=(200, 399)),
)

CONTRACTS: Mapping[str, Contract] = {
    "cloud-run": Contract(
        default_port=8080,
        port_variables=("PORT",),
        environment={"K_SERVICE": "s", "K_REVISION": "s-1", "K_CONFIGURATION": "s"},
        probes=_KUBELET,
        timeout_s=300,
        max_body_bytes=32 * 2**20,
        proxy_idle_s=600,
        grace_s=10,
        address_header="X-Forwarded-For",
    ),
    "knative": Contract(
        default_port=8080,
        port_variables=("PORT",),
        environment={
            "K_SERVICE": "s",
            "K_REVISION": "s-1",
            "K_CONFIGURATION": "s",
            "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        },
        probes=(
            *_KUBELET,
            Probe(path="/v2/health/ready", purpose="readiness"),
            Probe(path="/v2/health/live", purpose="liveness"),
        ),
        timeout_s=300,
        grace_s=300,
    ),
    "azure": Contract(
        default_port=8000,
        port_variables=("CONTAINER_APP_PORT",),
        environment={"CONTAINER_APP_NAME": "a", "CONTAINER_APP_REVISION": "a--1"},
        probes=_KUBELET,
        timeout_s=240,
        grace_s=30,
        keeps_sending=True,
        address_header="X-Forwarded-For",
    ),
    "huggingface": Contract(
        default_port=80,
        probes=(Probe(path="/health", purpose="readiness", initialising=503),),
        keeps_sending=True,
    ),
    "runpod-lb": Contract(
        default_port=80,
        port_variables=("PORT",),
        probe_port_variable="PORT_HEALTH",
        environment={"RUNPOD_ENDPOINT_ID": "e", "RUNPOD_POD_ID": "p", "PORT_HEALTH": "80"},
        probes=(Probe(path="/ping", purpose="readiness", initialising=204),),
        timeout_s=330,
        max_body_bytes=30 * 10**6,
        keeps_sending=True,
        region="RUNPOD_DC_ID",
    ),
    "cerebrium": Contract(
        default_port=8000,
        port_variables=("PORT",),
        probes=(
            Probe(path="/livez", purpose="liveness"),
            Probe(path="/readyz", purpose="readiness"),
        ),
        timeout_s=900,
        grace_s=900,
    ),
    "baseten": Contract(
        default_port=8000,
        forbidden_port=8080,
        probes=(
            Probe(path="/livez", purpose="liveness"),
            Probe(path="/readyz", purpose="readiness"),
        ),
        timeout_s=18030,
        grace_s=10,
    ),
    "beam": Contract(
        default_port=8000,
        port_variables=("PORT",),
        probes=(Probe(path="/readyz", purpose="readiness"),),
    ),
    "fal": Contract(
        default_port=8080,
        probes=(Probe(path="/health", purpose="readiness"),),
    ),
    "modal": Contract(
        default_port=8000,
        environment={"MODAL_TASK_ID": "ta-1"},
        timeout_s=150,
        stop_signal=SIGINT,
        grace_s=30,
        region="MODAL_REGION",
    ),
    "koyeb": Contract(
        default_port=8000,
        port_variables=("PORT",),
        environment={"KOYEB_SERVICE_NAME": "s", "KOYEB_APP_NAME": "a"},
        probes=(Probe(path="/health", purpose="readiness"),),
        keeps_sending=True,
        region="KOYEB_REGION",
    ),
    "fly": Contract(
        default_port=8080,
        environment={"FLY_APP_NAME": "a", "FLY_MACHINE_ID": "m"},
        probes=(Probe(path="/readyz", purpose="readiness", passes=(200, 299)),),
        stop_signal=SIGINT,
        grace_s=5,
        address_header="Fly-Client-IP",
        request_id_header="Fly-Request-Id",
        region="FLY_REGION",
    ),
    "lambda-adapter": Contract(
        default_port=8080,
        port_variables=("AWS_LWA_PORT", "PORT"),
        is_same_host=True,
        environment={
            "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",
            "AWS_LAMBDA_FUNCTION_NAME": "f",
            "AWS_LWA_INVOKE_MODE": "response_stream",
        },
        probes=(Probe(path="/", purpose="readiness", passes=(100, 499)),),
        timeout_s=900,
        grace_s=30,
        address_header="X-Forwarded-For",
        region="AWS_REGION",
        writable="/tmp",  # noqa: S108 - the platform's
    ),
    "kubernetes": Contract(
        default_port=8000,
        port_variables=("PORT",),
        environment={"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        probes=_KUBELET,
        grace_s=30,
        keeps_sending=True,
    ),
}
