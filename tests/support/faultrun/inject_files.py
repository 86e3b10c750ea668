"""Makes faults happen to disks and files."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

from centinela_local.testing.temporary_stack import within
from tests.support.faultrun.inject import Injector
from tests.support.faultrun.stack import PREDICTORS, flip_a_bit
from tests.support.faultrun.watch import Happened, await_end


class FileInjector(Injector):
    """With the faults of disks and files."""

    def archive_disk_full(self, happened: Happened, _: random.Random) -> None:
        happened.what = f"the archive's disk is full for {happened.fault.hold_s:.1f} s"
        self._fill(self.stack.data / "archive", happened)

    def snapshot_disk_full(self, happened: Happened, _: random.Random) -> None:
        happened.what = (
            f"the disk of feature state is full for {happened.fault.hold_s:.1f} s, kill -9 {happened.fault.target}"
            " meanwhile"
        )
        self._fill(self.stack.data / "state", happened, happened.fault.target)

    def snapshot_damaged(self, happened: Happened, chance: random.Random) -> None:
        newest = [
            max(found, key=_position)
            for folder in (self.stack.data / "state").rglob("*")
            if folder.is_dir() and (found := list(folder.glob("*.snapshot")))
        ]
        cut = chance.random() < 0.5
        happened.what = (
            f"the newest snapshots ({len(newest)}) {'cut short' if cut else 'changed by one bit'}, kill -9 of both"
            " predictors"
        )
        pids = [self._running(name) for name in PREDICTORS]
        for pid in pids:
            self._stop_process(pid)
        for path in newest:
            if path.exists():
                _damage(path, cut, chance.random())
        for pid in pids:
            self._end_process(pid)

    def bundle_damaged(self, happened: Happened, chance: random.Random) -> None:
        models = self.stack.data / "models"
        cut = chance.random() < 0.5
        path = max((models / "current").resolve().glob("model.*"), key=lambda file: file.stat().st_size)
        names = [happened.fault.target, "gateway"]
        happened.what = (
            f"the served bundle's model file {'cut short' if cut else 'changed by one bit'}, kill -9"
            f" {' and '.join(names)}"
        )
        path.chmod(0o644)
        _damage(path, cut, chance.random())
        for name in names:
            self._kill(name)

    def parquet_damaged(self, happened: Happened, chance: random.Random) -> None:
        archive = self.stack.data / "archive"
        files = sorted((archive / "predictions").rglob("*.parquet"))
        cut = chance.random() < 0.5
        happened.what = (
            f"an archive file {'cut short' if cut else 'changed by one bit'} while the archive is killed; a training;"
            " then the archive rebuilt"
        )
        if files:
            _damage(chance.choice(files), cut, chance.random())
        self._kill("archive")
        request = self.retrain(f"on a damaged archive, fault {happened.fault.number}")
        self.asked.append(request)
        await_end(3)
        self.stack.supervisor.stop("archive")
        for entry in archive.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        self.stack.supervisor.start("archive")

    def _fill(self, disk: Path, happened: Happened, victim: str | None = None) -> None:
        if not disk.is_mount():
            happened.what = f"not done: it needs a file system of its own ({happened.what})"
            return
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            try:
                os.posix_fallocate(file.fileno(), 0, free)
            except OSError:
                _write_until_full(file.fileno())
        _write_rest(ballast)
        try:
            if victim is not None:
                self._kill(victim)
            await_end(happened.fault.hold_s)
            service = "archive" if disk.name == "archive" else "stream"
            happened.hit = within(
                10,
                lambda: (
                    "No space left" in self.stack.log(service)[-20_000:]
                    or "No space left" in self.stack.log("stream-1")[-20_000:]
                ),
            )
        finally:
            ballast.unlink()

    def _stop_process(self, pid: int) -> None:
        os.kill(pid, 19)

    def _end_process(self, pid: int) -> None:
        os.kill(pid, 9)


def _write_rest(ballast: Path) -> None:
    with ballast.open("ab", buffering=0) as file:
        _write_until_full(file.fileno())


def _write_until_full(descriptor: int) -> None:
    try:
        while os.write(descriptor, bytes(65_536)):
            pass
    except OSError:
        return


def _position(path: Path) -> int:
    return int("".join(c for c in path.stem if c.isdigit()) or 0)


def _damage(path: Path, cut: bool, where: float) -> None:
    if cut:
        os.truncate(path, int(path.stat().st_size * where))
    else:
        flip_a_bit(path, where * 0.999)
