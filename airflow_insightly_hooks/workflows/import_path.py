"""Folders whose modules can be imported for a while, as the DAG processor can import a DAG folder's."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["folders_above", "importable"]


def folders_above(path: Path) -> list[Path]:
    """Return where the DAG folder of a file may be: its folder and those above, up to the working directory.

    Outside the working directory these are its folder and the one above. A folder counts as one of its own.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 — links are kept: their names lead to the DAG folder
    nearest = path if path.is_dir() else path.parent
    folders = [nearest, *nearest.parents]
    root = Path.cwd()
    return folders[: folders.index(root) + 1] if root in folders else folders[:2]


@contextmanager
def importable(folders: Iterable[Path]) -> Iterator[None]:
    """Have these folders at the end of ``sys.path``, where Airflow has the DAG folder; undone afterwards."""
    added = [folder for folder in dict.fromkeys(map(str, folders)) if folder not in sys.path]
    sys.path.extend(added)
    try:
        yield
    finally:
        for folder in added:
            if folder in sys.path:
                sys.path.remove(folder)
