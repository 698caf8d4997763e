"""Requests are shared out between clients of few connections each."""

import asyncio

import httpx2

from demo.model_server import ModelServer
from demo.script import Page, Script
from gateway_svc.engines.wire.clients import REQUESTS_A_CLIENT, Clients


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
