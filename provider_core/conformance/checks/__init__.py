"""All checks, by group, in the order in which they run."""

from provider_core.conformance.check import Check, Group
from provider_core.conformance.checks import (
    accounts,
    anthropic,
    chat,
    completions,
    google,
    images,
    limits,
    listings,
    load,
    models,
    pages,
    parameters,
    refusals,
    schemas,
    tools,
)

GROUPS: tuple[Group, ...] = tuple(
    module.GROUP
    for module in (
        models,
        chat,
        completions,
        parameters,
        tools,
        schemas,
        images,
        anthropic,
        google,
        refusals,
        limits,
        listings,
        accounts,
        load,
        pages,
    )
)


def select_checks(only: tuple[str, ...] = ()) -> list[Check]:
    """The checks of some groups; of all, if none is named."""
    return [c for group in GROUPS if not only or group.name in only for c in group.checks]
