"""Settings as operators write them."""

from functools import partial

import pytest

from provider_core import ConfigurationError
from provider_core.plugin_settings import read_backend_settings
from provider_tensorrt.settings import TensorRtSettings

VARIABLE = "PROVIDER_TENSORRT_TRUSTED_ENGINES"
FIRST, SECOND = 64 * "a", 32 * "b1"
read_settings = partial(read_backend_settings, "tensorrt", TensorRtSettings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FIRST, (FIRST,)),
        (f"{FIRST},{SECOND}", (FIRST, SECOND)),
        (f"{FIRST}, {SECOND},", (FIRST, SECOND)),
        (f"sha256:{SECOND.upper()}", (SECOND,)),
        ("", None),
    ],
)
def test_trusted_engines_are_digests_with_commas_between(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: tuple[str, ...] | None
) -> None:
    """As `build-engine` prints them, or as other tools do; an option may be a list."""
    monkeypatch.setenv(VARIABLE, text)
    assert read_settings({}).trusted_engines == expected
    monkeypatch.delenv(VARIABLE)
    if expected is not None:
        for option in (text, list(expected)):
            assert read_settings({"trusted_engines": option}).trusted_engines == expected


@pytest.mark.parametrize("text", ["abc", FIRST + "0", "g" * 64, f"{FIRST} {SECOND}", "[]"])
def test_what_is_no_digest_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """It would trust nothing, and be found out when an engine is refused."""
    monkeypatch.setenv(VARIABLE, text)

    with pytest.raises(ConfigurationError, match=r"option trusted_engines.*is no SHA-256 digest"):
        read_settings({})
