"""One request by HTTP to somebody outside, whose answer is bounded."""

from typing import NamedTuple

import httpx2

from audit_svc.errors import AuditError
from service_kit.proxies import by_proxy
from service_kit.time_slice import TimeSlice

TIMEOUT_SECONDS = 20.0
"""From the request to the last byte of the answer."""


class NotAnswered(AuditError):
    """Nothing of use came; asked again later it may."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    media_type: str
    """Without its parameters."""
    body: bytes


async def post(client: httpx2.AsyncClient, url: str, body: bytes, media_type: str, max_bytes: int) -> Answer:
    """Sends a body. max_bytes: of the answer's. Raises NotAnswered."""
    try:
        async with client.stream("POST", url, content=body, headers={"content-type": media_type}) as response:
            answer = b""
            async for part in TimeSlice().each(response.aiter_bytes()):
                answer += part
                if len(answer) > max_bytes:
                    raise NotAnswered(f"its answer has more than {max_bytes} bytes")
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        by = "" if isinstance(error, httpx2.InvalidURL) else by_proxy(httpx2.URL(url))
        raise NotAnswered(f"it cannot be reached{by} ({type(error).__name__})") from None
    return Answer(response.status_code, response.headers.get("content-type", "").partition(";")[0].strip(), answer)
