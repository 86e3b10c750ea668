"""Served windows against a fault-free computation: plain SQL over the whole log, in its order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tests.support.faultrun.oracle import Judgement
from tests.support.faultrun.readback import ReadBack
from tests.support.independent_features import independent_features

TOLERANCE = 1e-9
_DAY_MS = 86_400_000
_MOST_UNSEEN = 20


def judge_features(found: ReadBack, first: Mapping[str, int], names: tuple[str, ...], judgement: Judgement) -> None:
    """Every served vector.

    The stream's are those of the whole log before the transaction. A gateway answers on the log as it had read it: its
    user's windows may lack that user's last transactions, and then are exactly those without them; how often is
    counted. Terminals' windows end days before, and must be whole in either case.
    """
    rows = sorted(first.values())
    table = _table(found, rows)
    expected = independent_features(table, _labels(found), order="log")
    for name in ("amount", "v1", "v2"):
        expected[name] = table[name]
    expected = expected[list(names)]
    row_of = {name: n for n, name in enumerate(table["transaction_id"])}
    verdicts = [verdict for verdict in found.verdicts if verdict.transaction_id in row_of]
    places = np.array([row_of[verdict.transaction_id] for verdict in verdicts], np.int64)
    served = np.frombuffer(b"".join(verdict.features for verdict in verdicts), "<f8").reshape(len(verdicts), -1)
    wanted = expected.to_numpy(np.float64)[places]
    same = _same(served, wanted, names)
    by_gateway = np.array([verdict.origin == "gateway" for verdict in verdicts], bool)
    user = np.array([name.startswith("user_") for name in names])
    stale = by_gateway & ~same[:, user].all(axis=1) & same[:, ~user].all(axis=1)
    ways = _Prefixes(table, names)
    explained = [n for n in np.flatnonzero(stale).tolist() if ways.explains(int(places[n]), served[n])]
    right = np.asarray(same.all(axis=1))
    right[explained] = True
    for n, name in enumerate(names):
        judgement.notes.setdefault("feature mismatches", {})[name] = int((~same[~right, n]).sum())  # type: ignore[index]
    judgement.check(
        "served windows equal to a fault-free computation",
        int(same.size),
        (
            _difference(verdicts[n].transaction_id, verdicts[n].origin, names, served[n], wanted[n], same[n])
            for n in np.flatnonzero(~right).tolist()
        ),
    )
    judgement.notes["gateway vectors"] = int(by_gateway.sum())
    judgement.notes["of them on a log without the user's last transactions"] = len(explained)
    judgement.notes["rows with a fraud in a terminal's window"] = int((expected["terminal_risk_30d"] > 0).sum())


def _same(served: np.ndarray, wanted: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    tolerance = np.array([0.0 if "_count_" in name else TOLERANCE for name in names])
    close = np.abs(served - wanted) <= tolerance * np.maximum(1.0, np.abs(wanted))
    same: np.ndarray = close | (np.isnan(served) & np.isnan(wanted))
    return same


class _Prefixes:
    """A user's windows on the log without that user's last few transactions."""

    def __init__(self, table: pd.DataFrame, names: tuple[str, ...]) -> None:
        self._names = names
        self._user = table["user_id"].to_numpy()
        self._ms = (pd.to_datetime(table["occurred_at"], utc=True) - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(1, "ms")
        self._times = self._ms.to_numpy(np.int64)
        self._amounts = table["amount"].to_numpy()
        self._rows = (
            {user: rows.to_numpy() for user, rows in table.groupby("user_id").groups.items()} if len(table) else {}
        )

    def explains(self, row: int, served: np.ndarray) -> bool:
        """Whether *served* is exact for some such log."""
        before = self._rows[self._user[row]]
        before = before[before < row]
        return any(
            self._fits(row, before[: len(before) - missing], served)
            for missing in range(1, min(len(before), _MOST_UNSEEN) + 1)
        )

    def _fits(self, row: int, before: np.ndarray, served: np.ndarray) -> bool:
        at = self._times[row]
        seen = np.append(before[self._times[before] <= at], row)
        times, amounts = self._times[seen], self._amounts[seen]
        wanted: dict[str, float] = {}
        for days in (1, 7, 30):
            inside = amounts[times > at - days * _DAY_MS]
            wanted[f"user_count_{days}d"], wanted[f"user_mean_{days}d"] = len(inside), inside.mean()
        wanted["user_max_30d"] = amounts[times > at - 30 * _DAY_MS].max()
        wanted["user_seconds_since_last"] = (at - times[:-1].max()) / 1000 if len(times) > 1 else np.nan
        columns = [self._names.index(name) for name in wanted]
        return bool(_same(served[None, columns], np.array([list(wanted.values())]), tuple(wanted)).all())


def _table(found: ReadBack, rows: list[int]) -> pd.DataFrame:
    """The first record of each transaction id, in the order of the log within each partition."""
    sound = [found.transactions[row] for row in rows]
    return pd.DataFrame(
        {
            "transaction_id": [t.transaction_id for t in sound if t],
            "user_id": [t.user_id for t in sound if t],
            "terminal_id": [t.terminal_id for t in sound if t],
            "occurred_at": pd.to_datetime([t.occurred_at for t in sound if t], utc=True),
            "amount": [t.amount for t in sound if t],
            **{name: [t.attributes.get(name, np.nan) for t in sound if t] for name in ("v1", "v2")},
        }
    )


def _labels(found: ReadBack) -> pd.DataFrame:
    labels = [
        label
        for place, label in zip(found.label_places, found.labels, strict=True)
        if place not in found.mistimed_labels
    ]
    return pd.DataFrame(
        {
            "transaction_id": [label.transaction_id for label in labels],
            "is_fraud": [label.is_fraud for label in labels],
            "reported_at": pd.to_datetime([label.reported_at for label in labels], utc=True),
        }
    )


def _difference(
    name: str, origin: str, names: tuple[str, ...], served: np.ndarray, wanted: np.ndarray, same: np.ndarray
) -> str:
    pairs = ", ".join(f"{names[n]} {served[n]:g} not {wanted[n]:g}" for n in np.flatnonzero(~same).tolist())
    return f"{name} ({origin}): {pairs}"
