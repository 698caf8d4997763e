"""Requests are shared out between clients of few connections each, and each is whole."""

import asyncio

import httpx2

from demo.model_server import ModelServer
from demo.script import Page, Script
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.engines.wire.clients import REQUESTS_A_CLIENT, Clients
from gateway_svc.messages import UserMessage
from tests.engines.asking import ask_again, ndjson, raw_server


async def test_many_requests_at_once_take_several_clients_and_few_the_first():
    made: list[httpx2.AsyncClient] = []

    def make() -> httpx2.AsyncClient:
        made.append(httpx2.AsyncClient(verify=False))
        return made[-1]

    async with ModelServer(Script(pages={"/pages/slow": Page(delay_ms=300), "/pages/quick": Page()})) as server:
        clients, taken = Clients(make), list[httpx2.AsyncClient]()

        async def get(page: str = "quick") -> None:
            with clients.lend() as client:
                taken.append(client)
                assert (await client.get(f"{server.url}/pages/{page}")).status_code == 200

        await get()
        await get()
        assert len({request.client for request in server.requests}) == 1, "one connection serves one after another"
        taken.clear()
        await asyncio.gather(*(get("slow") for _ in range(2 * REQUESTS_A_CLIENT + 1)))
        assert [taken.count(client) for client in made] == [REQUESTS_A_CLIENT, REQUESTS_A_CLIENT, 1]
        taken.clear()
        await get()
        assert taken == made[:1]
        await clients.aclose()
        assert all(client.is_closed for client in made)


async def test_each_request_has_its_length_and_the_servers_cookie():
    """Their heads are made once; a cookie, by which a proxy finds its server again, may come with any answer."""
    plain = ndjson({"message": {"content": "ok"}, "done": True, "done_reason": "stop", "eval_count": 1})
    async with raw_server(plain, plain.replace(b"\r\n", b"\r\nSet-Cookie: server=2\r\n", 1), plain) as server:
        engine = OllamaEngine(server.url.replace("//", "//user:word@"), "m")
        for length in range(1, 5):
            await ask_again(engine, UserMessage("x" * length))
        await engine.aclose()
    assert [len(body["messages"][0]["content"]) for body in server.bodies] == [1, 2, 3, 4]
    assert ["\r\nCookie: server=2\r\n" in head for head in server.heads] == [False, False, True, True]
    varying = ("Cookie", "Content-Length")
    others = [sorted(line for line in head.splitlines() if not line.startswith(varying)) for head in server.heads]
    assert others == [others[0]] * 4
    assert any(line.lower().startswith("authorization: basic ") for line in others[0])
