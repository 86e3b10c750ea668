"""Rules of what a user may do on the brokers."""

from __future__ import annotations

from typing import Literal, NamedTuple

Resource = Literal["topic", "group", "transactional-id"]
Operation = Literal["Read", "Write", "Describe", "DescribeConfigs", "Create"]


class Rule(NamedTuple):
    """*operations* allowed on the resources whose name is, or with *prefixed* begins with, *name*."""

    resource: Resource
    name: str
    operations: tuple[Operation, ...]
    prefixed: bool = False
