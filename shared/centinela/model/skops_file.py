"""skops files whose bytes depend on the estimator alone.

skops names an object by its address in memory and dates its entries, so two dumps of one estimator differ. Here objects
are numbered in the order of their appearance and nothing is dated: the same training gives the same file, and the same
digest.
"""

from __future__ import annotations

import io
import re
import zipfile
from typing import Any

import skops.io

_SCHEMA = "schema.json"
_NAMED = re.compile(r'("__id__": |"file": ")(\d+)')


def dump(estimator: Any) -> bytes:
    """*estimator* as ``skops.io.loads`` reads it. Raises whatever ``skops.io.dumps`` raises."""
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(estimator))) as addressed:
        contents = {name: addressed.read(name) for name in addressed.namelist()}
    numbers: dict[str, int] = {}

    def numbered(found: re.Match[str]) -> str:
        return f"{found[1]}{numbers.setdefault(found[2], len(numbers))}"

    schema = _NAMED.sub(numbered, contents.pop(_SCHEMA).decode())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in sorted(contents, key=lambda name: numbers[name.partition(".")[0]]):
            address, dot, suffix = name.partition(".")
            file.writestr(zipfile.ZipInfo(f"{numbers[address]}{dot}{suffix}"), contents[name])
        file.writestr(zipfile.ZipInfo(_SCHEMA), schema)
    return buffer.getvalue()
