"""Try the package that is installed in the current environment: its modules, entry points and commands."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

PACKAGE = "airflow_insightly_hooks"
ENTRY_POINTS = {"apache_airflow_provider": 1, "airflow.plugins": 1, "pytest11": 1}


def main() -> None:
    """Try everything, and raise an error if something fails."""
    package = importlib.import_module(PACKAGE)
    folder = Path(str(package.__file__)).parent
    assert folder.is_relative_to(sys.prefix), f"{folder} is not in this environment"
    assert version("airflow-insightly-hooks") == package.__version__
    names = [m.name for m in pkgutil.walk_packages(package.__path__, f"{PACKAGE}.")]
    # pytest is not installed. Modules that are commands are run below.
    for name in names:
        if not name.endswith(("__main__", "pytest_plugin", "testing.connections")):
            importlib.import_module(name)
    for group, count in ENTRY_POINTS.items():
        found = [point for point in entry_points(group=group) if point.value.startswith(PACKAGE)]
        assert len(found) == count, (group, found)
        if group != "pytest11":
            for point in found:
                point.load()
    airflow = Path(sys.executable).with_name("airflow")
    commands = {
        "the command": [str(airflow), "insightly", "--help"],
        "the module": [sys.executable, "-m", PACKAGE, "check", str(folder / "demo" / "dags" / "workflows")],
        "the sandbox": [sys.executable, "-m", f"{PACKAGE}.sandbox", "--help"],
        "the demo": [sys.executable, "-m", f"{PACKAGE}.demo", "--help"],
        "the plugin": [str(airflow), "plugins", "--output", "plain"],
        "the provider": [str(airflow), "providers", "list", "--output", "plain"],
    }
    for what, command in commands.items():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{what}: {done.stdout}{done.stderr}"
        assert what not in ("the plugin", "the provider") or "insightly" in done.stdout, (
            f"{what}: {done.stdout}"
        )
    print(f"dist: {len(names)} modules can be imported; commands, plugin and provider are there")


if __name__ == "__main__":
    main()
