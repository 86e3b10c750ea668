"""What each service must be allowed to do on the brokers, and nothing else; ``create`` grants it to users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from centinela import groups
from centinela.groups import ConsumerGroup
from centinela.kafka.access import READERS
from centinela.kafka.acl_rules import Operation, Rule
from centinela.kafka.connect import create_acls
from centinela.operations.redrive import TRANSACTIONAL_ID as OPERATORS
from centinela.settings import Settings
from centinela.topics import (
    CATALOGUE,
    DRIFT_REPORTS,
    FEATURE_PANES,
    LABELS,
    MODEL_EVENTS,
    PREDICTIONS,
    RETRAIN_REQUESTS,
    TERMINAL_ACTIVITY,
    TRANSACTIONS,
    WITH_DLQ,
    Topic,
)


def _rules(
    reads: Iterable[Topic] = (),
    writes: Iterable[Topic] = (),
    dead_letters: Iterable[Topic] = (),
    others: Iterable[Rule] = (),
) -> tuple[Rule, ...]:
    """Reading or writing includes Describe, and Write on a topic includes being an idempotent producer."""
    read = {t.name for t in reads}
    written = {t.name for t in writes} | {t.dlq for t in dead_letters}
    operations: dict[str, tuple[Operation, ...]] = {
        **dict.fromkeys(read - written, ("Read",)),
        **dict.fromkeys(written - read, ("Write",)),
        **dict.fromkeys(read & written, ("Read", "Write")),
    }
    return (*(Rule("topic", name, allowed) for name, allowed in sorted(operations.items())), *others)


def _group(group: ConsumerGroup) -> tuple[Rule, ...]:
    """A member's rights; of the former group only what the carry-over of its offsets asks."""
    rules = (Rule("group", group.name, ("Read",)),)
    return rules if group.former is None else (*rules, Rule("group", group.former, ("Describe",)))


def _transactions(name: str, *, prefixed: bool = False) -> Rule:
    return Rule("transactional-id", name, ("Write",), prefixed)


_READER = Rule("group", READERS, ("Describe",))
"""librdkafka asks for the group even where it reads without one."""

RIGHTS: Final[Mapping[str, tuple[Rule, ...]]] = {
    "ingest": _rules(writes=[TRANSACTIONS, LABELS]),
    "stream": _rules(
        [TRANSACTIONS, LABELS, TERMINAL_ACTIVITY, MODEL_EVENTS],
        [PREDICTIONS, FEATURE_PANES, TERMINAL_ACTIVITY, MODEL_EVENTS],
        [TRANSACTIONS],
        [*_group(groups.STREAM), _READER, _transactions("predictor-", prefixed=True)],
    ),
    "gateway": _rules(
        [TRANSACTIONS, PREDICTIONS, LABELS, TERMINAL_ACTIVITY, MODEL_EVENTS],
        [TRANSACTIONS, MODEL_EVENTS],
        (),
        [_READER],
    ),
    "drift": _rules(
        [FEATURE_PANES, LABELS, MODEL_EVENTS],
        [DRIFT_REPORTS, RETRAIN_REQUESTS],
        [FEATURE_PANES, LABELS, MODEL_EVENTS],
        _group(groups.DRIFT),
    ),
    "trainer": _rules(
        [RETRAIN_REQUESTS, PREDICTIONS, LABELS],
        [MODEL_EVENTS],
        [RETRAIN_REQUESTS],
        [*_group(groups.TRAINER), _transactions("trainer")],
    ),
    "archive": _rules([PREDICTIONS, LABELS], (), [PREDICTIONS, LABELS], _group(groups.ARCHIVE)),
    "registry-watcher": _rules([MODEL_EVENTS], [MODEL_EVENTS]),
    "feast": _rules([PREDICTIONS], (), [PREDICTIONS], _group(groups.FEAST)),
    "operator": (
        *(
            Rule(
                "topic",
                t.name,
                (
                    "Read",
                    "Create",
                    "DescribeConfigs",
                    *(("Write",) if t in (TRANSACTIONS, LABELS, RETRAIN_REQUESTS) else ()),
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
"""Per service the rules that its user needs. ``operator``: who creates topics, replays, redrives dead letters and
requests training."""


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
