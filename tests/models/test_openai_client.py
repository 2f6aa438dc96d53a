"""Later posts are the first one over again; sockets carry what they are given, in few pieces."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import json
import ssl

import httpcore2
import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from longthought.errors import BackendError
from longthought.orchestrator.models import OpenAIModel
from longthought.orchestrator.models.openai import network
from longthought.orchestrator.models.openai.client import Client
from longthought.orchestrator.models.openai.network import quick_transport

REPLY = {
    "model": "toy",
    "choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}


def answer(status: int = 200, text: str | None = None, *headers: str) -> bytes:
    body = json.dumps(REPLY) if text is None else text
    lines = [f"HTTP/1.1 {status} -", f"content-length: {len(body.encode())}", *headers]
    return "\r\n".join([*lines, "", body]).encode()


class Scripted:
    """A server that gives its answers in order; ``pieces`` are the reads of each request."""

    def __init__(self, answers):
        self.answers, self.pieces = list(answers), []

    async def __call__(self, reader, writer):
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            while self.answers:
                pieces = [await reader.read(1 << 20)]
                if not pieces[0]:
                    return
                while not whole(b"".join(pieces)):
                    pieces.append(await reader.read(1 << 20))
                self.pieces.append(pieces)
                writer.write(self.answers.pop(0))
                await writer.drain()

    def request(self, number):
        head, _, body = b"".join(self.pieces[number]).partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        return first, sorted(line.lower() for line in lines), json.loads(body)


def whole(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    lines = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    return bool(end) and len(body) == int(lines[0].split(b":")[1])


@contextlib.asynccontextmanager
async def serving(*answers, **options):
    script = Scripted(answers)
    async with await asyncio.start_server(script, "127.0.0.1", 0, **options) as server:
        script.port = server.sockets[0].getsockname()[1]
        script.url = f"{'https' if options else 'http'}://127.0.0.1:{script.port}/v1?tenant=a%20b"
        yield script


def request(text: str = "hello") -> dict:
    return {"model": "toy", "messages": [{"role": "user", "content": text}]}


async def fault_or_text(model, granted):
    try:
        return (await model.generate(request(), granted(99)))["message"]["content"]
    except BackendError as error:
        return str(error), error.status, error.retryable, error.retry_after, error.sent


@pytest.mark.parametrize("stream", [False, True])
async def test_later_posts_are_the_first_with_another_body(stream):
    async with serving(answer(), answer(), answer()) as server:
        async with Client(
            httpx2.AsyncClient(),
            api_key="k",
            base_url=server.url,
            max_retries=0,
            default_headers={"X-Tenant": "t"},
        ) as client:
            for number in range(3):
                response = await client.ask("/some/path", {"n": number}, stream=stream)
                assert json.loads(await response.aread()) == REPLY
                await response.aclose()
        first, second, third = (server.request(number) for number in range(3))
        assert [one[2] for one in (first, second, third)] == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert first[:2] == second[:2] == third[:2]
        assert "authorization: bearer k" in first[1]
        assert "x-tenant: t" in first[1]


FAULTS = {
    "busy": answer(429, '{"error": {"message": "slow down"}}', "retry-after: 7"),
    "broke": answer(429, '{"error": {"message": "no", "code": "insufficient_quota"}}'),
    "key": answer(401, '{"error": {"message": "bad key"}}'),
    "text": answer(500, "<html>oh</html>"),
    "list": answer(503, "[1]"),
    "empty": answer(502, ""),
    "moved": answer(302, "", "location: http://elsewhere/v1"),
    "nonsense": answer(200, "nonsense"),
    "not-http": b"SSH-2.0-x\r\n\r\n",
    "cut": answer()[:-9],
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_fault_is_the_same_in_any_post(granted, name, stream):
    told = []
    for before in ([], [answer(), answer()]):
        async with serving(*before, FAULTS[name]) as server:
            model = OpenAIModel("toy", base_url=server.url, stream=stream)
            if before:
                client = (await model._connection()).client
                for _ in before:
                    await (await client.ask("/chat/completions", {}, stream=stream)).aread()
            told.append(await fault_or_text(model, granted))
            await model.aclose()
    assert told[0] == told[1]
    assert isinstance(told[0], tuple), "a fault"


async def test_what_only_the_client_can_write_is_left_to_it():
    async with serving(answer(), answer()) as server:
        async with Client(httpx2.AsyncClient(), api_key="k", base_url=server.url) as client:
            await client.ask("/p", {})
            await client.ask("/p", {"at": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)})
        assert server.request(1)[2] == {"at": "2026-01-02T00:00:00+00:00"}


@pytest.fixture
async def http():
    made = []

    def make():
        client = httpx2.AsyncClient(transport=quick_transport(httpx2.Limits()), timeout=30)
        made.append(client)
        return client

    yield make
    for client in made:
        await client.aclose()


async def test_a_request_leaves_in_one_piece(http):
    async with serving(answer(), answer()) as server:
        client = http()
        for text in ("a", "b" * 4000):
            await client.post(server.url, json={"text": text})
        assert [len(pieces) for pieces in server.pieces] == [1, 1]


async def test_much_goes_both_ways(http):
    much = "naïve 漢字 " * 150_000
    async with serving(answer(200, json.dumps(much)), answer()) as server:
        client = http()
        reply = await client.post(server.url, json={"text": much})
        assert reply.json() == much
        assert server.request(0)[2] == {"text": much}
        assert (await client.post(server.url, json={})).json() == REPLY, "usable after that"


async def test_a_slow_reader_holds_up_the_sender(http):
    much = b"x" * (8 << 20)
    head = b"HTTP/1.1 200 -\r\ncontent-length: %d\r\n\r\n" % len(much)
    async with serving(head + much) as server:
        async with http().stream("POST", server.url, json={}) as response:
            pieces = response.aiter_raw()
            first = await anext(pieces)
            stream = response.extensions["network_stream"]
            for _ in range(1000):
                await asyncio.sleep(0)
            assert stream._waiting <= network._ENOUGH + (1 << 18), "one read of the loop more"
            rest = [piece async for piece in pieces]
        assert len(first) + sum(map(len, rest)) == len(much)


async def test_streams_cut_off_together_cost_one_look_through_the_pool(http, monkeypatch):
    """And not one each, which with as many connections is their number squared."""
    looks, look = 0, httpcore2.AsyncConnectionPool._assign_requests_to_connections

    def counted(pool):
        nonlocal looks
        looks += 1
        return look(pool)

    monkeypatch.setattr(httpcore2.AsyncConnectionPool, "_assign_requests_to_connections", counted)
    many = 24
    begun = b"HTTP/1.1 200 -\r\ncontent-length: 9\r\n\r\nx"
    async with serving(*[begun] * many, answer()) as server:
        client, reading = http(), asyncio.Semaphore(0)

        async def read():
            async with client.stream("POST", server.url, json={}) as response:
                async for _ in response.aiter_raw():
                    reading.release()

        tasks = [asyncio.create_task(read()) for _ in range(many)]
        for _ in tasks:
            await reading.acquire()
        looks = 0
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)
        assert looks <= 2
        assert (await client.post(server.url, json={})).json() == REPLY
        assert len(client._transport._pool.connections) == 1, "the others are closed"


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    """TLS as a server of 127.0.0.1 has it, and as a client has it that trusts only that server."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    directory = tmp_path_factory.mktemp("tls")
    pem = serialization.Encoding.PEM
    private = serialization.PrivateFormat.PKCS8
    (directory / "key").write_bytes(key.private_bytes(pem, private, serialization.NoEncryption()))
    (directory / "certificate").write_bytes(certificate.public_bytes(pem))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(directory / "certificate", directory / "key")
    return server, ssl.create_default_context(cafile=str(directory / "certificate"))


async def test_tls(http, contexts, monkeypatch):
    server_side, client_side = contexts
    async with serving(answer(), answer(), ssl=server_side) as server:
        with pytest.raises(httpx2.ConnectError, match="certificate"):
            await http().post(server.url, json={})
        monkeypatch.setattr(network, "_certificates", lambda: client_side)
        client = http()
        for number in range(2):
            assert (await client.post(server.url, json={"n": number})).json() == REPLY
        assert [len(pieces) for pieces in server.pieces] == [1, 1]


def test_proxies_are_left_to_httpx(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert quick_transport(httpx2.Limits()) is not None
    monkeypatch.setenv("NO_PROXY", "localhost")
    assert quick_transport(httpx2.Limits()) is not None
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert quick_transport(httpx2.Limits()) is None
