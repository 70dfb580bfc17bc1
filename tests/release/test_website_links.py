"""Dead links of a built site are found, and so is what it would fetch from elsewhere."""

from pathlib import Path

import pytest

from website.links import faults, main

PAGE = """<html><head><link rel="canonical" href="https://here.example/"><link href="style.css"></head>
<body><h1 id="top">Here</h1><a href="there/">there</a><a href="there/#end">its end</a><a href="#top">up</a>
<a href="https://elsewhere.example/">elsewhere</a>{more}</body></html>"""


def site(folder: Path, more: str = "") -> Path:
    (folder / "there").mkdir()
    (folder / "there" / "index.html").write_text('<p id="end">There</p>', "utf-8")
    (folder / "style.css").touch()
    (folder / "index.html").write_text(PAGE.format(more=more), "utf-8")
    return folder


def test_a_whole_site_has_no_fault(tmp_path: Path) -> None:
    """Pages, places in them, files; and links that only lead elsewhere."""
    assert list(faults(site(tmp_path))) == []
    assert main(str(tmp_path)) == 0


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ('<a href="nowhere/">x</a>', "index.html: nowhere/ leads nowhere"),
        ('<img src="gone.png">', "index.html: gone.png leads nowhere"),
        ('<a href="there/#middle">x</a>', "index.html: there/#middle has no such place"),
        ('<a href="#bottom">x</a>', "index.html: #bottom has no such place"),
        ('<script src="https://cdn.example/x.js"></script>', "index.html: fetches https://cdn.example/x.js"),
        ('<img src="//cdn.example/x.png">', "index.html: fetches //cdn.example/x.png"),
    ],
)
def test_what_leads_nowhere_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, fault: str) -> None:
    assert main(str(site(tmp_path, more))) == 1
    assert capsys.readouterr().out == f"{fault}\n"
