"""When the drift service gives up its Kafka client as unresponsive."""

from __future__ import annotations

import pytest

from centinela.errors import DependencyUnavailable
from centinela.liveness.dependency import DependencyState
from centinela.liveness.health import Health
from centinela_drift.broker_liveness import UNRESPONSIVE_S, BrokerLiveness


class Brokers:
    """Whether they answer another client."""

    def __init__(self) -> None:
        self.answer = True
        self.asked = 0

    async def probe(self) -> bool:
        self.asked += 1
        return self.answer


@pytest.fixture
def brokers() -> Brokers:
    return Brokers()


@pytest.fixture
def health() -> Health:
    return Health()


def liveness_of(brokers: Brokers, health: Health) -> BrokerLiveness:
    return BrokerLiveness(DependencyState("kafka", health), brokers.probe)


async def check_for(liveness: BrokerLiveness, seconds: float, age_s: float | None = 30.0, step_s: float = 1.0) -> bool:
    answering = True
    for _ in range(int(seconds / step_s)):
        answering = await liveness.check(age_s, step_s)
    return answering


async def test_health_shows_when_the_brokers_stop_answering_and_when_they_answer_again(
    brokers: Brokers, health: Health
) -> None:
    liveness = liveness_of(brokers, health)

    assert await liveness.check(0.4, 1.0)
    assert health.unmet() == {}
    assert not await liveness.check(6.5, 1.0)
    assert health.unmet() == {"kafka": "the brokers do not answer"}
    assert await liveness.check(0.1, 1.0)
    assert health.unmet() == {}
    assert brokers.asked == 0


async def test_brokers_that_are_lost_before_the_first_fetch_is_answered_are_missed_too(
    brokers: Brokers, health: Health
) -> None:
    liveness = liveness_of(brokers, health)
    assert await check_for(liveness, 20.0, age_s=None)
    brokers.answer = False
    assert not await check_for(liveness, 6.0, age_s=None)
    assert health.unmet() == {"kafka": "the brokers do not answer"}
    assert await liveness.check(0.1, 1.0)
    assert health.unmet() == {}


async def test_brokers_that_answer_nobody_are_waited_for_without_limit(brokers: Brokers, health: Health) -> None:
    brokers.answer = False

    assert not await check_for(liveness_of(brokers, health), 20 * UNRESPONSIVE_S)
    assert brokers.asked > 20


@pytest.mark.parametrize("age_s", [30.0, None])
async def test_a_client_that_gets_no_answer_from_brokers_that_answer_others_is_given_up(
    brokers: Brokers, health: Health, age_s: float | None
) -> None:
    liveness = liveness_of(brokers, health)
    await check_for(liveness, UNRESPONSIVE_S - 5, age_s)

    with pytest.raises(DependencyUnavailable, match="answered another client for 60 s"):
        await check_for(liveness, 10, age_s)


async def test_what_counts_is_the_time_since_the_brokers_came_back_and_since_the_last_answer(
    brokers: Brokers, health: Health
) -> None:
    liveness = liveness_of(brokers, health)
    await check_for(liveness, UNRESPONSIVE_S - 10)
    brokers.answer = False
    await check_for(liveness, 10)
    brokers.answer = True
    await check_for(liveness, UNRESPONSIVE_S - 10)
    await liveness.check(0.5, 1.0)

    assert not await check_for(liveness, UNRESPONSIVE_S - 10)


async def test_time_in_which_the_process_was_frozen_does_not_count(brokers: Brokers, health: Health) -> None:
    liveness = liveness_of(brokers, health)

    assert not await liveness.check(3_600.0, 3_600.0)
    assert not await check_for(liveness, 30, 3_630.0)
