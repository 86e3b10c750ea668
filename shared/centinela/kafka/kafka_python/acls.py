"""Rules of what a user may do on the brokers, and how they are created there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from kafka.admin import ACL, ACLOperation, ACLPermissionType, KafkaAdminClient, ResourcePattern, ResourceType
from kafka.admin import ACLResourcePatternType as PatternType

from centinela.errors import CentinelaError
from centinela.kafka.access import access
from centinela.kafka.kafka_python.common import common_config, mapped_errors
from centinela.kafka.timeouts import TIMEOUTS
from centinela.settings import Settings

Resource = Literal["topic", "group", "transactional-id"]
Operation = Literal["Read", "Write", "Describe", "DescribeConfigs", "Create"]


class Rule(NamedTuple):
    """*operations* allowed on the resources whose name is, or with *prefixed* begins with, *name*."""

    resource: Resource
    name: str
    operations: tuple[Operation, ...]
    prefixed: bool = False


def create_acls(settings: Settings, grants: Sequence[tuple[str, Sequence[Rule]]]) -> int:
    """Allow each principal (``User:...``) what its rules say; the number of entries created.

    Raises:
        AccessRefused: The user of *settings* may not change the brokers' rights.
        CentinelaError: The brokers refuse an entry.
    """
    entries = [entry for principal, rules in grants for entry in _entries(rules, principal)]
    with mapped_errors():
        client = KafkaAdminClient(**common_config(access(settings), TIMEOUTS))
        try:
            failed = client.create_acls(entries)["failed"]
        finally:
            client.close()
    if failed:
        raise CentinelaError(f"the brokers refuse {len(failed)} of {len(entries)} entries: {failed[0].__name__}")
    return len(entries)


def _entries(rules: Sequence[Rule], principal: str) -> list[ACL]:
    kinds = {
        "topic": ResourceType.TOPIC,
        "group": ResourceType.GROUP,
        "transactional-id": ResourceType.TRANSACTIONAL_ID,
    }
    operations = {
        "Read": ACLOperation.READ,
        "Write": ACLOperation.WRITE,
        "Describe": ACLOperation.DESCRIBE,
        "Create": ACLOperation.CREATE,
        "DescribeConfigs": ACLOperation.DESCRIBE_CONFIGS,
    }
    return [
        ACL(
            principal,
            "*",
            operations[operation],
            ACLPermissionType.ALLOW,
            ResourcePattern(
                kinds[rule.resource], rule.name, PatternType.PREFIXED if rule.prefixed else PatternType.LITERAL
            ),
        )
        for rule in rules
        for operation in rule.operations
    ]
