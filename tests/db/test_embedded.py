"""The embedded server: anybody starts it, nobody owns it, and no kill -9 loses a row."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import asyncpg
import pytest

from core.errors import ConfigError
from db import orphans
from db.binaries import find_binaries
from db.embedded import EmbeddedConfig, EmbeddedPostgres, is_locked, make_private
from tests.db.probes import wait_until

STARTER = """
import asyncio, sys
from pathlib import Path
import asyncpg
from db.embedded import EmbeddedConfig, EmbeddedPostgres

async def main():
    server = EmbeddedPostgres(EmbeddedConfig(home=Path(sys.argv[1]), linger_s=0.3))
    await asyncio.to_thread(server.ensure)
    conn = await asyncpg.connect(server.url())
    print(await conn.fetchval("select system_identifier from pg_control_system()"))
    await conn.close()

asyncio.run(main())
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that root's server account can reach; checks that no server outlives the test."""
    path = Path(mkdtemp(prefix="roomscribe-test-"))
    path.chmod(0o711)
    yield path
    for cluster in path.rglob("pg*/data"):
        wait_until(lambda: not is_locked(cluster.parent / "supervisor.lock"))  # noqa: B023 - now
        assert not orphans.processes(cluster)
    shutil.rmtree(path)


@contextlib.contextmanager
def opened(home: Path, **changes: object) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(EmbeddedConfig(home=home, linger_s=0.3, **changes))  # type: ignore[arg-type]  # one at a time
    server.ensure()
    try:
        yield server
    finally:
        server.close()


def ask(server: EmbeddedPostgres, statement: str) -> object:
    async def fetch() -> object:
        conn = await asyncpg.connect(server.url())
        try:
            return await conn.fetchval(statement)
        finally:
            await conn.close()

    with asyncio.Runner() as runner:
        return runner.run(fetch())


def test_eight_starters_share_one_cluster(home: Path) -> None:
    command = [sys.executable, "-c", STARTER, str(home)]
    odd = {"PATH": os.defpath, "LC_ALL": "xx_YY", "PGDATA": "/nonexistent", "PGPORT": "1"}
    environments = [None, odd] * 4
    starters = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
        for env in environments
    ]
    identifiers = {starter.communicate()[0] for starter in starters}
    assert [starter.returncode for starter in starters] == [0] * 8
    assert len(identifiers) == 1


def test_a_long_path_and_search_beyond_ascii(home: Path) -> None:
    deep = home / ("directory-" * 9)
    with opened(deep) as server:
        found = ask(server, "select to_tsvector('russian', 'Встречи ПРОШЛИ')::text")
        assert found == "'встреч':1 'прошл':2"
        assert server.layout.sockets.parent == Path("/tmp")
    shutil.rmtree(server.layout.sockets)


def test_a_recycled_pid_is_not_believed_and_not_harmed(home: Path) -> None:
    with opened(home) as server:
        data = server.layout.data
    wait_until(lambda: not is_locked(server.layout.supervisor))
    with subprocess.Popen(["sleep", "60"]) as innocent:
        (data / "postmaster.pid").write_text(f"{innocent.pid}\n{data}\n0\n5432\n\n\n0 0\nready\n")
        with opened(home) as server:
            assert ask(server, "select 1") == 1
        assert innocent.poll() is None
        innocent.kill()


def test_no_kill_loses_an_acknowledged_row(home: Path) -> None:
    """By kill -9 of postmaster, supervisor, a backend and everything, in a seeded order."""
    chance = random.Random(4)
    acknowledged: list[int] = []

    async def write(server: EmbeddedPostgres, until: int) -> None:
        while len(acknowledged) < until:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                conn = await asyncpg.connect(server.url(), timeout=2)
                try:
                    while len(acknowledged) < until:
                        number = len(acknowledged)
                        await conn.execute(
                            "insert into t values ($1) on conflict do nothing", number
                        )
                        acknowledged.append(number)
                finally:
                    conn.terminate()
                continue
            await asyncio.to_thread(server.ensure)

    with opened(home) as server, asyncio.Runner() as runner:
        ask(server, "create table t (n int primary key)")
        for what in chance.sample(["postmaster", "supervisor", "backend", "all"], 4):
            runner.run(write(server, len(acknowledged) + 50))
            _kill(server, what)
            server.ensure()
        runner.run(write(server, len(acknowledged) + 50))
        count = ask(server, "select count(*) from t")
    assert count == len(acknowledged) == 250


def _kill(server: EmbeddedPostgres, what: str) -> None:
    found = orphans.processes(server.layout.data)
    postmaster = next((pid for pid, parent in found.items() if parent not in found), None)
    if postmaster is None:
        return
    supervisor = found[postmaster]
    victims = {
        "postmaster": [postmaster],
        "supervisor": [supervisor],
        "backend": [pid for pid in found if pid != postmaster][:1],
        "all": [supervisor, *found],
    }[what]
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_deleted_directory_ends_its_server(home: Path) -> None:
    with opened(home) as server:
        old = orphans.processes(server.layout.data)
        shutil.rmtree(server.layout.base, ignore_errors=True)  # the server deletes files too
        server.ensure()
        assert ask(server, "select 1") == 1
        assert not set(old) & set(orphans.processes(server.layout.data))


def test_an_incomplete_data_directory_is_put_aside(home: Path) -> None:
    with opened(home) as server:
        data = server.layout.data
    wait_until(lambda: not is_locked(server.layout.supervisor))
    (data / "PG_VERSION").unlink()
    with opened(home) as server:
        assert ask(server, "select 1") == 1
        assert len([*server.layout.base.glob("data.incomplete-*")]) == 1


def test_programs_out_of_reach_are_copied(home: Path) -> None:
    """A virtual environment below a private home: parents are not opened up for the account."""
    if os.geteuid() != 0:
        return  # whoever is not root runs the server as himself
    private = home / "private"
    wheel = find_binaries(home, None).directory.parent.parent
    copied = private / "site-packages" / wheel.name
    shutil.copytree(wheel, copied, ignore=shutil.ignore_patterns("include", "pginstall"))
    libraries = wheel.with_name(f"{wheel.name}.libs")
    shutil.copytree(libraries, copied.with_name(libraries.name))
    private.chmod(0o700)
    with opened(home / "data", pg_bin=copied / "pginstall18" / "bin") as server:
        assert ask(server, "select 1") == 1
        assert (server.layout.base / "programs").is_dir()
    assert private.stat().st_mode & 0o777 == 0o700


def test_root_without_an_account_named_postgres(home: Path) -> None:
    if os.geteuid() != 0:
        return  # whoever is not root runs the server as himself
    with opened(home, account="nobody") as server:
        assert ask(server, "select 1") == 1
        assert server.layout.data.stat().st_uid == 65534
        assert server.layout.data.stat().st_mode & 0o777 == 0o700


PLAIN_USER = """
import sys
from pathlib import Path
from db.embedded import EmbeddedConfig, EmbeddedPostgres

home, pg_bin = map(Path, sys.argv[1:])
server = EmbeddedPostgres(EmbeddedConfig(home=home, pg_bin=pg_bin, linger_s=0.3))
server.ensure()
assert server.layout.base.stat().st_mode & 0o777 == 0o700
print(server.layout.data.stat().st_uid)
"""


def test_a_plain_user_runs_it_as_himself(home: Path, system_programs: Path) -> None:
    if os.geteuid() != 0:
        return  # then every test here is run by a plain user
    # The interpreter and this directory may lie in root's home: the user gets his own.
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    unwanted = shutil.ignore_patterns("site-packages", "dist-packages", "test", "__pycache__")
    library = Path(os.__file__).parent
    shutil.copytree(library, home / "python" / "lib" / version, ignore=unwanted, symlinks=True)
    python = home / "python" / "bin" / version
    python.parent.mkdir()
    shutil.copy(Path(sys.executable).resolve(), python)
    for package in ("core", "db"):
        shutil.copytree(Path(package), home / "code" / package, ignore=unwanted)
    data = home / "data"
    data.mkdir()
    os.chown(data, 65534, 65534)
    command: list[str | Path] = [python, "-S", "-c", PLAIN_USER, data, system_programs]
    result = subprocess.run(
        command,
        env={"PYTHONPATH": str(home / "code"), "PATH": os.defpath},
        user=65534,
        group=65534,
        extra_groups=[],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert (result.returncode, result.stdout) == (0, "65534\n")


def test_data_that_the_account_cannot_reach_is_said_at_once(home: Path) -> None:
    private = home / "private"
    private.mkdir(mode=0o700)
    if os.geteuid() == 0:
        with pytest.raises(ConfigError, match="cannot reach"), opened(private / "data"):
            pass


def test_data_of_another_version_is_never_left_behind(home: Path, system_programs: Path) -> None:
    old = find_binaries(home, system_programs)
    data = home / f"pg{old.major}" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text(f"{old.major}\n")
    assert find_binaries(home, None).major == old.major
    wheel = find_binaries(Path("/nonexistent"), None).directory
    with pytest.raises(ConfigError, match=f"holds data of pg{old.major}"):
        find_binaries(home, wheel)


def test_no_programs_is_a_configuration_error(home: Path) -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        EmbeddedPostgres(EmbeddedConfig(home=home, pg_bin=home))


def test_a_socket_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    planted.mkdir()
    planted.chmod(0o755)
    with pytest.raises(ConfigError, match="private"):
        make_private(planted, None)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="private"):
        make_private(link, None)


def test_the_log_holds_nothing_that_was_said(home: Path) -> None:
    with opened(home) as server:
        ask(server, "create table t (said text unique check (length(said) < 20))")
        for said in ("a secret", "a secret", "a secret that is far too long"):
            with contextlib.suppress(asyncpg.PostgresError):
                ask(server, f"insert into t values ('{said}')")  # noqa: S608 - constants
        assert "violates" in server.log_tail()
        assert "secret" not in server.log_tail()
