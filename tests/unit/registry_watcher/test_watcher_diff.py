"""What the registry says against what was announced."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from centinela.events import ModelPromoted
from centinela_registry_watcher.diff import Alias, Announced, Announcement, diff, key_of, with_event

NOW = datetime(2026, 3, 1, tzinfo=UTC)
A = Announcement


def event(version: str | None, sequence: int, alias: Alias = "champion") -> ModelPromoted:
    return ModelPromoted(
        model_name="M", alias=alias, model_version=version, previous_version=None, sequence=sequence, observed_at=NOW
    )


def read(*events: ModelPromoted) -> Announced:
    announced: Announced = {}
    for each in events:
        announced = with_event(announced, each)
    return announced


@pytest.mark.parametrize(
    ("announced", "aliases", "expected"),
    [
        pytest.param({}, {}, [], id="nothing yet"),
        pytest.param({}, {"champion": "1"}, [("champion", "1", None, 1)], id="first champion"),
        pytest.param({"champion": A("1", 1)}, {"champion": "1"}, [], id="told already"),
        pytest.param({"champion": A("1", 4)}, {"champion": "2"}, [("champion", "2", "1", 5)], id="promotion"),
        pytest.param({"champion": A("2", 5)}, {"champion": "1"}, [("champion", "1", "2", 6)], id="rollback"),
        pytest.param(
            {"champion": A("1", 1)},
            {"champion": "1", "challenger": "2"},
            [("challenger", "2", None, 2)],
            id="first challenger",
        ),
        pytest.param(
            {"champion": A("1", 1), "challenger": A("2", 2)},
            {"champion": "2"},
            [("champion", "2", "1", 3), ("challenger", None, "2", 4)],
            id="challenger becomes champion",
        ),
        pytest.param({"champion": A("1", 7)}, {}, [("champion", None, "1", 8)], id="alias removed"),
        pytest.param({"champion": A(None, 8)}, {}, [], id="removal told already"),
        pytest.param({"champion": A(None, 8)}, {"champion": "1"}, [("champion", "1", None, 9)], id="alias back"),
        pytest.param(
            {"champion": A("1", 3), "challenger": A("2", 9)},
            {"champion": "3", "challenger": "2"},
            [("champion", "3", "1", 10)],
            id="sequence goes on over both aliases",
        ),
        pytest.param(
            {"champion": A("1", 3, disputed=True)},
            {"champion": "1"},
            [("champion", "1", "1", 4)],
            id="dispute is settled",
        ),
        pytest.param({}, {"shadow": "5"}, [], id="other aliases are nobody's business"),
    ],
)
def test_the_difference_is_announced_once_in_order(
    announced: Announced,
    aliases: dict[str, str],
    expected: list[tuple[str, str | None, str | None, int]],
) -> None:
    events = diff(announced, aliases, model_name="M", at=NOW)

    assert [(e.alias, e.model_version, e.previous_version, e.sequence) for e in events] == expected
    assert {(e.model_name, e.observed_at) for e in events} <= {("M", NOW)}
    after = dict(announced)
    for each in events:
        after = dict(with_event(after, each))
    assert diff(after, aliases, model_name="M", at=NOW) == []


@pytest.mark.parametrize(
    ("events", "state"),
    [
        pytest.param([event("1", 1), event("2", 2)], A("2", 2), id="the highest sequence counts"),
        pytest.param([event("1", 1), event("1", 1)], A("1", 1), id="the same told twice is no dispute"),
        pytest.param(
            [event("1", 1), event("2", 1)], A("1", 1, disputed=True), id="of equal sequences the first counts"
        ),
        pytest.param([event("3", 3), event("2", 2)], A("3", 3, disputed=True), id="a late word of another watcher"),
        pytest.param([event("3", 3), event("2", 2), event("3", 4)], A("3", 4), id="settled by a higher sequence"),
        pytest.param([event("3", 7)], A("3", 7), id="compaction leaves the last word"),
    ],
)
def test_readers_take_the_highest_sequence_and_disputes_are_seen(
    events: list[ModelPromoted], state: Announcement
) -> None:
    assert read(*events) == {"champion": state}


def test_aliases_are_kept_apart_under_their_keys() -> None:
    assert read(event("1", 1), event("2", 2, "challenger")) == {"champion": A("1", 1), "challenger": A("2", 2)}
    assert key_of(event("1", 1)) == b"M:promoted:champion"
