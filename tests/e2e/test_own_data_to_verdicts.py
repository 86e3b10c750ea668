"""A user's first walk: start, load a file as history, train, send the rest, ask, count. Every process is a real one.

With files of your own instead of the small ones that are made here (the first needs a day and some dozens of frauds in
each half): ``E2E_ULB_FILE=creditcard.csv.gz E2E_HANDBOOK_FILE=stream.parquet make test
ARGS=tests/e2e/test_own_data_to_verdicts.py``
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from centinela.datasets.simulator import Profile, Simulation
from centinela_local.testing.temporary_stack import TemporaryStack

pytestmark = [pytest.mark.timeout(3_600)]

LEAST_AVERAGE_PRECISION = 0.80
REPLAY_S = 8


@dataclass(frozen=True)
class Files:
    """Transactions of a user: ``ulb`` with its rows and classes, and a ``handbook`` file with its rows."""

    ulb: Path
    classes: pd.Series[int]
    handbook: Path
    handbook_rows: int

    @property
    def history_rows(self) -> int:
        """The first half of ``ulb``."""
        return len(self.classes) // 2

    @property
    def patience_s(self) -> float:
        """Longest wait for what comes of a file: time enough for a large one on a busy machine."""
        return 90 + max(len(self.classes), self.handbook_rows) / 500


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("files")
    ulb = Path(os.environ.get("E2E_ULB_FILE") or write_ulb(folder / "creditcard.csv.gz"))
    handbook = Path(os.environ.get("E2E_HANDBOOK_FILE") or write_handbook(folder / "handbook.parquet"))
    return Files(
        ulb,
        pd.read_csv(ulb, usecols=["Class"])["Class"],
        handbook,
        len(pd.read_parquet(handbook, columns=["TX_AMOUNT"])),
    )


def write_ulb(path: Path, rows: int = 6_000) -> Path:
    """A day in the ULB layout: one fraud in thirty, told by three of the columns; some rows of the second half are
    spoilt."""
    random, fraud = np.random.default_rng(11), np.arange(rows) % 30 == 7
    columns = random.normal(size=(rows, 28))
    columns[fraud, :3] += 2.5
    frame = pd.DataFrame(columns, columns=[f"V{n}" for n in range(1, 29)])
    frame.insert(0, "Time", np.sort(random.integers(0, 86_400, rows)).astype(float))
    frame["Amount"] = random.gamma(1, 80, rows).round(2).astype(object)
    frame["Class"] = fraud.astype(int)
    frame.loc[rows - 1_500, "Amount"], frame.loc[rows - 20, "Amount"] = "n/a", -3.5
    frame.to_csv(path, index=False)
    return path


def write_handbook(path: Path) -> Path:
    """Twenty days of cardholders and terminals in the Handbook's layout."""
    days = pd.concat(Simulation(Profile(seed=5, customers=300, terminals=600, start=date(2018, 4, 1))).days(20))
    names = {
        "occurred_at": "TX_DATETIME",
        "user_id": "CUSTOMER_ID",
        "terminal_id": "TERMINAL_ID",
        "amount": "TX_AMOUNT",
        "is_fraud": "TX_FRAUD",
    }
    frame = days.assign(occurred_at=days["occurred_at"].dt.tz_localize(None))[list(names)].rename(columns=names)
    frame.insert(0, "TRANSACTION_ID", range(len(frame)))
    frame.to_parquet(path, index=False)
    return path


@pytest.fixture(scope="module")
def stack(stack_in: Callable[..., AbstractContextManager[TemporaryStack]], files: Files) -> Iterator[TemporaryStack]:
    """A stack whose champion was trained on the first half of the ULB file, by the commands of the README."""
    with stack_in("own-data") as stack:
        stack.run("up")
        stack.run("replay", str(files.ulb), "--history", "--limit", str(files.history_rows))
        stack.run("retrain", "--reason", "first model", "--wait")
        stack.await_ready("gateway", "stream")
        yield stack


@pytest.fixture(scope="module")
def log(stack: TemporaryStack, open_log: Callable[..., Any]) -> Any:
    """All verdicts and dead letters so far."""
    return open_log(stack)


@pytest.fixture
def gateway(stack: TemporaryStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url("gateway"), timeout=20) as client:
        yield client


def test_the_model_of_the_first_half_finds_the_frauds_of_the_second(
    stack: TemporaryStack,
    log: Any,
    files: Files,
    record_property: Callable[[str, object], None],
) -> None:
    stack.run("replay", str(files.ulb), timeout_s=files.patience_s)

    def rejected() -> set[str]:
        return {
            letter["dlq.row"] for letter in log.dead_letters if letter.get("dlq.source", "").endswith(files.ulb.name)
        }

    def verdicts() -> dict[int, Any]:
        return {
            int(v.transaction_id.removeprefix("ulb-")): v for v in log.verdicts if v.transaction_id.startswith("ulb-")
        }

    log.read_until(lambda: len(verdicts()) + len(rejected()) >= len(files.classes), files.patience_s)
    answers = verdicts()
    assert len([v for v in log.verdicts if v.transaction_id.startswith("ulb-")]) + len(rejected()) == len(files.classes)

    second = {row: verdict for row, verdict in answers.items() if row > files.history_rows}
    assert {v.origin for row, v in answers.items() if row <= files.history_rows} == {"history"}
    assert {v.origin for v in second.values()} == {"stream"}
    average_precision = average_precision_score(
        [files.classes[row - 1] for row in second], [v.score for v in second.values()]
    )
    record_property("average_precision_of_second_half", average_precision)
    assert average_precision >= LEAST_AVERAGE_PRECISION


def test_each_row_has_one_verdict_although_the_stream_is_killed_in_the_middle(
    stack: TemporaryStack, log: Any, files: Files
) -> None:
    replay = stack.begin("replay", str(files.handbook), "--rate", f"{max(500, files.handbook_rows // REPLAY_S)}/s")

    def verdicts() -> list[str]:
        return [v.transaction_id for v in log.verdicts if v.transaction_id.startswith("hb-")]

    log.read_until(lambda: len(verdicts()) > files.handbook_rows // 5, files.patience_s)
    seen = len(verdicts())
    stack.kill("stream")
    output, _ = replay.communicate(timeout=files.patience_s)
    assert replay.returncode == 0, output

    log.read_until(lambda: len(verdicts()) >= files.handbook_rows, files.patience_s)
    assert seen < files.handbook_rows
    assert sorted(verdicts()) == sorted(f"hb-{n}" for n in range(files.handbook_rows))


def test_a_posted_transaction_gets_one_verdict_of_the_champion_however_often_it_is_posted(
    stack: TemporaryStack,
    log: Any,
    gateway: httpx.Client,
) -> None:
    transaction = {
        "transaction_id": "posted-1",
        "user_id": "u-42",
        "terminal_id": "t-7",
        "amount": 100.5,
        "attributes": {"v1": 0.5},
        "occurred_at": datetime.now(UTC).isoformat(),
    }
    for body in (transaction, transaction, transaction | {"transaction_id": "posted-2"}):
        response = httpx.post(f"{stack.url('ingest')}/transactions", json=body, timeout=20)
        assert (response.status_code, response.json()) == (
            202,
            {"accepted": 1, "transaction_ids": [body["transaction_id"]]},
        )

    assert log.verdict_on("posted-2").origin == "stream"
    [verdict] = log.of("posted-1")
    assert 0 <= verdict.score <= 1
    assert verdict.model_version == gateway.get("/model").json()["champion"]["version"]


def test_the_plain_body_is_answered_and_the_same_verdict_stands_in_the_log(log: Any, gateway: httpx.Client) -> None:
    response = gateway.post("/predict", json={"amount": 100.5, "time": 42, "v1": 0.5, "v2": -1.2})
    answer = response.json()
    assert response.status_code == 200, response.text
    assert answer["is_fraud"] is (answer["decision"] == "decline")
    assert 0 <= answer["fraud_probability"] <= 1

    verdict = log.verdict_on(answer["transaction_id"])
    assert verdict[:5] == (
        answer["transaction_id"],
        answer["fraud_probability"],
        answer["decision"],
        "gateway",
        answer["model_version"],
    )


def test_an_id_given_twice_gets_its_first_verdict(log: Any, gateway: httpx.Client) -> None:
    first, again = (
        gateway.post("/predict", json={"transaction_id": "asked-twice", "user_id": "u-9", "amount": 12}).json()
        for _ in range(2)
    )
    assert (first.pop("repeated"), again.pop("repeated")) == (False, True)
    assert again == first

    marker = gateway.post("/predict", json={"user_id": "u-9", "amount": 12}).json()["transaction_id"]
    log.verdict_on(marker)
    assert len(log.of("asked-twice")) == 1


def test_the_audit_reconciles(stack: TemporaryStack, log: Any) -> None:
    log.read()
    counted = stack.run("audit", "--wait", "60", "--json")
    assert f'"verdicts": {len(log.verdicts)}' in counted
    assert '"missing": 0, "repeated": 0' in counted
