"""Which windows the base features of users have: checked against their declaration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from centinela.features.keys import Int64s
from centinela.features.spec import BASE_USER, LONGEST_MS, UNBOUNDED, Feature, duration_text


def base_windows_ms(base: Sequence[Feature]) -> Int64s:
    """The windows of *base*, which must be what ``UserState`` computes: a count and a mean amount of each window, then
    the greatest amount of the longest one, then the seconds since the transaction before.

    Raises:
        NotImplementedError: *base* has another feature, or a name that tells another window.
    """
    windows = [feature.window_ms for feature in base[:-2:2]]
    kinds = [(kind, window) for window in windows for kind in ("count", "mean")]
    kinds += [("max", LONGEST_MS), ("seconds_since_last", UNBOUNDED)]
    names = [f"user_{kind}_{duration_text(window)}" if window else f"user_{kind}" for kind, window in kinds]
    computed = tuple(Feature(name, "user", *kind) for name, kind in zip(names, kinds, strict=True))
    if tuple(base) != computed:
        differ = sorted({feature.text for feature in base} ^ {feature.text for feature in computed})
        raise NotImplementedError(
            f"BASE_USER: {', '.join(differ) or 'the order'}: the user kernel computes"
            f" {', '.join(feature.name for feature in computed)} (CONTRIBUTING.md, a base feature)"
        )
    return np.array(windows, dtype=np.int64)


WINDOWS_MS = base_windows_ms(BASE_USER)
