"""docs/deploy/ray.md, as far as it can be checked on one machine."""

import json
import subprocess
from pathlib import Path

from tests.platform.documents import commands_of, files_of
from tests.platform.ray.installed import MARKS, PYTHON, ROOT

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


def test_one_core_is_enough_for_the_command(tmp_path: Path) -> None:
    """Ray waits for ever for cores that the machine does not have."""
    (command,) = (line for line in commands_of("ray") if line.startswith("serve run "))
    arguments = dict(word.split("=") for word in command.split() if "=" in word)
    ran = subprocess.run(
        [PYTHON, ROOT / "tests/platform/ray/built.py"],
        input=json.dumps([arguments]),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    (built,) = json.loads(ran.stdout)
    num_cpus = {name: options["ray_actor_options"]["num_cpus"] for name, options in built.items()}

    assert built["replicas"]["num_replicas"] == 2
    assert 2 * num_cpus["replicas"] + num_cpus["ingress"] <= 1
