"""Make the modules of folders importable for a while, as those of the DAG folder are in the DAG processor."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["folders_above", "importable"]


def folders_above(path: Path) -> list[Path]:
    """Return the folders that may be the DAG folder of a file: its folder and the folders above.

    They end with the working directory. Outside the working directory, they are only the file's folder and
    the folder above. If the path is a folder, this folder is the first.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 — links are kept: their names lead to the DAG folder
    nearest = path if path.is_dir() else path.parent
    folders = [nearest, *nearest.parents]
    root = Path.cwd()
    return folders[: folders.index(root) + 1] if root in folders else folders[:2]


@contextmanager
def importable(folders: Iterable[Path]) -> Iterator[None]:
    """Add folders to the end of ``sys.path``, as Airflow does with the DAG folder. Remove them afterwards."""
    added = [folder for folder in dict.fromkeys(map(str, folders)) if folder not in sys.path]
    sys.path.extend(added)
    try:
        yield
    finally:
        for folder in added:
            if folder in sys.path:
                sys.path.remove(folder)
