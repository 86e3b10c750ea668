"""Topic administration on a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from kafka.admin import KafkaAdminClient  # noqa: TID251

from centinela.errors import CentinelaError, DependencyUnavailable
from centinela.kafka.port import TopicIdentity
from centinela.kafka.topic_admin import TopicAdmin, TopicFinding, TopicSpec
from centinela.settings import Settings


@pytest.fixture
def admin(make_settings: Callable[..., Settings]) -> Iterator[TopicAdmin]:
    made = TopicAdmin(make_settings())
    yield made
    made.close()


def test_missing_topics_are_created_and_present_ones_left(admin: TopicAdmin, topic_names: Callable[[str], str]) -> None:
    first = TopicSpec(topic_names("first"), 3, 1, {"retention.ms": "86400000"})
    second = TopicSpec(topic_names("second"), 1, 1, {"cleanup.policy": "compact"})

    created = [admin.create([first]), admin.create([first, second]), admin.create([first, second])]

    assert created == [[first.name], [second.name], []]
    assert admin.check([first, second]) == [TopicFinding(first.name, "ok"), TopicFinding(second.name, "ok")]


def test_what_differs_is_reported(admin: TopicAdmin, topic_names: Callable[[str], str]) -> None:
    name = topic_names("other")
    admin.create([TopicSpec(name, 1, 1, {})])

    assert admin.check([TopicSpec(name, 2, 1, {"cleanup.policy": "compact"})]) == [
        TopicFinding(name, "differs", ("1 partitions, not 2", "cleanup.policy=delete, not compact"))
    ]
    assert admin.check([TopicSpec(topic_names("missing"), 1, 1, {})]) == [
        TopicFinding(topic_names("missing"), "missing")
    ]


def test_more_replicas_than_brokers_are_refused_with_the_brokers_reason(
    admin: TopicAdmin, topic_names: Callable[[str], str]
) -> None:
    with pytest.raises(CentinelaError, match="was refused"):
        admin.create([TopicSpec(topic_names("safe"), 1, 99, {})])


def test_a_topic_made_anew_is_another_one_and_a_grown_one_is_not(
    admin: TopicAdmin, topic_names: Callable[[str], str]
) -> None:
    name = topic_names("lives")
    admin.create([TopicSpec(name, 1, 1, {})])
    first = admin.identify(name)
    raw = KafkaAdminClient(bootstrap_servers=admin._settings.kafka_bootstrap_servers)

    raw.create_partitions({name: 3})
    grown = admin.identify(name)
    raw.delete_topics([name])
    deadline = time.monotonic() + 20
    while admin.describe([TopicSpec(name, 1, 1, {})]):
        assert time.monotonic() < deadline
    admin.create([TopicSpec(name, 1, 1, {})])
    raw.close()

    assert (first.partitions, grown) == (1, TopicIdentity(first.id, 3))
    assert admin.identify(name).id != first.id


def test_a_topic_that_does_not_exist_is_waited_for(admin: TopicAdmin, topic_names: Callable[[str], str]) -> None:
    with pytest.raises(DependencyUnavailable, match="does not exist"):
        admin.identify(topic_names("never"))
