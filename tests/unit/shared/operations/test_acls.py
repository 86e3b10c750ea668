"""Rights on the brokers: what the catalogue of topics says of each user, and what the documents say of both."""

from __future__ import annotations

import re

import pytest

from centinela.operations.acls import RIGHTS, commands
from centinela.topics import CATALOGUE, WITH_DLQ, Topic
from centinela_local.paths import CHECKOUT

TOPICS = {topic.name for topic in CATALOGUE}
DEAD_LETTERS = {topic.dlq for topic in WITH_DLQ}
OTHERS = {"producer", "reader", "operator"}
"""Users that are no service."""


def granted(user: str, operation: str) -> set[str]:
    return {rule.name for rule in RIGHTS[user] if rule.resource == "topic" and operation in rule.operations}


def table_of(page: str, header: str) -> list[list[str]]:
    """The cells of the table in *page* that begins with *header*, without its heading."""
    lines = (CHECKOUT / page).read_text().split(header)[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def names(cell: str) -> set[str]:
    return set(re.findall(r"[a-z]+(?:-[a-z]+)*", cell)) & (TOPICS | DEAD_LETTERS)


@pytest.mark.parametrize("topic", CATALOGUE, ids=lambda topic: topic.name)
def test_a_topic_is_written_and_read_by_users_that_there_are(topic: Topic) -> None:
    assert topic.producers
    assert topic.consumers
    assert {*topic.producers, *topic.consumers} <= set(RIGHTS)
    assert set(topic.dlq_producers) <= set(topic.consumers)
    assert topic.values or not topic.dlq_producers, "its dead letters would have no topic"


def test_rights_are_those_of_the_catalogue_and_of_no_other_topic() -> None:
    for topic in CATALOGUE:
        assert {user for user in RIGHTS if topic.name in granted(user, "Write")} == set(topic.producers)
        assert {user for user in RIGHTS if topic.name in granted(user, "Read")} == {*topic.consumers, "operator"}
        assert {user for user in RIGHTS if topic.dlq in granted(user, "Write")} - {"operator"} == set(
            topic.dlq_producers
        )
    for rules in RIGHTS.values():
        assert {rule.name for rule in rules if rule.resource == "topic"} <= TOPICS | DEAD_LETTERS
        assert not any(rule.name in ("", "*") for rule in rules)


def test_the_page_on_security_lists_every_user_with_its_topics() -> None:
    rows = {user: (names(reads), names(writes)) for user, reads, writes, *_ in table_of("docs/security.md", "| user |")}
    assert rows.pop("operator")[1] == granted("operator", "Write") & TOPICS, "and every DLQ"
    assert rows == {user: (granted(user, "Read"), granted(user, "Write")) for user in RIGHTS if user != "operator"}


def test_the_page_on_security_lists_every_group_and_transactional_id() -> None:
    for user, _reads, _writes, group, transactional in table_of("docs/security.md", "| user |"):
        for rule in RIGHTS[user]:
            assert rule.resource == "topic" or rule.name in (group if rule.resource == "group" else transactional), user


def test_the_readme_lists_every_service_with_its_topics() -> None:
    listed = {}
    for service, reads, writes, _port in table_of("README.md", "| service | reads |"):
        user = re.sub(r"\[|\]\([^)]*\)", "", service).split(", ")[-1]
        listed[user] = names(reads) & TOPICS, names(writes) & TOPICS
    services = set(RIGHTS) - OTHERS - {"feast"}
    assert listed == {user: (granted(user, "Read") & TOPICS, granted(user, "Write") & TOPICS) for user in services}


def test_a_reader_has_groups_of_its_own_only() -> None:
    [group] = [rule for rule in RIGHTS["reader"] if rule.resource == "group"]
    assert (group.name, group.prefixed, group.operations) == ("reader-", True, ("Read",))
    assert not granted("reader", "Write")
    assert not granted("producer", "Read")


def test_rights_are_given_by_kafkas_own_tool_as_well() -> None:
    lines = commands("stream", "User:centinela-stream", "b:1")
    assert (
        "--allow-principal 'User:centinela-stream' --operation Write --transactional-id 'predictor-'"
        " --resource-pattern-type prefixed" in lines[-1]
    )
    assert all("--bootstrap-server b:1" in line for line in lines)
    assert commands("reader", "User:x", "b:1")[-1].endswith(
        "--operation Read --group 'reader-' --resource-pattern-type prefixed"
    )
