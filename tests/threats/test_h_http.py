"""H: bytes that are hardly HTTP, or more HTTP than anybody needs, sent to the real server.

The names carry the ids of the catalogue of bad inputs. Each attack must get its exact answer, cost
nothing, and leave a server that answers the next request.
"""

import asyncio
import json
import subprocess
import sys

import pytest

from tests.serving import Serving
from tests.threats.aftermath import unharmed
from tests.threats.raw_http import BODY, answer, chunked, connected, get, last_answer, post

pytestmark = pytest.mark.asyncio(loop_scope="module")

LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = "Transfer-Encoding: chunked"


async def refuses_as_malformed(served: Serving, request: bytes) -> None:
    """400 in JSON that repeats nothing of the request, then the end of the connection."""
    async with unharmed(served):
        reply = await last_answer(served.port, request)
    assert reply.status == 400
    assert reply.headers["connection"] == "close"
    assert reply.error["code"] == "bad_http"
    assert reply.error["message"] in {
        "malformed HTTP",
        "malformed body",
        "transfer-encoding must be chunked",
    }


async def test_h1_two_lengths_are_malformed(served: Serving) -> None:
    """A proxy might believe the other one."""
    await refuses_as_malformed(served, post(LENGTH, "Content-Length: 5"))


async def test_h2_the_same_length_twice_is_malformed(served: Serving) -> None:
    """Even if both are right."""
    await refuses_as_malformed(served, post(LENGTH, LENGTH))


async def test_h3_length_and_chunks_together_are_malformed(served: Serving) -> None:
    """The classic of request smuggling."""
    await refuses_as_malformed(served, post(LENGTH, CHUNKED, body=chunked(BODY)))


@pytest.mark.parametrize(
    "coding",
    [
        "xchunked",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "\x0bchunked",
        "chunked chunked",
        "chunked\t",
        "chunked\r\nTransfer-Encoding: chunked",
        "identity",
        "",
    ],
)
async def test_h4_strange_transfer_codings_are_malformed(served: Serving, coding: str) -> None:
    """Only `chunked`, once, is understood by everybody in the same way."""
    request = post(f"Transfer-Encoding: {coding}", body=chunked(BODY))
    await refuses_as_malformed(served, request)


async def test_h4_a_space_before_the_colon_is_malformed(served: Serving) -> None:
    """So that no header hides from a proxy."""
    await refuses_as_malformed(served, post("Transfer-Encoding : chunked", body=chunked(BODY)))


@pytest.mark.parametrize("extension", [b";a\n", b";a\r\r", b";a=\x00", b";\n1"])
async def test_h5_line_ends_in_chunk_extensions_are_malformed(
    served: Serving, extension: bytes
) -> None:
    """A lenient reader would see other chunks than a strict one."""
    body = b"5%b\r\nhello\r\n0\r\n\r\n" % extension
    await refuses_as_malformed(served, post(CHUNKED, body=body))


@pytest.mark.parametrize(
    "trailers",
    [
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"X-A : 1\r\n",
        b"".join(b"X-%d: 1\r\n" % index for index in range(200)),
    ],
    ids=["length", "coding", "space", "many"],
)
async def test_h6_trailers_smuggle_nothing(served: Serving, trailers: bytes) -> None:
    """Fields after the last chunk are refused, or without effect on what follows."""
    smuggled = post(CHUNKED, body=chunked(BODY)[:-2] + trailers + b"\r\n") + get("/livez")
    async with unharmed(served, num_events=0), connected(served.port) as client:
        await client.send(smuggled)
        reply = await client.reply()
        assert reply.status == 400
        assert await client.is_closed()


@pytest.mark.parametrize(
    "size", [b"-5", b"0x2", b"f" * 17, b"2_0", b"+2", b" 2", b"2 ", b"", b"\xb2", b"2\n"]
)
async def test_h7_strange_chunk_sizes_are_malformed(served: Serving, size: bytes) -> None:
    """Hexadecimal digits and nothing else."""
    body = size + b"\r\nhe\r\n0\r\n\r\n"
    await refuses_as_malformed(served, post(CHUNKED, body=body))


async def test_h8_letters_that_only_unicode_thinks_equal_are_malformed(served: Serving) -> None:
    """`K` (Kelvin) is no `k`."""
    coding = "Transfer-Encoding: chun\u212aed".encode().decode("latin-1")
    await refuses_as_malformed(served, post(coding, body=chunked(BODY)))


@pytest.mark.parametrize(
    "headers",
    [
        ("Range: bytes=²-",),
        ("Upgrade: websöcket", "Connection: upgrade"),
        ("Upgrade: websocket", "Connection: upgrade"),
        ("Upgrade: h2c", "Connection: upgrade"),
    ],
    ids=["range", "strange", "websocket", "h2c"],
)
async def test_h8_upgrades_and_ranges_change_nothing(
    served: Serving, headers: tuple[str, ...]
) -> None:
    """They are ignored, and what follows on the connection is the next request."""
    async with unharmed(served, num_events=1), connected(served.port) as client:
        await client.send(post(*headers))
        assert (await client.reply()).status == 200
        await client.send(get("/livez"))
        assert json.loads((await client.reply()).body) == {"status": "alive"}


async def test_h8_start_up_refuses_the_lenient_parser() -> None:
    """Without aiohttp's compiled parser nothing is served."""
    code = (
        "import asyncio\n"
        "from provider_core.server.connection import connection_factory\n"
        "connection_factory(None, None, None)\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        env={"AIOHTTP_NO_EXTENSIONS": "1"},
        stderr=subprocess.PIPE,
    )
    _, stderr = await process.communicate()
    assert process.returncode == 1
    assert b"ConfigurationError: aiohttp has no compiled HTTP parser" in stderr


async def test_h9_two_hosts_are_malformed(served: Serving) -> None:
    """Routing by one and trusting the other is an old trick."""
    await refuses_as_malformed(served, post("Host: a", "Host: b"))


@pytest.mark.parametrize("host", ["x/?", "x/docs#", "x/livez?", "a@b", "localhost:1/livez"])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/models"])
async def test_h10_a_host_cannot_talk_itself_past_the_key(
    served: Serving, host: str, path: str
) -> None:
    """The matched route decides what needs a key, never a URL put together from `Host`."""
    headers = (f"Host: {host}", "Authorization: Bearer sk-nobody-knows-this-one")
    request = post(*headers, path=path)
    if path == "/v1/models":
        request = f"GET {path} HTTP/1.1\r\n{headers[0]}\r\n{headers[1]}\r\n\r\n".encode()
    async with unharmed(served):
        reply = await answer(served.port, request)
    assert reply.status == 401
    assert reply.error["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    "request_bytes",
    [
        post().replace(b"\r\n", b"\n"),
        post().replace(b"Host: localhost\r\n", b""),
        post("X-A: 1\r\n  folded"),
        post("X-A : 1"),
        post(": 1"),
        post("X-A"),
    ],
    ids=["bare-lf", "no-host", "folded", "space", "no-name", "no-colon"],
)
async def test_h11_sloppy_headers_are_malformed(served: Serving, request_bytes: bytes) -> None:
    """What two readers may read in two ways is refused."""
    await refuses_as_malformed(served, request_bytes)


@pytest.mark.parametrize("value", ["1\x002", "1\r2", "\x00"])
async def test_h12_control_characters_in_headers_are_malformed(served: Serving, value: str) -> None:
    """NUL and a lone CR."""
    await refuses_as_malformed(served, post(f"X-A: {value}"))


async def test_h13_latin_1_in_headers_costs_no_usage_line(served: Serving) -> None:
    """The answer comes, and the event is written, in ASCII."""
    async with unharmed(served, num_events=1):
        reply = await answer(
            served.port, post("X-Title: caf\xe9", "HTTP-Referer: \xff\xfe", "X-Request-Id: \xe9")
        )
    assert reply.status == 200
    line = served.usage.lines[-2]
    assert line.isascii()
    assert json.loads(line)["client_request_id"] is None


async def test_h14_long_lines_are_malformed(served: Serving) -> None:
    """A header and a URI of nine kilobytes."""
    await refuses_as_malformed(served, post("X-A: " + "a" * 9216))
    await refuses_as_malformed(served, get("/v1/models?" + "a" * 9216))


@pytest.mark.parametrize("count", [200, 20_000])
async def test_h15_many_headers_are_malformed(served: Serving, count: int) -> None:
    """The answer arrives although most of them were never read."""
    await refuses_as_malformed(served, post(*[f"X-{index}: 1" for index in range(count)]))


async def test_h27_ten_thousand_bad_cookies_are_no_flood_of_lines(served: Serving) -> None:
    """As one header too long, or as a hundred that fit: at most the access line is written."""
    cookies = "; ".join(['=(";a'] * 40)
    async with unharmed(served, num_events=1):
        reply = await answer(served.port, post(*[f"Cookie: a@={cookies}"] * 100))
    assert reply.status == 200
    await refuses_as_malformed(served, post("Cookie: " + "@=;" * 10_000))


@pytest.mark.parametrize(
    "start",
    [
        b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + b"a" * 200,
        b"GET / HTTP/3.0\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n",
        b"BREW /pot HTTP/1.1\r\n",
        b"GET / HTTP/1.1.1\r\n",
        b"\x00\x01\x02\r\n",
        b"GET /\x7f HTTP/1.1\r\nX\r\n",
    ],
    ids=["tls", "http3", "http2", "method", "version", "binary", "control"],
)
async def test_h28_another_protocol_is_malformed(served: Serving, start: bytes) -> None:
    """In JSON, without an echo."""
    await refuses_as_malformed(served, start + b"Host: a\r\n\r\n")


async def test_h28_an_unknown_expectation_is_417(served: Serving) -> None:
    """And JSON."""
    async with unharmed(served):
        reply = await answer(served.port, post("Expect: a-miracle"))
    assert reply.status == 417
    assert reply.error["code"] == "expectation_failed"


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE", "TRACE", "PROPFIND"])
async def test_h28_a_wrong_method_is_405(served: Serving, method: str) -> None:
    """The path exists, the method does not."""
    async with unharmed(served):
        reply = await answer(served.port, post().replace(b"POST", method.encode(), 1))
    assert reply.status == 405
    assert reply.error["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/..%2fadmin",
        "//v1/models",
        "/v1//models",
        "/v1/models%00",
        "/../../etc/passwd",
        "/%2e%2e/etc/passwd",
        "/static/../../x",
        "/v1/models/%2e%2e%2f%2e%2e",
        "/V1/models",
        "/v1/models/..%5c..",
        "/v1/completions/",
        "/v1/models/%ff%fe",
        "/" + "a/" * 2000,
    ],
)
async def test_h29_no_path_leads_elsewhere(served: Serving, path: str) -> None:
    """What is no route is 404, whatever a file system would make of it."""
    async with unharmed(served):
        reply = await answer(served.port, get(path))
    assert reply.status == 404
    assert reply.error["code"] in {"not_found", "model_not_found"}
    assert len(reply.body) < 300


async def test_h30_a_request_cannot_write_headers(served: Serving) -> None:
    """What the request says stands in no header of the answer."""
    evil = "x\r\nSet-Cookie: a=b"
    body = json.dumps({"model": evil, "prompt": "hi", "user": evil}).encode()
    async with unharmed(served):
        reply = await answer(
            served.port, post("Origin: http://a%0d%0ab", "X-Request-Id: a%0d%0ab", body=body)
        )
    assert reply.status == 404
    assert "set-cookie" not in reply.headers
    assert not any("a%0d" in value for value in reply.headers.values())
