"""Builds the port's clients from settings. Nothing here talks to a broker yet: the first call on a client does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from centinela.kafka.access import access
from centinela.kafka.acl_rules import Rule
from centinela.kafka.port import Consumer, GroupAdmin, Producer, TransactionalProducer
from centinela.settings import Settings

if TYPE_CHECKING:
    from centinela.kafka.topic_admin import TopicAdmin

Client = Literal["kafka-python", "confluent"]


def consumer(
    settings: Settings,
    *,
    group: str | None,
    client: Client = "kafka-python",
    start: Literal["earliest", "latest"] = "earliest",
    instance_id: str | None = None,
) -> Consumer:
    """A read_committed consumer with auto-commit off.

    Args:
        group: Consumer group; None to read assigned partitions without one.
        start: Where to begin in a partition without a committed offset.
        instance_id: Static membership: a restart within the session time-out keeps its partitions.
    """
    if client == "confluent":
        from centinela.kafka.confluent.consumer import ConfluentConsumer

        return ConfluentConsumer(access(settings), group, start, instance_id)
    from centinela.kafka.kafka_python.consumer import KafkaPythonConsumer

    return KafkaPythonConsumer(access(settings), group, start, instance_id)


def producer(settings: Settings, *, client: Client = "kafka-python", linger_ms: int = 5) -> Producer:
    """An idempotent producer, acks=all."""
    if client == "confluent":
        from centinela.kafka.confluent.producers import ConfluentProducer

        return ConfluentProducer(access(settings), linger_ms)
    from centinela.kafka.kafka_python.producers import KafkaPythonProducer

    return KafkaPythonProducer(access(settings), linger_ms)


def transactional_producer(
    settings: Settings, *, transactional_id: str, client: Client = "kafka-python"
) -> TransactionalProducer:
    """A transactional producer. *transactional_id* must be stable over restarts and belong to one running process
    only."""
    if client == "confluent":
        from centinela.kafka.confluent.producers import ConfluentTransactionalProducer

        return ConfluentTransactionalProducer(access(settings), transactional_id)
    from centinela.kafka.kafka_python.producers import KafkaPythonTransactionalProducer

    return KafkaPythonTransactionalProducer(access(settings), transactional_id)


def topic_admin(settings: Settings) -> TopicAdmin:
    """The administration of topics."""
    from centinela.kafka.topic_admin import TopicAdmin

    return TopicAdmin(settings)


def create_acls(settings: Settings, grants: Sequence[tuple[str, Sequence[Rule]]]) -> int:
    """Allow each principal (``User:...``) what its rules say; the number of entries created.

    Raises:
        AccessRefused: The user of *settings* may not change the brokers' rights.
        CentinelaError: The brokers refuse an entry.
    """
    from centinela.kafka.kafka_python.acls import create_acls as create

    return create(access(settings), grants)


def group_admin(settings: Settings) -> GroupAdmin:
    """The administration of consumer groups."""
    from centinela.kafka.kafka_python.groups import GroupAdmin as KafkaPythonGroupAdmin

    return KafkaPythonGroupAdmin(access(settings))
