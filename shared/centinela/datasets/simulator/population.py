"""Customers, terminals, and which customer shops where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centinela.datasets.simulator.profile import Profile

GRID = 100.0
_BLOCK = 256


@dataclass(frozen=True)
class Population:
    """Columns of the customers (length ``profile.customers``) and their reachable terminals in one flat list.

    Customer *c* shops at ``terminals[first[c] : first[c] + reachable[c]]``.
    """

    mean_amount: NDArray[np.float64]
    rate: NDArray[np.float64]
    terminals: NDArray[np.int64]
    first: NDArray[np.int64]
    reachable: NDArray[np.int64]
    user_ids: NDArray[np.object_]
    terminal_ids: NDArray[np.object_]


def build_population(profile: Profile) -> Population:
    """Place customers and terminals on the grid; a customer with no terminal within the radius shops at the nearest."""
    rng = np.random.default_rng(np.random.SeedSequence([profile.seed, 0]))
    homes = rng.uniform(0, GRID, (profile.customers, 2))
    mean_amount = rng.uniform(5, 100, profile.customers)
    rate = rng.uniform(0, 4, profile.customers)
    sites = rng.uniform(0, GRID, (profile.terminals, 2))
    near = [_reachable(homes[at : at + _BLOCK], sites, profile.radius) for at in range(0, profile.customers, _BLOCK)]
    reachable = np.concatenate([counts for counts, _ in near])
    return Population(
        mean_amount=mean_amount,
        rate=rate,
        terminals=np.concatenate([indices for _, indices in near]),
        first=np.concatenate([[0], np.cumsum(reachable)[:-1]]),
        reachable=reachable,
        user_ids=_names("c", profile.customers),
        terminal_ids=_names("t", profile.terminals),
    )


def _reachable(
    homes: NDArray[np.float64], sites: NDArray[np.float64], radius: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number of sites that each home reaches, and their indices, home by home."""
    distance = np.square(homes[:, None, 0] - sites[None, :, 0]) + np.square(homes[:, None, 1] - sites[None, :, 1])
    within = distance <= radius * radius
    within[np.arange(len(homes)), distance.argmin(axis=1)] = True
    return within.sum(axis=1), np.nonzero(within)[1]


def _names(letter: str, count: int) -> NDArray[np.object_]:
    return np.array([f"{letter}{n:06d}" for n in range(count)], dtype=object)
