"""What each user must be allowed to do on the brokers, and nothing else; ``create`` grants it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from centinela import groups
from centinela.groups import ConsumerGroup
from centinela.kafka.access import READERS
from centinela.kafka.acl_rules import Operation, Rule
from centinela.kafka.connect import create_acls
from centinela.operations.redrive import TRANSACTIONAL_ID as OPERATORS
from centinela.settings import Settings
from centinela.topics import CATALOGUE, WITH_DLQ


def _user(name: str, *others: Rule) -> tuple[Rule, ...]:
    """What the catalogue of topics says of the user *name*, and *others*.

    Reading or writing includes Describe, and Write on a topic includes being an idempotent producer.
    """
    read = {t.name for t in CATALOGUE if name in t.consumers}
    written = {t.name for t in CATALOGUE if name in t.producers} | {t.dlq for t in CATALOGUE if name in t.dlq_producers}
    operations: dict[str, tuple[Operation, ...]] = {
        **dict.fromkeys(read - written, ("Read",)),
        **dict.fromkeys(written - read, ("Write",)),
        **dict.fromkeys(read & written, ("Read", "Write")),
    }
    return (*(Rule("topic", topic, allowed) for topic, allowed in sorted(operations.items())), *others)


def _group(group: ConsumerGroup) -> tuple[Rule, ...]:
    """A member's rights; of the former group only what the carry-over of its offsets asks."""
    rules = (Rule("group", group.name, ("Read",)),)
    return rules if group.former is None else (*rules, Rule("group", group.former, ("Describe",)))


def _transactions(name: str, *, prefixed: bool = False) -> Rule:
    return Rule("transactional-id", name, ("Write",), prefixed)


_READER = Rule("group", READERS, ("Describe",))
"""librdkafka asks for the group even where it reads without one."""

RIGHTS: Final[Mapping[str, tuple[Rule, ...]]] = {
    "ingest": _user("ingest"),
    "stream": _user("stream", *_group(groups.STREAM), _READER, _transactions("predictor-", prefixed=True)),
    "gateway": _user("gateway", _READER),
    "drift": _user("drift", *_group(groups.DRIFT)),
    "trainer": _user("trainer", *_group(groups.TRAINER), _transactions("trainer")),
    "archive": _user("archive", *_group(groups.ARCHIVE)),
    "registry-watcher": _user("registry-watcher"),
    "feast": _user("feast", *_group(groups.FEAST)),
    "producer": _user("producer"),
    "reader": _user("reader", Rule("group", "reader-", ("Read",), prefixed=True)),
    "operator": (
        *(
            Rule(
                "topic",
                t.name,
                (
                    "Read",
                    "Create",
                    "DescribeConfigs",
                    *(("Write",) if "operator" in t.producers else ()),
                ),
            )
            for t in CATALOGUE
        ),
        *(Rule("topic", t.dlq, ("Read", "Write", "Create", "DescribeConfigs")) for t in WITH_DLQ),
        _transactions(OPERATORS),
        _READER,
        Rule("group", groups.STREAM.name, ("Describe",)),
    ),
}
"""Per service the rules that its user needs. Users that are no service: ``producer``, a system of yours that writes
transactions and labels; ``reader``, one that reads verdicts and reports; ``operator``, who creates topics, replays,
redrives dead letters and requests training."""


def commands(service: str, principal: str, bootstrap_servers: str) -> list[str]:
    """The calls of Kafka's own ``kafka-acls.sh`` that allow *principal* what *service* needs."""
    lines = []
    for rule in RIGHTS[service]:
        allowed = " ".join(f"--operation {operation}" for operation in rule.operations)

        prefixed = " --resource-pattern-type prefixed" if rule.prefixed else ""
        lines.append(
            f"kafka-acls.sh --bootstrap-server {bootstrap_servers} --command-config admin.properties --add"
            f" --allow-principal '{principal}' {allowed} --{rule.resource} '{rule.name}'{prefixed}"
        )
    return lines


def create(settings: Settings, principals: Mapping[str, str]) -> int:
    """Allow each service of *principals* (service to principal, ``User:...``) what it needs; how many entries that
    took.

    Raises:
        AccessRefused: The user of *settings* may not change rights on the brokers.
        CentinelaError: The brokers refuse an entry.
    """
    return create_acls(settings, [(principal, RIGHTS[service]) for service, principal in principals.items()])
