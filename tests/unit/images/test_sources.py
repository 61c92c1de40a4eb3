"""What may be named as an image."""

import ipaddress
from base64 import b64encode

import pytest

from provider_core.errors import InvalidRequest, RequestTooLarge
from provider_core.images.sources import check_url, is_public, read_data_url

PARAM = "messages[0].content[1]"


@pytest.mark.parametrize("media_type", ["image/png", "IMAGE/JPEG", "image/webp"])
def test_data_urls_hold_bytes(media_type: str) -> None:
    """In base64, of the four formats."""
    url = f"data:{media_type};base64,{b64encode(b'abcd').decode()}"
    assert read_data_url(url, max_bytes=4, param=PARAM) == b"abcd"


@pytest.mark.parametrize(
    "url",
    [
        "data:",
        "data:image/png,abc",
        "data:image/png;base64",
        "data:text/html;base64,YWJj",
        "data:image/svg+xml;base64,YWJj",
        "data:image/png;charset=utf-8;base64,YWJj",
        "data:image/png;base64,YWJ",
        "data:image/png;base64,YW Jj",
        "data:image/png;base64,Ä",
    ],
)
def test_v11_other_data_urls_are_refused(url: str) -> None:
    """With the part's place."""
    with pytest.raises(InvalidRequest) as caught:
        read_data_url(url, max_bytes=100, param=PARAM)
    assert (caught.value.code, caught.value.param) == ("invalid_image", PARAM)


def test_v11_the_size_of_a_data_url_is_known_before_it_is_decoded() -> None:
    """What is over the limit need not even be base64."""
    with pytest.raises(RequestTooLarge):
        read_data_url("data:image/png;base64," + "?" * 4_000, max_bytes=2_000, param=PARAM)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.png",
        "file:///etc/passwd",
        "ftp://example.com/a.png",
        "gopher://example.com/",
        "javascript:alert(1)",
        "//example.com/a.png",
        "a.png",
        "",
        "https://",
        "https:///a.png",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://good\\@bad/",
        "https://good\t@bad/",
        "https://exam ple.com/",
        "https://example.com:port/",
        "https://[::1/",
        "https://example.com/" + "a" * 8_192,
    ],
)
def test_v4_other_addresses_are_refused(url: str) -> None:
    """Before anybody is asked for anything."""
    with pytest.raises(InvalidRequest) as caught:
        check_url(url, param=PARAM)
    assert (caught.value.code, caught.value.param) == ("image_fetch_failed", PARAM)


def test_v3_what_is_checked_is_what_is_fetched() -> None:
    """One parser: an at sign behind the host names no other."""
    url = check_url("https://good.example/#@bad.example/", param=PARAM)
    assert (url.host, str(url)) == ("good.example", "https://good.example/")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fd00::1",
        "fe80::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)
def test_v1_addresses_within_networks_are_not_public(address: str) -> None:
    """Whatever they are wrapped in."""
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    """In either family."""
    assert is_public(ipaddress.ip_address(address))
