"""Ways to the stand-in that can be broken and mended: names, doors, certificates."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol

import aiohttp
from aiohttp.abc import ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_HOST = "127.0.0.1"
_PIECE_BYTES = 65_536
_CLOSE_S = 10.0


class Way(Protocol):
    """How to get to a server."""

    @property
    def address(self) -> str:
        """Such as s://host:port: with http or ws before it, a URL."""
        ...

    @property
    def http(self) -> aiohttp.ClientSession: ...

    async def block(self) -> None:
        """Nobody gets through any more; connections that are open stay."""

    async def mend(self) -> None: ...


class _Names(aiohttp.ThreadedResolver):
    """The system's resolver, which knows no `.invalid` host, and a name that comes to exist."""

    def __init__(self) -> None:
        super().__init__()
        self.is_known = True

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return await super().resolve(_HOST if self.is_known else host, port, family)


class NamedWay:
    """By a host name of RFC 6761 that no resolver in the world finds."""

    def __init__(self, port: int, names: _Names, http: aiohttp.ClientSession) -> None:
        self.address = f"://gladia.invalid:{port}"
        self.http = http
        self._names = names

    async def block(self) -> None:
        self._names.is_known = False

    async def mend(self) -> None:
        self._names.is_known = True


@asynccontextmanager
async def open_named_way(port: int) -> AsyncIterator[NamedWay]:
    names = _Names()
    connector = aiohttp.TCPConnector(resolver=names, use_dns_cache=False)
    async with aiohttp.ClientSession(connector=connector) as http:
        yield NamedWay(port, names, http)


class Door:
    """A port that passes everything on to another one, over TLS if it has a certificate."""

    def __init__(self, target_port: int, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.tls = tls
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._bound: socket.socket | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        if self._bound is None:
            self._bound = self._bind()
        self._server = await asyncio.start_server(self._pass_on, sock=self._bound, ssl=self.tls)

    async def shut(self) -> None:
        """From now on connections are refused; the port stays ours."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._bound = self._bind()

    async def aclose(self) -> None:
        """Returns when the last connection has gone."""
        if self._server is not None:
            self._server.close()
        elif self._bound is not None:
            self._bound.close()
        for writer in self._writers:
            writer.close()
        async with asyncio.timeout(_CLOSE_S):
            while self._writers:  # noqa: ASYNC110 - the streams tell nobody
                await asyncio.sleep(0.01)

    def _bind(self) -> socket.socket:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((_HOST, self.port))
        self.port = bound.getsockname()[1]
        return bound

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            there, back = await asyncio.open_connection(_HOST, self._target_port)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pump(reader, back), name="door:in")
                tasks.create_task(_pump(there, writer), name="door:out")
        finally:
            self._writers.remove(writer)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(_PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


class DoorWay:
    """By a port that refuses connections while it is blocked."""

    def __init__(self, door: Door, http: aiohttp.ClientSession) -> None:
        self.address = f"://{_HOST}:{door.port}"
        self.http = http
        self._door = door

    async def block(self) -> None:
        await self._door.shut()

    async def mend(self) -> None:
        await self._door.open()


@asynccontextmanager
async def open_door_way(port: int) -> AsyncIterator[DoorWay]:
    door = Door(port)
    await door.open()
    try:
        async with aiohttp.ClientSession() as http:
            yield DoorWay(door, http)
    finally:
        await door.aclose()


class SecureWay:
    """By TLS, with the certificate of a stranger while it is blocked."""

    def __init__(
        self, door: Door, good: ssl.SSLContext, bad: ssl.SSLContext, http: aiohttp.ClientSession
    ) -> None:
        self.address = f"s://{_HOST}:{door.port}"
        self.http = http
        self._door = door
        self._good = good
        self._bad = bad

    async def block(self) -> None:
        await self._show(self._bad)

    async def mend(self) -> None:
        await self._show(self._good)

    async def _show(self, certificate: ssl.SSLContext) -> None:
        await self._door.shut()
        self._door.tls = certificate
        await self._door.open()


@asynccontextmanager
async def open_secure_way(port: int, directory: Path) -> AsyncIterator[SecureWay]:
    good, bad = _certificate(directory / "good.pem"), _certificate(directory / "bad.pem")
    trusting = ssl.create_default_context(cafile=directory / "good.pem")
    door = Door(port, good)
    await door.open()
    try:
        connector = aiohttp.TCPConnector(ssl=trusting)
        async with aiohttp.ClientSession(connector=connector) as http:
            yield SecureWay(door, good, bad, http)
    finally:
        await door.aclose()


def _certificate(path: Path) -> ssl.SSLContext:
    """A server that is who it says it is to whoever trusts this file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, path.stem)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(_HOST))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
