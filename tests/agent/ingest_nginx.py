"""A real nginx-rtmp, as operators run one between Egress and us."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dev.processes import Child, free_port
from tests.agent.ingest_kit import needed

CONFIG = """
load_module {module};
daemon off; master_process off; worker_processes 1;
pid {home}/nginx.pid; error_log {home}/error.log;
events {{ worker_connections 64; }}
rtmp {{ server {{ listen 127.0.0.1:{port}; ack_window 16384;
  application session {{ live on; record off; }} }} }}
"""
MODULE = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")
HINT = "nginx-rtmp is not installed: apt-get install nginx libnginx-mod-rtmp"


@asynccontextmanager
async def open_nginx(home: Path) -> AsyncIterator[int]:
    """The port of an nginx-rtmp with the application `session`, for the block."""
    assert MODULE.exists(), HINT  # noqa: ASYNC240 - one look
    port = free_port()
    config = home / "nginx.conf"
    config.write_text(CONFIG.format(module=MODULE, home=home, port=port))
    arguments = [needed("nginx", HINT), "-p", str(home), "-c", str(config)]
    child = Child("nginx", [*arguments, "-e", str(home / "error.log")], env={}, cwd=home)
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    await writer.wait_closed()
                    break
        yield port
    finally:
        await asyncio.to_thread(child.stop, 5)
