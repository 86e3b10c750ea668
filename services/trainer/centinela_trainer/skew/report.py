"""What a skew check found, as it is kept and shown. Light: the trainer's metrics page reads it at every scrape."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from centinela.errors import CentinelaError, DependencyUnavailable
from centinela.files import write_atomically


class FeatureSkew(msgspec.Struct, frozen=True, kw_only=True):
    """One feature among the judged rows of one origin. ``largest``: greatest difference, None where one side is
    missing."""

    feature: str
    origin: str
    judged: int
    mismatches: int
    largest: float | None = None

    @property
    def rate(self) -> float:
        """Share of the judged rows that differ."""
        return self.mismatches / self.judged if self.judged else 0.0


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A value that differs. None is a missing value."""

    transaction_id: str
    origin: str
    feature: str
    served: float | None
    recomputed: float | None


class SkewReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a check found. ``judged``: rows by origin. ``not_judged``: rows by reason. ``rows_differing``: judged rows
    with a mismatch."""

    as_of: datetime
    sampled: int
    judged: dict[str, int]
    not_judged: dict[str, int]
    rows_differing: int
    features: tuple[FeatureSkew, ...]
    examples: tuple[Example, ...] = ()

    @property
    def mismatches(self) -> int:
        """Values that differ, over all features and origins."""
        return sum(one.mismatches for one in self.features)

    @property
    def worst(self) -> FeatureSkew | None:
        """The feature, over all origins, with the highest rate; None where nothing was judged."""
        rows = sum(self.judged.values())
        counts: dict[str, int] = {}
        for one in self.features:
            counts[one.feature] = counts.get(one.feature, 0) + one.mismatches
        if not rows or not counts:
            return None
        name = max(counts, key=lambda feature: counts[feature])
        return FeatureSkew(feature=name, origin="all", judged=rows, mismatches=counts[name])

    def sentence(self) -> str:
        """The result in one line."""
        judged, left = sum(self.judged.values()), sum(self.not_judged.values())
        rest = f", {left:,} not judged" if left else ""
        if not judged:
            return f"nothing could be judged of {self.sampled:,} served vectors{rest}"
        return f"{self.mismatches:,} mismatches in {judged:,} served vectors{rest}"


def excess(report: SkewReport | None, limit: float) -> str | None:
    """Why *report* forbids a promotion; None where it does not, and where nothing was judged."""
    worst = report.worst if report is not None else None
    if report is None or worst is None or worst.rate <= limit:
        return None
    return (
        f"served {worst.feature} differs from the batch form in {worst.rate:.2%} of {worst.judged} sampled rows; "
        f"at most {limit:.2%} may"
    )


def save(report: SkewReport, path: Path) -> None:
    """Write *report* as JSON, whole or not at all.

    Raises:
        DependencyUnavailable: The disk refuses.
    """
    content = msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.write(content))
    except OSError as error:
        raise DependencyUnavailable(f"cannot write {path}: {error.strerror}", dependency="disk") from error


def load(path: Path) -> SkewReport | None:
    """The report at *path*; None where there is none.

    Raises:
        CentinelaError: It cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=SkewReport)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise CentinelaError(f"cannot read {path}: {error}") from error
