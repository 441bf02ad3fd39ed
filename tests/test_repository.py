"""The repository as a whole: what may be in it, and that its papers tell the truth."""

import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # no stubs among the locked packages

from agent.ingest.settings import IngestSettings
from agent.settings import Settings
from core.errors import ConfigError
from web.settings import WebSettings

ROOT = Path(__file__).parent.parent
MAX_LINES = 400
MAX_BYTES = 400_000
README = (ROOT / "README.md").read_text()
GENERATED = {"requirements.lock", "web/ui/package-lock.json"}
REGISTRY = re.compile(
    r'"resolved": *"http|registry *= *"?http|index-url[ =]+http|/packages/[0-9a-f]{2}/[0-9a-f]{2}/'
    r"|files\.python" + r"hosted|registry\.npm" + r"js|proxy\.golang"
)
MACHINE_PATH = re.compile(r"(^|[^A-Za-z0-9_.$}])/(work|farm|root/|tmp/(team|setup))", re.MULTILINE)
BUILT = re.compile(r"\.(min\.js|onnx|whl|so|exe|jar|wav|mp3|flv|pyc|gz|br|zip|bin)$")


def tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout
    paths = [ROOT / name for name in listing.split("\0") if name]
    return [path for path in paths if path.is_file()]


def texts() -> Iterator[tuple[str, str]]:
    for path in tracked():
        data = path.read_bytes()
        if b"\0" not in data:
            yield str(path.relative_to(ROOT)), data.decode()


def test_no_built_or_vendored_or_big_files() -> None:
    names = {str(path.relative_to(ROOT)): path for path in tracked()}
    assert [name for name in names if BUILT.search(name)] == []
    assert [
        name
        for name, path in names.items()
        if name not in GENERATED and path.stat().st_size > MAX_BYTES
    ] == []


def test_no_addresses_of_registries_and_no_paths_of_a_machine() -> None:
    found = []
    for name, text in texts():
        if REGISTRY.search(text):
            found.append(f"{name}: a registry's address")
        if match := MACHINE_PATH.search(text):
            found.append(f"{name}: {match[0]!r}")
    assert [item for item in found if not item.startswith("tests/test_repository.py")] == []


def test_files_are_small() -> None:
    long = {
        name: lines
        for name, text in texts()
        if name.endswith((".py", ".ts", ".tsx", ".sql", ".css"))
        and (lines := text.count("\n")) > MAX_LINES
    }
    assert long == {}


def test_versions_are_pinned() -> None:
    for name in ("Dockerfile", "compose.yaml", "Makefile", "dev/livekit.py"):
        assert "latest" not in (ROOT / name).read_text(), name


def test_requirements_are_locked_with_hashes() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    blocks = re.split(r"\n(?=[a-z])", lock.strip())
    assert [block for block in blocks if "--hash=sha256:" not in block] == []
    assert "://" not in lock


def test_livekit_yaml_has_no_keys_and_lets_workers_be_useful() -> None:
    config = yaml.safe_load((ROOT / "livekit.yaml").read_text())
    assert "keys" not in config
    assert config["agents"]["target_load"] > 0.9
    assert config["webhook"]["urls"]


def test_papers_are_here() -> None:
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Dockerfile"):
        assert (ROOT / name).read_text().strip()
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 150
    assert 1 <= len(list((ROOT / "docs" / "decisions").glob("0*.md"))) < 10


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_links_in_the_readme_lead_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


class Asked(dict[str, str]):
    """An environment that remembers which variables were asked for."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)
        self.names: set[str] = set()

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]  # narrower on purpose
        self.names.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> str:
        self.names.add(key)
        return super().__getitem__(key)


def variables() -> set[str]:
    """Every variable that a setting is read from, also those that others bring up."""
    environ = Asked({"OIDC_ISSUER": "https://id.example", "HOST": "0.0.0.0"})
    for read in (Settings.from_env, WebSettings.from_env, IngestSettings.from_env):
        try:
            read(environ)
        except ConfigError:
            continue  # required ones are missing; all were asked for
    return environ.names


def documented() -> set[str]:
    table = README[README.index("## Variables") : README.index("## Limits")]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return set(re.findall(r"`([A-Z0-9_]+)`", " ".join(rows)))


def test_the_readme_explains_every_variable_and_no_other() -> None:
    assert documented() == variables()
