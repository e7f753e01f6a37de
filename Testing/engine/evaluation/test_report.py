"""The report: one file, no network, nothing unescaped, every number with its meaning."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from medlord.conditions import Conditions
from medlord.errors import InputError
from medlord.evaluation.adherence import Adherence, StructureAdherence
from medlord.evaluation.report import NOT_CLINICAL, ReportContent, render_report, write_report
from medlord.volumes import Grid, Volume

GRID = Grid.centered((16, 16, 8), (10.0, 10.0, 15.0))
EVIL = "<script>alert('&')</script>"


def content(**changes) -> ReportContent:
    mask = np.zeros(GRID.shape, bool)
    mask[4:12, 4:12, 2:6] = True
    row = StructureAdherence(
        "body",
        384.0,
        380.5,
        0.987,
        0.995,
        41.0,
        12.0,
        44.0,
        5.0,
        hd95_mm=10.4,
        surface_dice=0.876,
        ceiling_hd95_mm=7.3,
    )
    note = StructureAdherence(EVIL, 10.0, mean_hu=300.0, sd_hu=4.0, note=EVIL)
    fields = {
        "volume": Volume(np.where(mask, 40, -1000).astype(np.int16), GRID, recipe={"seed": 17}),
        "conditions": Conditions(GRID, {"body": mask, EVIL: mask}),
        "adherence": Adherence("hu-rules", (row, note), has_ceiling=True),
        "recipe": {"model": "thorax-phantom", "seed": 17, "sampler": "unipc", "steps": 25, "device": "cpu",
                   "precision": "float32", "attributes": {"contrast_phase": "arterial"},
                   "conditions": {"body": {"sha256": "ab", "packed": "QUJDREVG"}}},
        "timings_s": {"load": 1.0, "denoise": 20.5, "total": 21.5},
        "peak_memory_bytes": 3 * 2**30,
        "warnings": [EVIL],
    }  # fmt: skip
    return ReportContent(**{**fields, **changes})


class Collector(HTMLParser):
    """Tags with attributes, and the text between them."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += f" {data}"


def test_the_page_is_whole_and_needs_no_network():
    html = render_report(content())
    page = Collector(html)
    assert page.open == []
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe")]
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 3 * (1 + 2 * 3), (
        "masks, and three windows with contours over them, in three planes"
    )
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"https?://|url\(|@import", html)


def test_every_text_from_outside_is_escaped():
    html = render_report(content(title=EVIL))
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 4, "title, warning, structure, note"


def test_what_the_page_says():
    text = " ".join(Collector(render_report(content())).text.split())
    for words in ("SYNTHETIC", NOT_CLINICAL, "0.987", "0.995", "10.4", "7.3", "0.876",
                  "95 % Hausdorff, mm", "384.0", "380.5", "41 ± 12", "thorax-phantom", "17",
                  "unipc, 25 steps", "contrast phase: arterial", "21.5 s", "3.00 GiB", "Denoising 20.50 s",
                  "hu-rules on the CT that the masks belong to", "In the masks' CT, HU", "W 1500 L -600",
                  "W 400 L 40", "W 1800 L 400"):  # fmt: skip
        assert words in text, words
    assert "QUJDREVG" not in text, "the packed mask is for machines"


def test_a_real_ct_is_not_called_synthetic():
    made = content().volume
    html = render_report(content(volume=Volume(made.array, made.grid), title="Check"))
    assert "SYNTHETIC" not in html and "CT OF UNKNOWN ORIGIN" in html


def test_what_is_not_known_is_left_out():
    page = Collector(render_report(content(recipe={}, timings_s={}, peak_memory_bytes=0, warnings=())))
    assert "None" not in page.text
    for words in ("Seed", "Peak memory", "Recipe", "Warnings"):
        assert words not in page.text


def test_writing(tmp_path):
    path = write_report(tmp_path / "report.html", content())
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(InputError, match="does not exist"):
        write_report(tmp_path / "nowhere" / "report.html", content())
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
