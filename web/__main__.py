"""`python -m web`: reads the environment, wires the service, runs it until SIGTERM."""

import asyncio
import logging
import os
import signal
import sys

from core.errors import ConfigError, StoreUnavailable
from web.service import open_service
from web.settings import WebSettings

log = logging.getLogger("web")


async def serve(settings: WebSettings) -> None:
    """Runs the service until SIGTERM or SIGINT."""
    async with open_service(settings) as service:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, service.stop)
        log.info("web service starts", extra={"host": settings.host, "port": settings.port})
        if settings.auth_mode == "open":
            log.warning("open mode: everybody who reaches this address may do everything")
        await service.run()


def main() -> int:
    """Returns the exit code: 2 for a configuration that cannot be used."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = WebSettings.from_env(os.environ, pid=os.getpid())  # noqa: TID251 - composition root
        asyncio.run(serve(settings))
    except ConfigError as exc:
        sys.stderr.write("".join(f"config: {problem}\n" for problem in exc.problems))
        return 2
    except StoreUnavailable as exc:
        sys.stderr.write(f"database: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
