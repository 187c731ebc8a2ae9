"""``python -m airflow_insightly_hooks.demo``."""

from __future__ import annotations

import sys

from airflow_insightly_hooks.demo.demo import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
