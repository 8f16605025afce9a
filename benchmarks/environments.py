"""One virtual environment a peer, from the pinned lists in peers/*.txt, and what machine this is."""

import hashlib
import json
import os
import platform
import subprocess
import venv
from collections.abc import Iterable
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS, ENVS = HERE / "peers", HERE / ".envs"
SHOWN = ("torch", "numba", "torchvision", "fastai", "lightning", "pellucid", "pillow", "numpy")


def python(environment: str) -> Path:
    """Path of an environment's interpreter."""
    return ENVS / environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def output(*command: str | Path) -> str:
    """Run a command that must succeed and return what it printed."""
    return subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def prepare(environment: str) -> None:
    """Create an environment unless it is there with these very requirements; pellucid is installed anew every time."""
    requirements = PEERS / f"{environment}.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    stamp = ENVS / environment / "requirements.sha256"
    ready = stamp.exists() and stamp.read_text() == digest
    source = [HERE.parent] if environment == "pellucid" else []
    if ready and not source:
        return
    print(f"preparing {environment} …", flush=True)
    if not ready:
        venv.create(ENVS / environment, with_pip=True, clear=True)
    output(python(environment), "-m", "pip", "install", "-q", "-r", requirements, *source)
    stamp.write_text(digest)


def prepared(environments: Iterable[str]) -> tuple[dict, dict[str, dict[str, str]]]:
    """What machine this is and what versions there are, once all environments are."""
    ENVS.mkdir(exist_ok=True)
    for environment in environments:
        prepare(environment)
    return machine(), versions(environments)


def versions(environments: Iterable[str]) -> dict[str, dict[str, str]]:
    """Installed versions of the packages that matter, by environment."""
    found = {}
    for environment in environments:
        listed = json.loads(output(python(environment), "-m", "pip", "list", "--format", "json"))
        found[environment] = {item["name"]: item["version"] for item in listed if item["name"] in SHOWN}
    return found


def machine() -> dict[str, str | int | float]:
    """What the numbers depend on; the load average tells whether the machine was doing something else."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "vector instructions": next((name for name in ("avx512f", "avx2") if name in flags), "other"),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "date": date.today().isoformat(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def circumstances(facts: dict, packages: dict[str, dict[str, str]] | None = None) -> list[str]:
    """Lines of a result page: the machine, and each environment's versions."""
    lines = [f"- {name.replace('_', ' ')}: {value}" for name, value in facts.items()]
    for environment, found in (packages or {}).items():
        lines.append(f"- environment {environment}: " + ", ".join(f"{name} {v}" for name, v in found.items()))
    return lines
