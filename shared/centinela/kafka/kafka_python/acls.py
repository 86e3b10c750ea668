"""Creates rights on the brokers."""

from __future__ import annotations

from collections.abc import Sequence

from kafka.admin import ACL, ACLOperation, ACLPermissionType, KafkaAdminClient, ResourcePattern, ResourceType
from kafka.admin import ACLResourcePatternType as PatternType

from centinela.errors import CentinelaError
from centinela.kafka.access import Access
from centinela.kafka.acl_rules import Rule
from centinela.kafka.kafka_python.common import common_config, mapped_errors
from centinela.kafka.timeouts import TIMEOUTS


def create_acls(access: Access, grants: Sequence[tuple[str, Sequence[Rule]]]) -> int:
    """See ``centinela.kafka.connect.create_acls``."""
    entries = [entry for principal, rules in grants for entry in _entries(rules, principal)]
    with mapped_errors():
        client = KafkaAdminClient(**common_config(access, TIMEOUTS))
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
