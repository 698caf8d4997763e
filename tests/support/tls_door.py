"""A TLS 1.3 server that asks for client certificates, in front of a plain one."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.support.certificates import Authority
from tests.support.listening import listening


@dataclass
class Door:
    """What a client sees of it."""

    url: str
    shown: list[str] = field(default_factory=list)
    """The common names that clients have shown, one for each connection."""


@asynccontextmanager
async def tls_door(authority: Authority, plain_url: str) -> AsyncIterator[Door]:
    """A door on https://localhost that lets in whoever shows a certificate of authority's, and passes its bytes on."""
    host, port = plain_url.removeprefix("http://").split(":")
    pair = authority.server(file="door")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(pair.certificate, pair.key)
    context.load_verify_locations(authority.path)
    context.verify_mode = ssl.CERT_REQUIRED
    door = Door("")

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        subject = writer.get_extra_info("peercert")["subject"]
        door.shown.append(dict(part[0] for part in subject)["commonName"])
        inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
        try:
            await asyncio.gather(relay(reader, inner_writer), relay(inner_reader, writer))
        finally:
            inner_writer.transport.abort()
            with suppress(OSError):
                await inner_writer.wait_closed()

    async with listening(serve, tls=context) as outer_port:
        door.url = f"https://localhost:{outer_port}"
        yield door
