"""Which models a server offers, for whoever named one that it does not have."""

import asyncio
import json
import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

import httpx2

from gateway_svc.engines.wire.unpacking import UnknownEncoding, unpacked
from gateway_svc.http_client import CONNECTION_ERRORS, take_head
from service_kit.bounds import MIB, Exceeded, check_json
from service_kit.time_slice import TimeSlice

SECONDS = 3.0
MAX_BYTES = 2 * MIB
"""Of a list: one of 400 models with all that is said of each has about 1 MiB."""
NAMED = 8
_NAME = re.compile(r"[\w./:@+-]{1,128}")


async def offered(client: httpx2.AsyncClient, url: httpx2.URL, model: str) -> str:
    """What the list of models at url says, as the end of a sentence; empty if it says nothing of use, or not soon."""
    try:
        async with asyncio.timeout(SECONDS):
            names = [*dict.fromkeys(_names(await _read(client, url)))]
    except (*CONNECTION_ERRORS, UnknownEncoding, Exceeded, TimeoutError, ValueError, RecursionError):
        return ""
    if not names or model in names:
        return ""
    if len(names) <= NAMED:
        return f"; it offers {', '.join(sorted(names))}"
    near = get_close_matches(model, names, NAMED, cutoff=0.5)
    return f"; it offers {len(names)} models, such as {', '.join(near or names[:NAMED])}"


async def _read(client: httpx2.AsyncClient, url: httpx2.URL) -> Any:
    response = await client.send(client.build_request("GET", url), stream=True)
    body = bytearray()
    try:
        take_head(response)
        async for data in TimeSlice().each(unpacked(response)):
            body += data
            if len(body) > MAX_BYTES:
                return None
    finally:
        await response.aclose()
    if response.status_code != 200:
        return None
    check_json(bytes(body))
    return json.loads(body)


def _names(listed: Any) -> Iterator[str]:
    """As OpenAI and Anthropic list them ({"data": [{"id": …}]}), and Ollama ({"models": [{"name": …}]})."""
    for entries, field in (("data", "id"), ("models", "name")):
        found = listed.get(entries) if isinstance(listed, dict) else None
        for entry in found if isinstance(found, list) else []:
            name = entry.get(field) if isinstance(entry, dict) else None
            if isinstance(name, str) and _NAME.fullmatch(name):
                yield name
