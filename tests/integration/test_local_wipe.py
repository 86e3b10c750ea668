"""``centinela down --wipe``: nothing of a stopped stack's data is left, Docker's volumes included."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from centinela_local.commands import down


def _docker(folder: Path, calls: Path) -> None:
    """A ``docker`` that answers and writes down what it was asked."""
    folder.mkdir()
    program = folder / "docker"
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    program.chmod(0o755)


@pytest.mark.parametrize("wipe", [True, False])
def test_down_removes_the_data_only_where_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wipe: bool
) -> None:
    root, calls = tmp_path / "local", tmp_path / "calls"
    _docker(tmp_path / "bin", calls)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setenv("CENTINELA_LOCAL_DIR", str(root))
    (root / "run").mkdir(parents=True)
    for mark in ("docker-runs", "docker-keeps"):
        (root / "run" / mark).touch()
    data = [root / name for name in ("kafka", "mlflow", "data")]
    for folder in data:
        folder.mkdir()
    app = typer.Typer()
    app.command()(down)

    result = CliRunner().invoke(app, ["--wipe"] if wipe else [])

    assert result.exit_code == 0, result.output
    downs = [line.partition(" down")[2].strip() for line in calls.read_text().splitlines() if " down" in line]
    assert downs == (["", "--volumes"] if wipe else [""])
    assert [folder.exists() for folder in data] == [not wipe] * 3
