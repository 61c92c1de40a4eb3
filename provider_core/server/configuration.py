"""What a server of this configuration would be, for handlers that place servers and run none."""

from dataclasses import dataclass

from provider_core.catalog import specs_from_settings
from provider_core.plugins import make_plugin_manager
from provider_core.settings import Settings, load_settings
from provider_core.types import ModelSpec


@dataclass(frozen=True, slots=True)
class Configuration:
    """Of one server.

    Attributes:
        settings: All of them.
        specs: Of its models, as configured: no folder has been looked into.
    """

    settings: Settings
    specs: tuple[ModelSpec, ...]

    @property
    def num_slots(self) -> int:
        """Sequences that run at a time, of all models."""
        return sum(spec.max_num_seqs for spec in self.specs)

    @property
    def num_places(self) -> int:
        """Requests that the server takes at a time; more are refused."""
        return round(self.num_slots * (1 + self.settings.limits.queue_factor))


def read_configuration(platform: str) -> Configuration:
    """Read what `provider serve --platform` would, here and now.

    Raises:
        ConfigurationError: A setting is invalid, or there is no model.
        PluginError: A plugin is missing or broken.
    """
    settings = load_settings(platform=platform)
    return Configuration(
        settings, tuple(specs_from_settings(settings, make_plugin_manager(settings)))
    )
