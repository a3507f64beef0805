"""The tests of the adapters under several versions of the engines' clients: python -m integration.clients."""

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".venv-clients"
QDRANT = ["tests/test_qdrant_local.py", "integration/test_qdrant_server.py"]
MILVUS = ["tests/test_milvus_lite.py"]


@dataclass(frozen=True)
class Client:
    """A version of a client, and the tests that go through it."""

    requirement: str
    tests: list[str]

    @property
    def python(self) -> Path:
        """Its own interpreter."""
        return FOLDER / "".join(mark if mark.isalnum() or mark == "." else "-" for mark in self.requirement)


CLIENTS = [
    Client("qdrant-client~=1.20.0", QDRANT),
    Client("qdrant-client", QDRANT),
    Client("pymilvus~=2.6.17", MILVUS),
    Client("pymilvus~=3.0", MILVUS),
]


def main() -> int:
    """Run all of them, or those whose requirement holds an argument; return how many failed."""
    wanted = sys.argv[1:] or [""]
    results = {
        client.requirement: tried(client) for client in CLIENTS if any(word in client.requirement for word in wanted)
    }
    for requirement, (version, status) in results.items():
        print(f"{requirement:24} {version:12} {'passed' if status == 0 else f'FAILED ({status})'}")
    return sum(status != 0 for _, status in results.values())


def tried(client: Client) -> tuple[str, int]:
    """Return the version that was installed, and the exit status of its tests."""
    venv.create(client.python, with_pip=True)
    python = client.python / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True)
    subprocess.run(
        [*pip, "--upgrade", "--editable", ".[all]", "--group", "test", client.requirement], cwd=ROOT, check=True
    )
    name = client.requirement.partition("~")[0]
    version = subprocess.run(
        [python, "-c", f"from importlib.metadata import version; print(version({name!r}))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    print(f"== {name} {version}", flush=True)
    tests = subprocess.run([python, "-m", "pytest", "-q", *client.tests], cwd=ROOT, check=False)
    return version, tests.returncode


if __name__ == "__main__":
    sys.exit(main())
