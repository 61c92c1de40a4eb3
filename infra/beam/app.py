"""provider-core on Beam: `beam deploy infra/beam/app.py:provider`.

The image runs as it is, on the port that `PORT` names.
"""

from beam import Image, Service

provider = Service(
    name="provider",
    image=Image.from_registry("registry.example/provider:1"),
    port=8000,
    env={"PROVIDER_PLATFORM": "beam"},
    cpu=4,
    memory="8Gi",
    secrets=["PROVIDER_API_KEY"],
    keep_warm_seconds=600,
    max_replicas=3,
)
