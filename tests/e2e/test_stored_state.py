"""docs/reference/state.md lists the state that real runs store."""

from __future__ import annotations

import shutil

import pytest

from tests.e2e.test_pytest_plugin import ROOT, SUITE, run_pytest

pytestmark = [pytest.mark.e2e, pytest.mark.scale, pytest.mark.timeout(300)]


def test_every_key_that_runs_store_is_listed(tmp_path):
    """The test fails with the name of every key that the page lacks."""
    shutil.copytree(SUITE, tmp_path, dirs_exist_ok=True)
    done = run_pytest(tmp_path, "stored_state.py", PYTHONPATH=f"{ROOT}:{ROOT / 'tools'}")
    assert done.returncode == 0, done.stdout
