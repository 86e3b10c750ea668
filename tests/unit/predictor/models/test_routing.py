"""The split between champion and challenger is a stable keyed hash."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from centinela_predictor.models.routing import Router

KEYS = [f"u-{n}" for n in range(20_000)]
GOLDEN = {
    "u-1": 0.8654149487545295,
    "u-42": 0.7306698748930854,
    "alice": 0.2697085438646857,
    "tx-0001": 0.06086323868212336,
    "ünï": 0.020083740773647135,
}


def test_positions_are_the_ones_of_every_earlier_release() -> None:
    router = Router("champion-challenger", 0.1)
    assert {key: router.position(key) for key in GOLDEN} == GOLDEN


def test_another_process_with_another_hash_seed_routes_alike() -> None:
    code = (
        "from centinela_predictor.models.routing import Router\n"
        "print(Router('champion-challenger', 0.1).position('u-42'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) == GOLDEN["u-42"]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_the_share_of_keys_is_the_share_asked_for(share: float) -> None:
    to_challenger = int(Router("experiment-1", share).goes_to_challenger(KEYS).sum())
    deviation = (share * (1 - share) * len(KEYS)) ** 0.5
    assert abs(to_challenger - share * len(KEYS)) < 4 * deviation


def test_a_larger_share_keeps_those_who_were_with_the_challenger() -> None:
    small, large = Router("s", 0.1).goes_to_challenger(KEYS), Router("s", 0.3).goes_to_challenger(KEYS)
    assert not (small & ~large).any()


def test_another_salt_draws_another_split() -> None:
    one, other = Router("one", 0.5).goes_to_challenger(KEYS), Router("other", 0.5).goes_to_challenger(KEYS)
    assert 0.45 < (one == other).mean() < 0.55


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, len(KEYS))])
def test_none_or_all_go_to_the_challenger(share: float, expected: int) -> None:
    assert int(Router("s", share).goes_to_challenger(KEYS).sum()) == expected


@pytest.mark.parametrize(("salt", "share"), [("s", -0.1), ("s", 1.1), ("s" * 65, 0.1)])
def test_an_impossible_split_is_refused(salt: str, share: float) -> None:
    with pytest.raises(ValueError, match=r"challenger_share|salt"):
        Router(salt, share)
