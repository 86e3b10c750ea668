"""The broker's jars: resolved once by Maven from the pinned ``kafka/pom.xml`` and kept outside the checkout."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from centinela_local.errors import StartFailed, ToolMissing
from centinela_local.paths import CHECKOUT

POM = CHECKOUT / "deploy" / "local" / "kafka" / "pom.xml"
INSTALL_HINT = "install a JDK, 17 or later, and Maven (Debian: apt install openjdk-17-jdk-headless maven)"


def cache_root() -> Path:
    """``$CENTINELA_CACHE``, else ``~/.cache/centinela``."""
    return Path(os.environ.get("CENTINELA_CACHE") or Path.home() / ".cache" / "centinela")


def jars_dir(pom: Path = POM) -> Path:
    """Where the jars of *pom* belong: named by Kafka's version and the pom's content, so that a changed pom is resolved
    again."""
    content = pom.read_bytes()
    version = re.search(rb"<kafka\.version>([^<]+)<", content)
    if version is None:
        raise ValueError(f"{pom} names no kafka.version")
    return cache_root() / f"kafka-{version.group(1).decode()}-{hashlib.sha256(content).hexdigest()[:12]}"


def find_java() -> str | None:
    """The ``java`` of ``$JAVA_HOME``, else of the path; None where there is none."""
    home = os.environ.get("JAVA_HOME")
    if home and os.access(candidate := Path(home) / "bin" / "java", os.X_OK):
        return str(candidate)
    return shutil.which("java")


def can_run_broker() -> bool:
    """Whether the machine can run the embedded broker: a JVM, and the jars or Maven to fetch them."""
    return find_java() is not None and (jars_dir().is_dir() or shutil.which("mvn") is not None)


def ensure_jars() -> Path:
    """The folder of jars, fetched on first use. Safe to call from several processes at once.

    Raises:
        ToolMissing: The jars are not there yet, nor is Maven.
        StartFailed: Maven could not resolve them.
    """
    target = jars_dir()
    if target.is_dir():
        return target
    maven = shutil.which("mvn")
    if maven is None:
        raise ToolMissing(f"mvn is needed to fetch the Kafka broker: {INSTALL_HINT}")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={aside}"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StartFailed(f"Maven could not fetch the Kafka broker:\n{(done.stdout + done.stderr).strip()[-2000:]}")
        aside.chmod(0o755)
        try:
            aside.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target
