"""When the drift service takes its Kafka client for deaf."""

from __future__ import annotations

import pytest

from centinela.errors import DependencyUnavailable
from centinela.liveness.health import Health
from centinela_drift.broker_liveness import DEAF_S, Hearing


class Brokers:
    """What another client hears of them."""

    def __init__(self) -> None:
        self.answer, self.asked = True, 0

    async def hear(self) -> bool:
        self.asked += 1
        return self.answer


@pytest.fixture
def brokers() -> Brokers:
    return Brokers()


@pytest.fixture
def health() -> Health:
    return Health()


async def looks(hearing: Hearing, seconds: float, age_s: float | None = 30.0, step_s: float = 1.0) -> bool:
    heard = True
    for _ in range(int(seconds / step_s)):
        heard = await hearing.look(age_s, step_s)
    return heard


async def test_silence_is_told_to_health_and_so_is_its_end(brokers: Brokers, health: Health) -> None:
    hearing = Hearing(health, brokers.hear)

    assert await hearing.look(0.4, 1.0)
    assert health.unmet() == {}
    assert not await hearing.look(6.5, 1.0)
    assert health.unmet() == {"kafka": "the brokers do not answer"}
    assert await hearing.look(0.1, 1.0)
    assert health.unmet() == {}
    assert brokers.asked == 0


async def test_brokers_that_answer_nobody_are_waited_for_without_end(brokers: Brokers, health: Health) -> None:
    brokers.answer = False

    assert not await looks(Hearing(health, brokers.hear), 20 * DEAF_S)
    assert brokers.asked > 20


@pytest.mark.parametrize("age_s", [30.0, None])
async def test_a_client_that_hears_nothing_from_brokers_that_others_hear_is_given_up(
    brokers: Brokers, health: Health, age_s: float | None
) -> None:
    hearing = Hearing(health, brokers.hear)
    await looks(hearing, DEAF_S - 5, age_s)

    with pytest.raises(DependencyUnavailable, match="answered others for 60 s"):
        await looks(hearing, 10, age_s)


async def test_what_counts_is_the_time_since_the_brokers_came_back_and_since_the_last_answer(
    brokers: Brokers, health: Health
) -> None:
    hearing = Hearing(health, brokers.hear)
    await looks(hearing, DEAF_S - 10)
    brokers.answer = False
    await looks(hearing, 10)
    brokers.answer = True
    await looks(hearing, DEAF_S - 10)
    await hearing.look(0.5, 1.0)

    assert not await looks(hearing, DEAF_S - 10)


async def test_a_process_that_was_frozen_does_not_count_that_time(brokers: Brokers, health: Health) -> None:
    hearing = Hearing(health, brokers.hear)

    assert not await hearing.look(3_600.0, 3_600.0)
    assert not await looks(hearing, 30, 3_630.0)
