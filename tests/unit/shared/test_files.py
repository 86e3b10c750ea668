"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from centinela.files import remove_parts, write_atomically


def test_a_file_is_replaced_as_a_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    write_atomically(path, lambda file: file.write(b"new"), mode=0o444)
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        raise OSError("disk full")

    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_writers_of_one_process_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    contents = [bytes([number]) * 100_000 for number in range(20)]

    def write(content: bytes) -> None:
        write_atomically(path, lambda file: file.write(content))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, contents))
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_the_parts_of_a_killed_writer_name_its_process_and_are_removed(tmp_path: Path) -> None:
    names: list[str] = []
    path = tmp_path / "a"
    write_atomically(path, lambda file: names.append(Path(file.name).name))
    [name] = names
    assert name.startswith("a.")
    assert name.endswith(f".{os.getpid()}.part")
    (tmp_path / name).write_bytes(b"half")
    remove_parts(tmp_path)
    assert list(tmp_path.iterdir()) == [path]
