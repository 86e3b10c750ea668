"""Topics of the catalogue: create what is missing, report what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import kafka.errors as kafka_errors
from kafka.admin import ConfigResource, KafkaAdminClient, NewTopic

from centinela.errors import CentinelaError, DependencyUnavailable
from centinela.kafka.access import access
from centinela.kafka.kafka_python.common import common_config, mapped_errors
from centinela.kafka.port import TopicIdentity
from centinela.kafka.timeouts import TIMEOUTS
from centinela.liveness.deadline import DeadlineExceeded, DeadlineRunner
from centinela.settings import Settings
from centinela.times import DAY_MS
from centinela.topics import CATALOGUE, WITH_DLQ, Topic

DLQ_RETENTION_DAYS = 365
_OFFSETS = "offsets.retention.minutes"
T = TypeVar("T")


class TopicSpec(NamedTuple):
    """What a topic should be."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


class TopicState(NamedTuple):
    """What a topic is. ``config`` has the values asked for."""

    partitions: int
    replication: int
    config: Mapping[str, str]


class TopicFinding(NamedTuple):
    """How a topic compares with its specification."""

    name: str
    status: Literal["ok", "missing", "differs"]
    details: tuple[str, ...] = ()


def specifications(
    settings: Settings, topics: Iterable[Topic] = CATALOGUE, dlqs: Iterable[Topic] = WITH_DLQ
) -> list[TopicSpec]:
    """Every topic of the catalogue and its dead letters, by *settings*.

    Writes need two in-sync replicas where there are three or more, so that nothing is lost while one broker is
    unavailable.
    """
    common = {"min.insync.replicas": "2" if settings.replication_factor >= 3 else "1"}
    specs = [
        TopicSpec(t.name, t.partitions or settings.partitions, settings.replication_factor, common | t.config)
        for t in topics
    ]
    dead_letters = {"cleanup.policy": "delete", "retention.ms": str(DLQ_RETENTION_DAYS * DAY_MS)}
    return specs + [
        TopicSpec(t.dlq, t.partitions or settings.partitions, settings.replication_factor, common | dead_letters)
        for t in dlqs
    ]


def compare(specs: Sequence[TopicSpec], states: Mapping[str, TopicState]) -> list[TopicFinding]:
    """One finding per specification."""
    findings = []
    for spec in specs:
        if (state := states.get(spec.name)) is None:
            findings.append(TopicFinding(spec.name, "missing"))
            continue
        details = []
        if state.partitions != spec.partitions:
            details.append(f"{state.partitions} partitions, not {spec.partitions}")
        if state.replication != spec.replication:
            details.append(f"{state.replication} replicas, not {spec.replication}")
        details += [
            f"{name}={state.config.get(name, '?')}, not {value}"
            for name, value in sorted(spec.config.items())
            if state.config.get(name) != value
        ]
        findings.append(TopicFinding(spec.name, "differs" if details else "ok", tuple(details)))
    return findings


class TopicAdmin:
    """Administers topics on the brokers of *settings*. Every call raises ``DependencyUnavailable`` where they do not
    answer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: KafkaAdminClient | None = None
        self._runner = DeadlineRunner("kafka-admin")

    def create(self, specs: Sequence[TopicSpec] | None = None, *, timeout_s: float = 30.0) -> list[str]:
        """Create the topics of *specs* (the catalogue's) that are missing; their names. Existing topics are left alone.

        Raises:
            CentinelaError: The brokers refuse a topic (more replicas asked for than there are brokers, ...).
        """
        specs = specifications(self._settings) if specs is None else specs
        present = self.describe(specs)
        missing = [s for s in specs if s.name not in present]
        if not missing:
            return []
        new = [NewTopic(s.name, s.partitions, s.replication, topic_configs=dict(s.config)) for s in missing]
        timeout_ms = int(timeout_s * 1000)
        answer = self._run(
            lambda client: client.create_topics(new, timeout_ms=timeout_ms, raise_errors=False), timeout_s
        )
        for topic in answer["topics"]:
            error = kafka_errors.for_code(topic["error_code"])
            if error not in {kafka_errors.NoError, kafka_errors.TopicAlreadyExistsError}:
                raise CentinelaError(
                    f"topic {topic['name']} was refused: {topic.get('error_message') or error.__name__}"
                )
        self._run(
            lambda client: client.wait_for_topics([s.name for s in missing], timeout_ms=timeout_ms), timeout_s + 1
        )
        return [s.name for s in missing]

    def check(self, specs: Sequence[TopicSpec] | None = None) -> list[TopicFinding]:
        """How the topics compare with *specs* (the catalogue's)."""
        specs = specifications(self._settings) if specs is None else specs
        return compare(specs, self.describe(specs))

    def describe(self, specs: Sequence[TopicSpec]) -> dict[str, TopicState]:
        """The state of those topics of *specs* that exist, with the configuration that *specs* name."""
        described = self._run(lambda client: _allowed(client.describe_topics([s.name for s in specs])))
        shapes = {
            topic["name"]: (
                len(topic["partitions"]),
                min((len(p["replica_nodes"]) for p in topic["partitions"]), default=0),
            )
            for topic in described
            if topic["error_code"] == 0
        }
        if not shapes:
            return {}
        configured = {s.name: s.config for s in specs}
        resources = [ConfigResource("TOPIC", name) for name in shapes if configured[name]]
        configs = (
            self._run(lambda client: client.describe_configs(resources, config_filter="all"))["topic"]
            if resources
            else {}
        )
        return {
            name: TopicState(
                partitions,
                replication,
                {key: str(configs[name][key]["value"]) for key in configured[name] if key in configs[name]},
            )
            for name, (partitions, replication) in shapes.items()
        }

    def offsets_retention_minutes(self) -> int | None:
        """How long the brokers keep the offsets of a group without members; None where they do not say."""
        brokers = self._run(lambda client: client.describe_cluster())["brokers"]
        resources = [ConfigResource("BROKER", str(broker["broker_id"])) for broker in brokers]
        configs = self._run(lambda client: client.describe_configs(resources, config_filter="all")).get("broker", {})
        found = [int(of_broker[_OFFSETS]["value"]) for of_broker in configs.values() if _OFFSETS in of_broker]
        return min(found, default=None)

    def identify(self, topic: str) -> TopicIdentity:
        """The current incarnation of *topic*.

        Raises:
            DependencyUnavailable: The brokers do not answer, or *topic* does not exist.
        """
        [described] = self._run(lambda client: _allowed(client.describe_topics([topic])))
        if described["error_code"] != 0:
            raise DependencyUnavailable(
                f"topic {topic} does not exist: run `centinela topics create`", dependency="kafka"
            )
        return TopicIdentity(str(described["topic_id"]), len(described["partitions"]))

    def close(self) -> None:
        """Release the connection."""
        self._runner.close()
        if self._client is not None:
            self._client.close()
            self._client = None

    def _run(self, call: Callable[[KafkaAdminClient], T], timeout_s: float = TIMEOUTS.request_s) -> T:
        """Under a deadline, since the client's own calls wait for ever for a broker that does not answer."""
        with mapped_errors():
            if self._client is None:
                self._client = KafkaAdminClient(**common_config(access(self._settings), TIMEOUTS))
            client = self._client
            try:
                return self._runner.run(lambda: call(client), timeout_s)
            except DeadlineExceeded:
                self._runner = DeadlineRunner("kafka-admin")
                self._client = None
                raise


def _allowed(described: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Descriptions of topics, where none of them was refused."""
    if refused := [
        str(topic["name"])
        for topic in described
        if topic["error_code"] == kafka_errors.TopicAuthorizationFailedError.errno
    ]:
        raise kafka_errors.TopicAuthorizationFailedError(", ".join(refused))
    return described
