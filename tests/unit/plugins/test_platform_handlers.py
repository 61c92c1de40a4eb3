"""The handler of a platform is a plugin that is there when the platform is."""

import pytest

from provider_core.plugins import make_plugin_manager
from provider_core.settings import Settings

HANDLERS = {"lambda", "runpod", "sagemaker"}


@pytest.mark.parametrize("platform", sorted(HANDLERS))
@pytest.mark.parametrize("plugins", [(), None])
def test_the_platform_s_handler_is_loaded(platform: str, plugins: tuple[str, ...] | None) -> None:
    """Whichever plugins are chosen: without it nobody would take the platform's work."""
    loaded = make_plugin_manager(Settings(platform=platform, plugins=plugins)).describe()
    assert loaded[0].name == platform  # asked first
    assert loaded[0].hooks == ("setup_app",)
    assert {plugin.name for plugin in loaded} & HANDLERS == {platform}


def test_elsewhere_no_handler_is_loaded() -> None:
    """Other starts pay nothing for them."""
    loaded = make_plugin_manager(Settings()).describe()
    assert {plugin.name for plugin in loaded} & HANDLERS == set()
