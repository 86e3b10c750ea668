"""The history of champions and where a rollback returns to."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from centinela.model.promotions import MAX_TAG_CHARS, Promotion, before, decode_history, encode_history

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def history(*moves: str) -> list[Promotion]:
    """``"1>2"`` is a promotion from 1 to 2, ``"2<1"`` a rollback from 2 to 1, ``">1"`` the first champion."""
    entries = []
    for move in moves:
        sign = ">" if ">" in move else "<"
        previous, version = move.split(sign)
        entries.append(
            Promotion(kind="promote" if sign == ">" else "rollback", version=version, previous=previous or None, at=NOW)
        )
    return entries


@pytest.mark.parametrize(
    ("moves", "current", "expected"),
    [
        ([], "1", None),
        ([">1"], "1", None),
        ([">1", "1>2"], "2", "1"),
        ([">1", "1>2", "2>3", "3<2"], "2", "1"),
        ([">1", "1>2", "2>3", "3<2", "2<1"], "1", None),
        ([">1", "1>2", "2<1", "1>3"], "3", "1"),
        ([">1", "1>2", "2>1"], "1", "2"),
        ([">1", "1>2"], "7", "2"),
        ([">1", "4>5"], "5", "4"),
        (["8>9"], "9", "8"),
        (["3<2"], "2", None),
    ],
    ids=[
        "nothing",
        "first",
        "one back",
        "back again",
        "all undone",
        "undone branch is skipped",
        "same version twice",
        "moved in MLflow since",
        "moved in MLflow between",
        "oldest entries dropped",
        "rollback is all that is left",
    ],
)
def test_a_rollback_returns_to_the_champion_that_stood_before(
    moves: list[str], current: str, expected: str | None
) -> None:
    assert before(history(*moves), current) == expected


def test_a_history_survives_its_tag() -> None:
    entries = tuple(history(">1", "1>2", "2<1"))
    assert decode_history(encode_history(entries)) == entries


def test_a_long_history_keeps_its_newest_entries_within_the_tag() -> None:
    entries = [
        Promotion(kind="promote", version=str(n + 1), previous=str(n), at=NOW, reason="gründe " * 90)
        for n in range(200)
    ]
    text = encode_history(entries)
    kept = decode_history(text)
    assert len(text) <= MAX_TAG_CHARS
    assert [p.version for p in kept] == [str(n) for n in range(201 - len(kept), 201)]
    assert len(kept) >= 10


@pytest.mark.parametrize("tag", [None, "", "[{]", "hello", '[{"kind": "other"}]'])
def test_a_tag_that_somebody_else_wrote_is_no_history(tag: str | None) -> None:
    assert decode_history(tag) == ()
