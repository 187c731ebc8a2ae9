"""The parts of a release: version, changelog, metadata, and the workflows that test and publish it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from package_metadata import absolute_links

from airflow_insightly_hooks import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
REPOSITORY = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"]
PYTHONS = [
    name.rpartition(" ")[2]
    for name in PROJECT["project"]["classifiers"]
    if re.search(r"Python :: 3\.\d+$", name)
]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
HEADINGS = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("[a](docs/x.md#y)", "[a](R/blob/v1/docs/x.md#y)"),
        ("[a](./LICENSE)", "[a](R/blob/v1/LICENSE)"),
        ("[a](dags)", "[a](R/tree/v1/dags)"),
        ("[`dags/`](dags)", "[`dags/`](R/tree/v1/dags)"),
        ("[a](#below)", "[a](R/blob/v1/README.md#below)"),
        ("![a](docs/flow.svg)", "![a](R/raw/v1/docs/flow.svg)"),
        ('<img src="docs/flow.svg">', '<img src="R/raw/v1/docs/flow.svg">'),
        ('<source srcset="docs/flow.svg">', '<source srcset="R/raw/v1/docs/flow.svg">'),
        ('<a href="LICENSE">', '<a href="R/blob/v1/LICENSE">'),
        ("[a](https://example.com/x)", "[a](https://example.com/x)"),
        ("[a](mailto:x@example.com)", "[a](mailto:x@example.com)"),
        ("`[a](LICENSE)`", "`[a](LICENSE)`"),
        ("[`a`](LICENSE) and `b`", "[`a`](R/blob/v1/LICENSE) and `b`"),
        ("[![a](docs/flow.svg)](LICENSE)", "[![a](R/raw/v1/docs/flow.svg)](R/blob/v1/LICENSE)"),
        ("```\n[a](LICENSE)\n```\n[a](LICENSE)", "```\n[a](LICENSE)\n```\n[a](R/blob/v1/LICENSE)"),
    ],
)
def test_links_of_the_readme(given, expected):
    """On a package index, links lead to the repository, at the tag of the version."""
    assert absolute_links(given, ROOT, "R", "v1") == expected


def test_the_readme_has_no_relative_link_left():
    """This holds for the whole README, as the package index shows it."""
    text = absolute_links((ROOT / "README.md").read_text(), ROOT, REPOSITORY, f"v{__version__}")
    assert re.findall(r"\]\((?!https?:)[^)]*\)", text) == []


def test_the_address_of_the_project_stands_in_one_place():
    """Another address is one change then."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    names = [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    found = [name for name in names if REPOSITORY.encode() in (ROOT / name).read_bytes()]
    assert found == ["pyproject.toml"]


def test_the_version_is_the_changelogs():
    """The newest heading is the version's, and dated in ISO form."""
    assert re.fullmatch(rf"{re.escape(__version__)} - \d{{4}}-\d\d-\d\d", HEADINGS[0])
    script = str(ROOT / "tools" / "check_release.sh")
    assert subprocess.run([script, f"v{__version__}"], check=False).returncode == 0
    refused = subprocess.run([script, "v99"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr == (
        f"release: the tag is v99, but the version in version.py is {__version__}: correct one of them\n"
    )


def test_the_changelogs_sections():
    """The sections are those of Keep a Changelog, in its order, and once in each version."""
    order = ["Added", "Changed", "Deprecated", "Fixed", "Removed", "Security"]
    for version in re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]:
        sections = re.findall(r"^### (.*)$", version, re.MULTILINE)
        assert sections == [name for name in order if name in sections]


def test_the_same_pythons_are_claimed_and_tested():
    """Classifiers, ``make test-all`` and the workflow of contributors name the same ones."""
    (default,) = re.findall(r"\$\{PYTHONS:-([\d. ]+)\}", (ROOT / "tools" / "test_all.sh").read_text())
    assert default.split() == PYTHONS
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    tested = [item["python"] for item in jobs["test"]["strategy"]["matrix"]["include"]]
    assert list(dict.fromkeys(tested)) == PYTHONS
    of_airflow = [item["python"] for item in jobs["e2e"]["strategy"]["matrix"]["include"]]
    assert of_airflow == [PYTHONS[0], PYTHONS[-1]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_pinned_and_have_few_rights(path):
    """Actions are named by a commit, no secret is used, and each job says what it may do."""
    text = path.read_text()
    workflow = yaml.safe_load(text)
    assert all(re.search(r"@[0-9a-f]{40} # v[\d.]+$", line) for line in re.findall(r"uses: .*", text))
    assert "secrets." not in text
    assert workflow["permissions"] == {}
    allowed = ({"contents": "read"}, {"id-token": "write"})
    assert all(job["permissions"] in allowed for job in workflow["jobs"].values())
