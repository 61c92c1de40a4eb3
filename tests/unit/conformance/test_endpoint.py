"""Addresses from the one that customers are given, and commands that repeat a request."""

import shlex

import pytest

from provider_core.conformance.endpoint import make_endpoint
from provider_core.conformance.exchange import Exchange
from provider_core.errors import ConfigurationError

ADDRESSES = {
    "https://a.example": ("https://a.example", "https://a.example/v1"),
    "https://a.example/v1/": ("https://a.example", "https://a.example/v1"),
    "https://a.example/api/v1": ("https://a.example", "https://a.example/api/v1"),
    "http://127.0.0.1:8000/x/v1": ("http://127.0.0.1:8000/x", "http://127.0.0.1:8000/x/v1"),
}


@pytest.mark.parametrize("url", ADDRESSES)
def test_the_base_and_the_root_follow_from_the_url(url: str) -> None:
    """With or without the version at its end."""
    endpoint = make_endpoint(url)

    assert (endpoint.root, endpoint.base) == ADDRESSES[url]
    assert endpoint.is_openrouter == ("/api/" in url)
    assert endpoint.is_local == ("127" in url)


@pytest.mark.parametrize("url", ["a.example", "ftp://a.example", "http://", "http://a:port"])
def test_what_is_no_address_is_refused(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigurationError, match="not an http or https address"):
        make_endpoint(url)


def test_a_key_of_other_characters_is_refused() -> None:
    """It could not be sent in a header."""
    with pytest.raises(ConfigurationError, match="--key"):
        make_endpoint("http://a.example", key="schlüssel")


def test_a_command_repeats_the_request_without_the_key() -> None:
    """A shell reads the same words; the key is a variable."""
    exchange = Exchange(
        method="POST",
        url="http://a.example/v1?x=1&y=2",
        headers={"Content-Type": "application/json"},
        key_header=("Authorization", "Bearer "),
        body=b'{"content": "it\'s"}',
    )
    words = shlex.split(exchange.curl())

    assert words[:4] == ["curl", "-sN", "-X", "POST"]
    assert "http://a.example/v1?x=1&y=2" in words
    assert "Authorization: Bearer $PROVIDER_API_KEY" in words
    assert words[-1] == '{"content": "it\'s"}'


def test_a_long_body_is_described() -> None:
    """Nobody pastes megabytes."""
    command = Exchange(method="POST", url="http://a.example", body=b"x" * 5000).curl()

    assert "5000 bytes" in command
    assert len(command) < 300
