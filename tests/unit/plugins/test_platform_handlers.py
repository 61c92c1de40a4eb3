"""The handler of a platform is a plugin that is there when the platform is."""

import subprocess
import sys
from collections.abc import Mapping

import pytest

from provider_core.platforms import suggest_platform
from provider_core.plugins import make_plugin_manager
from provider_core.settings import Settings
from tests.platform.lambda_function.runtime_api import RuntimeApiServer
from tests.platform.runpod import control_plane

HANDLERS = {"lambda", "ray", "runpod", "sagemaker"}


@pytest.mark.parametrize("platform", sorted(HANDLERS))
@pytest.mark.parametrize("plugins", [(), None])
def test_the_platform_s_handler_is_loaded(platform: str, plugins: tuple[str, ...] | None) -> None:
    """Whichever plugins are chosen: without it nobody would take the platform's work."""
    loaded = make_plugin_manager(Settings(platform=platform, plugins=plugins)).describe()
    assert loaded[0].name == platform  # asked first
    assert loaded[0].hooks == ("setup_app",)
    assert {plugin.name for plugin in loaded} & HANDLERS == {platform}


@pytest.mark.parametrize(
    ("environment", "platform"),
    [
        (control_plane.ControlPlane().environment, "runpod"),
        (RuntimeApiServer().environment, "lambda"),
        (
            {**RuntimeApiServer().environment, "AWS_LWA_INVOKE_MODE": "response_stream"},
            "lambda-adapter",
        ),
        ({"RUNPOD_ENDPOINT_ID": "e", "PORT_HEALTH": "80"}, "runpod-lb"),
    ],
)
def test_the_environment_tells_which_of_two_ways_it_is(
    environment: Mapping[str, str], platform: str
) -> None:
    """A provider that named none of them gets the right hint."""
    assert suggest_platform(environment) == platform


@pytest.mark.parametrize("platform", sorted(HANDLERS))
def test_finding_a_profile_imports_no_web_server(platform: str) -> None:
    """It is read before the socket opens, and with it the handler's package."""
    code = f"import sys, provider_{platform}; print('aiohttp' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_elsewhere_no_handler_is_loaded() -> None:
    """Other starts pay nothing for them."""
    loaded = make_plugin_manager(Settings()).describe()
    assert {plugin.name for plugin in loaded} & HANDLERS == set()
