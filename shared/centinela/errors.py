"""The errors that cross module borders. Each message says what to do."""

from __future__ import annotations


class CentinelaError(Exception):
    """Base of the errors that Centinela raises on purpose."""


class InvalidRecord(CentinelaError):
    """A record that cannot be used, now or later: it is dead-lettered.

    Args:
        reason: A constant in snake_case (``malformed_json``, ``invalid_field``, ``unsupported_version``, ...).
        detail: What is wrong with which field.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class DependencyUnavailable(CentinelaError):
    """A dependency (Kafka, MLflow, the disk) does not answer: wait with backoff, then try again.

    Args:
        dependency: Its name as health and metrics show it (``kafka``, ``mlflow``, ``disk``), where known.
    """

    def __init__(self, detail: str = "", *, dependency: str | None = None) -> None:
        super().__init__(detail)
        self.dependency = dependency


class AccessRefused(CentinelaError):
    """A dependency answers, but refuses this process (authentication or authorization): a retry does not help, the
    process must end with that message."""


class TransactionAborted(CentinelaError):
    """The Kafka transaction was aborted: state derived from its records must be rebuilt, then the records read
    again."""


class ProducerFenced(CentinelaError):
    """Another process took over this transactional id or group member, or the transaction is lost: the process must
    end."""


class ModelRejected(CentinelaError):
    """A model bundle failed verification; the model in service is kept."""


class PromotionConflict(CentinelaError):
    """The alias does not point to the version that the caller expected."""
