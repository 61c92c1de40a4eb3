"""docs/deploy/ray.md, as far as it can be checked on one machine."""

import subprocess

from tests.platform.documents import files_of
from tests.platform.ray.installed import MARKS, PYTHON

pytestmark = list(MARKS)

_CHECK = """
import sys, yaml
from ray.serve.schema import ServeDeploySchema
from provider_ray.application import make_app
from provider_ray.settings import RaySettings
(application,) = ServeDeploySchema.model_validate(yaml.safe_load(sys.stdin)).applications
assert application.import_path == f"{make_app.__module__}:{make_app.__name__}"
RaySettings(**application.args)
print(*(deployment.name for deployment in application.deployments))
"""


def test_ray_takes_the_file() -> None:
    """Its schema, our function, our settings."""
    ran = subprocess.run(
        [PYTHON, "-c", _CHECK],
        input=files_of("ray")["serve.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert set(ran.stdout.split()) == {"replicas", "ingress"}  # as the application names them
