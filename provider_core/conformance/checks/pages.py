"""The provider's public pages that its configuration names: they must be there."""

from provider_core.conformance.check import Group
from provider_core.conformance.probe import Probe
from provider_core.conformance.verdict import NotApplicable, require

GROUP = Group("pages")

PAGES = {
    "privacy_policy_url": "The privacy policy",
    "terms_of_service_url": "The terms of service",
    "docs_url": "The documentation",
    "pricing_url": "The prices",
    "status_page_url": "The status page",
}


def _check_page(key: str, title: str) -> None:
    @GROUP.check(key, f"{title} can be read by everybody")
    async def read(probe: Probe) -> str:
        """Without a key, which is nobody else's business."""
        url = probe.pages.get(key)
        if url is None:
            raise NotApplicable(f"not stated: set `{key}` in [provider] of provider.toml")
        reply = await probe.get(url, key_header=None)
        require(reply.status == 200, f"{url} answers with status {reply.status}")
        return url


for _key, _title in PAGES.items():
    _check_page(_key, _title)
