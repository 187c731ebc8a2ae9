"""The site is made from the Markdown pages, loads nothing from other hosts, and has no broken link."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import check_docs
import check_site
import pytest

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def conf() -> ModuleType:
    """Sphinx's settings of the site."""
    spec = importlib.util.spec_from_file_location("docs_conf", DOCS / "conf.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("index.html", '<link rel="stylesheet" href="https://fonts.example.com/a.css">'),
        ("index.html", '<link rel="preload" href="//fonts.example.com/a.woff2">'),
        ("index.html", '<script src="https://cdn.example.com/a.js"></script>'),
        ("index.html", '<script>fetch("https://cdn.example.com/a.json")</script>'),
        ("index.html", '<img srcset="a.png, https://img.example.com/a.png 2x">'),
        ("index.html", '<p style="background: url(https://img.example.com/a.png)">'),
        ("index.html", '<style>@import "//fonts.example.com/a.css";</style>'),
        ("index.html", '<svg><image xlink:href="https://img.example.com/a.png"/></svg>'),
        ("a.css", "@import url('https://fonts.example.com/a.css');"),
        ("a.css", "@font-face { src: url(//fonts.example.com/a.woff2) }"),
        ("a.js", 'import("https://cdn.example.com/a.js")'),
        ("a.svg", '<svg><use href="https://img.example.com/a.svg#b"/></svg>'),
    ],
)
def test_what_is_loaded_from_another_host_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    """Loads are found in pages, styles, scripts and pictures."""
    (tmp_path / "index.html").touch()
    (tmp_path / name).write_text(text)
    assert check_site.main(str(tmp_path)) == 1
    found, summary = capsys.readouterr().out.splitlines()
    assert found.startswith(f"{tmp_path / name}: it loads ")
    assert ".example.com/" in found
    assert summary.endswith(" 1 addresses on other hosts are loaded")


def test_links_and_the_site_itself_are_no_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Links may lead anywhere. Relative addresses and data URLs load nothing from other hosts."""
    (tmp_path / "index.html").write_text(
        '<a href="https://www.example.com/">out</a><link rel="stylesheet" href="a.css"><img src="a.png">'
    )
    (tmp_path / "a.css").write_text(
        "p { background: url('data:image/svg+xml,<svg xmlns=\"http://www.w3.org/\">') }"
    )
    assert check_site.main(str(tmp_path)) == 0
    assert capsys.readouterr().out == "site: 2 files, 0 addresses on other hosts are loaded\n"


def test_no_site_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty folder doesn't pass for a site that loads nothing."""
    assert check_site.main(str(tmp_path)) == 1
    assert "there is no site" in capsys.readouterr().out


def test_a_shelf_has_the_pages_it_lists(conf: ModuleType) -> None:
    """In this order. A shelf without pages has no toctree."""
    made = conf.toctrees(
        "# x\n\n## Empty\n\n## Reference\n\n- [b](reference/sandbox.md)\n- [a](reference/command-line.md)\n\n"
        "## Explanation\n\n- [c](architecture.md)\n"
    )
    reference, explanation = made.split("\n\n```{toctree}")
    names = ["reference/sandbox", "reference/command-line"]
    assert reference.splitlines()[2:] == [":caption: Reference", "", *names, "```"]
    assert explanation.splitlines()[2:] == [":caption: Explanation", "", "architecture", "```"]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("[a](reference/pages.md#x)", "[a](reference/pages.md#x)"),
        ("[a `b`](../README.md#with-a-real-account)", "a `b`"),
        ("[folder](../dags/workflows)", "folder"),
        ("[a](../tests/test_site.py)", "[a](../tests/test_site.py)"),
        ("![a](flow.svg)", "![a](flow.svg)"),
        ("[a](https://www.example.com/)", "[a](https://www.example.com/)"),
    ],
)
def test_links_out_of_the_site_are_text(conf: ModuleType, written: str, shown: str) -> None:
    """Single files are the exception, since the site has copies of them."""
    assert conf.without_outer_links(written, DOCS) == shown


def test_anchors_are_those_of_github() -> None:
    """They have no punctuation, code marks or links. Repeated headings are numbered. Code has no anchors."""
    text = "# A page's `key`: one, two\n## [A link](x.md)!\n```bash\n# no heading\n```\n## Twice\n## Twice\n"
    assert check_docs.anchors(text) == {"a-pages-key-one-two", "a-link", "twice", "twice-1"}


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ("other.md#a-heading", None),
        ("#own", None),
        ("https://www.example.com/#x", None),
        ("missing.md", "the link to missing.md leads to no file"),
        ("other.md#missing", "the link to other.md#missing leads to no heading"),
        ("#missing", "the link to #missing leads to no heading"),
    ],
)
def test_broken_links_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str, fault: str | None
) -> None:
    """A link must lead to an existing file, and to an existing heading if it names one."""
    monkeypatch.setattr(check_docs, "ROOT", tmp_path)
    (tmp_path / "other.md").write_text("# A heading\n")
    page = tmp_path / "page.md"
    page.write_text(f"# Own\n[x]({link})\n```\n[x](in-code.md)\n```\n")
    assert list(check_docs.broken_links([page])) == ([f"page.md: {fault}"] if fault else [])


def test_files_that_are_gone_or_have_other_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Git lists a file that was deleted and not committed; the others are checked all the same."""
    monkeypatch.setattr(check_docs, "ROOT", tmp_path)
    (tmp_path / "docs" / "reference").mkdir(parents=True)
    (tmp_path / "docs" / "architecture.md").write_text("")
    (tmp_path / "docs" / "reference" / "sandbox.md").write_text("")
    (tmp_path / "gone.md").write_text("")
    (tmp_path / "é one.md").write_text("[x](nowhere.md)")
    for command in ("init", "-q"), ("add", "."):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (tmp_path / "gone.md").unlink()
    assert list(check_docs.faults()) == ["é one.md: the link to nowhere.md leads to no file"]
