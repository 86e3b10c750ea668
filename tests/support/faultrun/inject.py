"""Makes faults happen: processes, brokers and the registry. To disks and files: ``inject_files``; to the log:
``inject_log``."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from kafka import KafkaConsumer, TopicPartition  # noqa: TID251 - a client of the tests' own

from centinela.errors import DependencyUnavailable
from centinela_local.processes.restarts import LONGEST_S
from centinela_local.testing.temporary_stack import within
from tests.support.faultrun.plan import Fault
from tests.support.faultrun.stack import PREDICTORS, FaultStack
from tests.support.faultrun.watch import Happened, await_end

LOOK_FOR_S = 15.0


@dataclass
class Injector:
    """Carries out one fault after another.

    Attributes:
        retrain: Asks for a training; the request's id.
        drain_s: Longest time that a service may take to end after SIGTERM.
        asked: Ids of the trainings asked for.
    """

    stack: FaultStack
    clock: Callable[[], float]
    retrain: Callable[[str], str]
    drain_s: float
    asked: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)

    def inject(self, fault: Fault) -> Happened:
        """Do *fault*; when this returns, it is over and recovery begins."""
        happened = Happened(fault, self.clock())
        try:
            getattr(self, fault.kind)(happened, random.Random(fault.seed))  # noqa: S311
        except Exception as error:
            happened.problems.append(f"could not be carried out: {error!r}")
        happened.ended = self.clock()
        return happened

    # -- processes -----------------------------------------------------------------------------------------------

    def kill(self, happened: Happened, _: random.Random) -> None:
        happened.what = f"kill -9 {happened.fault.target}"
        self._kill(happened.fault.target)

    def term(self, happened: Happened, _: random.Random) -> None:
        name = happened.fault.target
        happened.what = f"SIGTERM {name}"
        pid = self._running(name)
        began = time.monotonic()
        send_signal(pid, signal.SIGTERM)
        if not within(self.drain_s + 20, lambda: _gone(pid)):
            happened.problems.append(f"{name} still ran {self.drain_s + 20:.0f} s after SIGTERM")
            send_signal(pid, signal.SIGKILL)
            return
        took = time.monotonic() - began
        happened.what += f", gone after {took:.1f} s"
        if took > self.drain_s:
            happened.problems.append(f"{name} took {took:.1f} s to end after SIGTERM (limit {self.drain_s:.0f} s)")
        if (status := self.exit_status(pid, name)) != "0":
            happened.problems.append(f"{name} ended with {status} after SIGTERM")

    def kill_predictors(self, happened: Happened, _: random.Random) -> None:
        happened.what = "kill -9 both predictors and the gateway at once"
        for pid in [self._running(name) for name in (*PREDICTORS, "gateway")]:
            send_signal(pid, signal.SIGKILL)

    def kill_uncommitted(self, happened: Happened, _: random.Random) -> None:
        name = happened.fault.target
        happened.what = f"kill -9 {name} while a transaction of it is open"
        happened.hit = False
        consumer = KafkaConsumer(
            bootstrap_servers=self.stack.servers,
            group_id=None,
            isolation_level="read_uncommitted",
            enable_auto_commit=False,
            fetch_max_wait_ms=20,
        )
        committed = KafkaConsumer(
            bootstrap_servers=self.stack.servers,
            group_id=None,
            isolation_level="read_committed",
            enable_auto_commit=False,
        )
        try:
            partitions = [TopicPartition("predictions", n) for n in consumer.partitions_for_topic("predictions") or ()]
            consumer.assign(partitions)
            consumer.seek_to_end()
            pid = self._running(name)
            deadline = time.monotonic() + LOOK_FOR_S
            while not happened.hit and time.monotonic() < deadline:
                if not consumer.poll(200, max_records=1):
                    continue
                send_signal(pid, signal.SIGSTOP)
                high, stable = consumer.end_offsets(partitions), committed.end_offsets(partitions)
                happened.hit = any(stable[p] < high[p] for p in partitions) and high == consumer.end_offsets(partitions)
                if not happened.hit:
                    send_signal(pid, signal.SIGCONT)
                    consumer.seek_to_end()
            send_signal(pid, signal.SIGKILL)
        finally:
            consumer.close()
            committed.close()

    def kill_unsnapshotted(self, happened: Happened, _: random.Random) -> None:
        name = happened.fault.target
        happened.what = f"kill -9 {name} after a commit, before the snapshot of it"
        pid = self._running(name)
        deadline = time.monotonic() + LOOK_FOR_S
        happened.hit = False
        while not happened.hit and time.monotonic() < deadline:
            await_end(0.2)
            send_signal(pid, signal.SIGSTOP)
            with suppress(DependencyUnavailable):  # the fault before this one may still hold the brokers
                done, kept = self.stack.committed(), self.stack.newest_snapshots()
                happened.hit = any(offset > kept.get(partition, -1) for partition, offset in done.items())
            if not happened.hit:
                send_signal(pid, signal.SIGCONT)
        send_signal(pid, signal.SIGKILL)

    def kill_snapshotting(self, happened: Happened, _: random.Random) -> None:
        name = happened.fault.target
        happened.what = f"kill -9 {name} while it writes a snapshot"
        pid = self._running(name)
        suffix = f".{pid}.part"
        deadline = time.monotonic() + LOOK_FOR_S
        folders = [path for path in (self.stack.data / "state").rglob("*") if path.is_dir()]
        happened.hit = False
        while not happened.hit and time.monotonic() < deadline:
            happened.hit = any(entry.endswith(suffix) for folder in folders for entry in _names(folder))
        send_signal(pid, signal.SIGKILL)

    def kill_loading(self, happened: Happened, chance: random.Random) -> None:
        name = happened.fault.target
        happened.what = f"kill -9 {name} while it loads a promoted model"
        pid = self._running(name)
        version = self.stack.register()
        self.stack.versions.append(version)
        self.stack.promote(version)
        models = self.stack.data / "models"
        happened.hit = within(
            LOOK_FOR_S, lambda: any(f"incoming-{version}-" in entry or entry == version for entry in _names(models))
        )
        await_end(chance.uniform(0, 0.15))
        send_signal(pid, signal.SIGKILL)

    def promote_damaged(self, happened: Happened, _: random.Random) -> None:
        version = self.stack.register(damage=True)
        before = self.stack.champion or ""
        happened.what = f"promote version {version}, whose model file was changed by one bit; then {before} again"
        self.rejected.append(version)
        self.stack.promote(version)
        happened.hit = within(
            LOOK_FOR_S,
            lambda: all(
                f'"model_version":"{version}"' in line.replace(": ", ":")
                for name in ("stream", "gateway")
                for line in self._lines(name, "model.rejected")[-1:] or [""]
            ),
        )
        self.stack.promote(before)

    # -- brokers and registry -----------------------------------------------------------------------------------------

    def broker_killed(self, happened: Happened, _: random.Random) -> None:
        number = int(happened.fault.target)
        happened.what = (
            f"kill -9 broker {number + 1} of {len(self.stack.cluster.brokers)}, start it {happened.fault.hold_s:.1f} s"
            " later"
        )
        broker = self.stack.cluster.brokers[number]
        broker.stop()
        await_end(happened.fault.hold_s)
        broker.start()

    def broker_paused(self, happened: Happened, _: random.Random) -> None:
        number = int(happened.fault.target)
        happened.what = (
            f"SIGSTOP broker {number + 1} of {len(self.stack.cluster.brokers)} for {happened.fault.hold_s:.1f} s"
        )
        broker = self.stack.cluster.brokers[number]
        broker.pause()
        await_end(happened.fault.hold_s)
        broker.resume()

    def brokers_killed(self, happened: Happened, _: random.Random) -> None:
        happened.what = f"kill -9 every broker, start them {happened.fault.hold_s:.1f} s later"
        self.stack.cluster.stop()
        await_end(happened.fault.hold_s)
        self.stack.cluster.start()

    def brokers_paused(self, happened: Happened, _: random.Random) -> None:
        happened.what = f"SIGSTOP every broker for {happened.fault.hold_s:.1f} s"
        for broker in self.stack.cluster.brokers:
            broker.pause()
        await_end(happened.fault.hold_s)
        for broker in self.stack.cluster.brokers:
            broker.resume()

    def mlflow_away(self, happened: Happened, _: random.Random) -> None:
        happened.what = f"stop MLflow for {happened.fault.hold_s:.1f} s, kill -9 {happened.fault.target} meanwhile"
        self.stack.supervisor.stop("mlflow")
        self._kill(happened.fault.target)
        await_end(happened.fault.hold_s)
        self.stack.supervisor.start("mlflow")

    # -- groups -------------------------------------------------------------------------------------------------------

    def predictor_paused(self, happened: Happened, _: random.Random) -> None:
        name = happened.fault.target
        happened.what = (
            f"SIGSTOP {name} for {happened.fault.hold_s:.1f} s, past session (10 s) and transaction (10 s) time-outs"
        )
        pid = self._running(name)
        send_signal(pid, signal.SIGSTOP)
        await_end(happened.fault.hold_s)
        send_signal(pid, signal.SIGCONT)

    def zombie(self, happened: Happened, _: random.Random) -> None:
        name = happened.fault.target
        slot = "0" if name == "stream" else "1"
        happened.what = f"SIGSTOP {name}, start another one in its place, SIGCONT: the first must be fenced"
        pid = self._running(name)
        send_signal(pid, signal.SIGSTOP)
        port = self.stack.extra_ports[0]
        other = self.stack.stranger(name, {"CENTINELA_PREDICTOR_PORT": str(port)})
        before = self.stack.strangers_log()
        took_over = within(
            60, lambda: f'"predictor-{slot}"' in self.stack.strangers_log()[len(before) :] or self.stack.is_ready(port)
        )
        await_end(2)
        send_signal(pid, signal.SIGCONT)
        happened.hit = within(40, lambda: _gone(pid))
        if not took_over:
            happened.problems.append("the one that took its place was not ready within 60 s")
        if not happened.hit:
            happened.problems.append(f"{name}, whose place was taken, still runs 40 s after SIGCONT")
        elif self.exit_status(pid, name) == "0":
            happened.problems.append(f"{name} was fenced and ended with code 0")
        other.kill()
        other.wait()

    def rebalance_storm(self, happened: Happened, chance: random.Random) -> None:
        how = [chance.choice((signal.SIGTERM, signal.SIGKILL)) for _ in range(4)]
        happened.what = (
            f"4 more predictors join and leave within seconds ({sum(h == signal.SIGKILL for h in how)} of them by"
            " kill -9)"
        )
        for number, signal_ in enumerate(how):
            port = self.stack.extra_ports[number % len(self.stack.extra_ports)]
            extra = self.stack.stranger(
                "stream",
                {"CENTINELA_SLOT": f"x{happened.fault.number}-{number}", "CENTINELA_PREDICTOR_PORT": str(port)},
            )
            within(30, lambda port=port: self.stack.is_ready(port))  # type: ignore[misc]
            await_end(chance.uniform(0, 3))
            extra.send_signal(signal_)
            if not within(30, lambda extra=extra: extra.poll() is not None):  # type: ignore[misc]
                happened.problems.append("one that left did not end within 30 s of its SIGTERM")
                extra.kill()

    def slow_consumer(self, happened: Happened, chance: random.Random) -> None:
        name = happened.fault.target
        happened.what = f"{name} runs a quarter of the time for {happened.fault.hold_s:.1f} s (SIGSTOP in pulses)"
        pid = self._running(name)
        deadline = time.monotonic() + happened.fault.hold_s
        while time.monotonic() < deadline:
            send_signal(pid, signal.SIGSTOP)
            await_end(chance.uniform(0.2, 0.4))
            send_signal(pid, signal.SIGCONT)
            await_end(0.1)

    def retrain_killed(self, happened: Happened, _: random.Random) -> None:
        happened.what = f"ask for a training, kill -9 the trainer {happened.fault.hold_s:.1f} s later"
        self.asked.append(self.retrain(f"fault {happened.fault.number}"))
        await_end(happened.fault.hold_s)
        self._kill("trainer")

    # -- what they share ----------------------------------------------------------------------------------------------

    def exit_status(self, pid: int, name: str) -> str:
        """How *pid*, which ended, did so: a code, or the signal's name; ? where supervisor did not say."""

        def told() -> list[str]:
            lines = self.stack.supervisor_log().splitlines()
            spawned = [n for n, line in enumerate(lines) if line.endswith(f"with pid {pid}")]
            return [line for line in lines[spawned[-1] if spawned else 0 :] if f"exited: {name} (" in line][:1]

        if not within(5, lambda: bool(told())):
            return "?"
        [line] = told()
        return (
            line.partition("exit status ")[2].partition(";")[0] or line.partition("terminated by ")[2].partition(";")[0]
        )

    def _lines(self, name: str, event: str) -> list[str]:
        return [line for line in self.stack.log(name).splitlines() if f'"{event}"' in line]

    def _running(self, name: str) -> int:
        """Its process, waited for where it is just being started again, at the latest after the longest pause."""
        within(LONGEST_S + 30, lambda: self.stack.pid(name) != 0 and not _gone(self.stack.pid(name)))
        return self.stack.pid(name)

    def _kill(self, name: str) -> None:
        pid = self._running(name)
        send_signal(pid, signal.SIGKILL)
        within(5, lambda: _gone(pid))


def now() -> datetime:
    """For what is sent to the system."""
    return datetime.now(UTC)


def send_signal(pid: int, number: signal.Signals) -> None:
    if pid:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _names(folder: os.PathLike[str]) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
