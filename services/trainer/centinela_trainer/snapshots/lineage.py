"""From a transaction back to the code: verdict, model version, run, training set, commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb

from centinela.codec import Decoder
from centinela.errors import CentinelaError, DependencyUnavailable
from centinela.events import TransactionScored
from centinela.kafka.port import Consumer, TopicPartition
from centinela.model.registry import Registry
from centinela.model.registry_store import UnknownVersion
from centinela.operations.reconcile import transaction_id
from centinela_trainer.archive.store import PREDICTIONS, ArchiveStore
from centinela_trainer.snapshots.push import SnapshotRemote
from centinela_trainer.snapshots.store import SnapshotStore

_FACTS = (
    "occurred_at",
    "scored_at",
    "origin",
    "decision",
    "variant",
    "score",
    "threshold",
    "is_fraud",
    "model_version",
    "feature_set",
)
_ONE_OF_A_DAY = """
    SELECT occurred_at, scored_at, origin, decision, variant, score, threshold, is_fraud, model_version, feature_set,
        topic, partition, "offset", filename
    FROM read_parquet($paths, union_by_name=true, hive_partitioning=false, filename=true)
    WHERE transaction_id = $transaction LIMIT 1
"""


class UnknownTransaction(CentinelaError):
    """Neither archive nor log has a verdict on the transaction."""


@dataclass(frozen=True)
class VerdictFound:
    """The verdict on a transaction (``_FACTS`` of it) and where it was read."""

    transaction_id: str
    facts: Mapping[str, Any]
    place: str


@dataclass(frozen=True)
class Trained:
    """The run that made a version. ``dataset_at``: where its training set is; None where it cannot be
    found."""

    version: str
    model_kind: str
    aliases: tuple[str, ...]
    run_id: str | None
    run_name: str | None
    run_status: str | None
    trained_at: datetime
    request_id: str | None
    dataset_digest: str | None
    dataset_at: str | None
    code_commit: str | None


def find_verdict(store: ArchiveStore, log: Consumer, topic: str, transaction: str) -> VerdictFound:
    """The verdict on *transaction*: from the archive, or from the part of the log that the archive does not hold yet.

    Args:
        log: Without a group, for this call alone.

    Raises:
        UnknownTransaction: There is none.
        DependencyUnavailable: The archive has none, and the brokers are unavailable.
    """
    found = find_archived(store, transaction)
    if found is None:
        try:
            found = find_in_log(log, store.offsets(), topic, transaction)
        except DependencyUnavailable as error:
            raise DependencyUnavailable(
                f"{transaction} is not in the archive under {store.root}, and the log cannot be read: {error}",
                dependency=error.dependency,
            ) from error
    if found is None:
        raise UnknownTransaction(
            f"there is no verdict on {transaction}: neither in the archive under {store.root} nor in the topic {topic};"
            " `centinela audit` finds transactions without one"
        )
    return found


def find_archived(store: ArchiveStore, transaction: str) -> VerdictFound | None:
    """The verdict on *transaction* in the archive's files, the newest day first.

    Raises:
        DependencyUnavailable: The archive changed meanwhile.
    """
    days = groupby(reversed(store.files(PREDICTIONS)), key=lambda path: path.parent)
    with duckdb.connect() as connection:
        for _, paths in days:
            try:
                row = connection.execute(
                    _ONE_OF_A_DAY, {"paths": [str(path) for path in paths], "transaction": transaction}
                ).fetchone()
            except duckdb.IOException as error:
                raise DependencyUnavailable(
                    f"the archive changed while it was read, try again: {error}", dependency="archive"
                ) from error
            if row is not None:
                *facts, topic, partition, offset, path = row
                return VerdictFound(
                    transaction,
                    dict(zip(_FACTS, map(_in_utc, facts), strict=True)),
                    f"archive, {topic}[{partition}]@{offset}, {path}",
                )
    return None


def find_in_log(
    log: Consumer, archived: Mapping[TopicPartition, int], topic: str, transaction: str
) -> VerdictFound | None:
    """The verdict on *transaction* among the records of *topic* from the offsets *archived* on."""
    partitions = log.partitions_of(topic)
    ends, starts = log.end_offsets(partitions), log.beginning_offsets(partitions)
    log.assign(partitions)
    for partition in partitions:
        log.seek(partition, max(archived.get(partition, 0), starts[partition]))
    decoder, behind = Decoder(TransactionScored), set(partitions)
    while behind:
        for record in log.poll(0.3, 5_000):
            if transaction_id(record.value) == transaction:
                event = decoder.decode(record.value)
                return VerdictFound(
                    transaction,
                    {name: getattr(event, name) for name in _FACTS},
                    f"log, {topic}[{record.partition}]@{record.offset}",
                )
        behind = {partition for partition in behind if log.position(partition) < ends[partition]}
    return None


def trace(registry: Registry, version: str, snapshots: SnapshotStore, remote: SnapshotRemote | None) -> Trained:
    """What made *version*.

    Raises:
        UnknownVersion: The registry has no such version (any more).
        DependencyUnavailable: MLflow is unavailable.
    """
    try:
        model = registry.version(version)
    except UnknownVersion as error:
        raise UnknownVersion(f"{error}: it was deleted, or the verdict is another registry's") from error
    run = registry.run(model.run_id) if model.run_id else None
    tags = {**(run.tags if run else {}), **model.tags}
    digest = tags.get("dataset_digest") or None
    return Trained(
        version=version,
        model_kind=tags.get("model_kind", "unknown"),
        aliases=model.aliases,
        run_id=model.run_id,
        run_name=run.name if run else None,
        run_status=run.status if run else None,
        trained_at=run.started_at if run else model.created_at,
        request_id=tags.get("request_id"),
        dataset_digest=digest,
        code_commit=tags.get("code_commit"),
        dataset_at=locate(digest, tags.get("dataset_snapshot"), snapshots, remote) if digest else None,
    )


def locate(digest: str, noted: str | None, snapshots: SnapshotStore, remote: SnapshotRemote | None) -> str | None:
    """Where the training set *digest* is: here, where its run noted it, or on the remote."""
    if (here := snapshots.find(digest)) is not None:
        return str(here.path)
    if noted and Path(noted).is_dir():
        return noted
    return f"{remote.url} ({digest.removeprefix('md5:')}.dir)" if remote is not None and remote.holds(digest) else None


def _in_utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value
