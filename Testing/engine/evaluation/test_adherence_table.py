"""Reports of checks as one table: medians and quartiles by numpy, what is missing, reports that do not go together."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medlord.errors import InputError
from medlord.evaluation.adherence import NOT_FOUND_ALONE, Adherence, StructureAdherence
from medlord.evaluation.adherence_table import (
    adherence_table,
    count_in_words,
    not_compared,
    read_check_reports,
    render_adherence_page,
    spread_in_words,
)


def report(dice: float, *, segmenter: str = "hu-rules", ceiling: float | None = None, **more) -> dict:
    """A report with a lung and a left atrium that the segmenter does not look for."""
    found = 0.0 if dice == 0 else 90.0
    lung = StructureAdherence(
        "lung", 100.0, found, dice, ceiling, hd95_mm=None if dice == 0 else 10 * (1 - dice), surface_dice=dice,
        difference_ml=found - 100, ceiling_hd95_mm=ceiling, ceiling_surface_dice=ceiling,
    )  # fmt: skip
    rows = (lung, StructureAdherence("heart_atrium_left", 20.0, note=NOT_FOUND_ALONE))
    return {**Adherence(segmenter, rows).to_dict(), "verdict": {"level": "green"}, **more}


def test_medians_and_quartiles_are_numpys_and_what_is_missing_is_said():
    dices = [0.9, 0.0, 0.8, 0.95, 0.7]
    table = adherence_table([report(dice) for dice in dices])
    lung, atrium = table.rows
    assert (lung.structure, lung.count, lung.missing_share) == ("lung", 5, 0.2)
    found = lung.measures["dice"]
    assert [found.first_quartile, found.median, found.third_quartile] == pytest.approx(
        np.percentile(dices, (25, 50, 75))
    )
    distances = lung.measures["hd95_mm"]
    assert distances.count == 4 and distances.median == pytest.approx(1.5), "nothing found has no distance"
    assert lung.measures["difference_ml"].minimum == -100
    assert set(lung.ceilings.values()) == {None}
    assert atrium.missing_share is None and atrium.measures["dice"].count == 0
    assert spread_in_words("dice", atrium.measures["dice"]) == "–"
    assert spread_in_words("dice", found) == "0.800 (0.700 to 0.900)"
    page = render_adherence_page(table)
    assert not_compared(table) == [f"Not compared in 5 of 5 reports: heart atrium left. {NOT_FOUND_ALONE}"]
    assert "<th scope='row'>heart atrium left" not in page, "a row of dashes"
    assert f"<li>{not_compared(table)[0]}</li>" in page
    assert table.to_dict()["structures"]["heart_atrium_left"]["compared"] == 0
    assert "0.800 (0.700 to 0.900)" in page and "<td>20%</td>" in page and "<th>Ceiling</th>" not in page
    with_ceiling = adherence_table([report(0.9, ceiling=0.96), report(0.8, ceiling=0.98), report(0.8)])
    assert with_ceiling.rows[0].ceilings["dice"].median == pytest.approx(0.97)
    assert with_ceiling.rows[0].ceilings["difference_ml"] is None
    assert render_adherence_page(with_ceiling).count("<th>Ceiling</th>") == 3
    json.dumps(with_ceiling.to_dict(), allow_nan=False)


def test_a_condition_that_some_checks_compared_says_how_many_and_why_not_all():
    """Reports of earlier versions, with `has_reference` and without notes, are read as well."""
    mixed = [report(0.9), report(0.8, has_reference=True)]
    mixed[1]["structures"][0] |= {"dice": None, "found_ml": None}
    del mixed[1]["structures"][0]["note"], mixed[1]["has_ceiling"]
    table = adherence_table(mixed)
    assert count_in_words(table.rows[0]) == "1 of 2"
    assert not_compared(table)[0] == "Not compared in 1 of 2 reports: lung. The reports do not say why."
    assert "over 1 volume." in render_adherence_page(adherence_table(mixed[:1]))


def test_reports_that_cannot_be_put_together_are_refused(tmp_path):
    with pytest.raises(InputError, match="several segmenters .hu-rules, labelmap."):
        adherence_table([report(0.9), report(0.9, segmenter="labelmap")])
    with pytest.raises(InputError, match="several tolerances of the surface Dice"):
        adherence_table([report(0.9), report(0.9, surface_tolerance_mm=9)])
    with pytest.raises(InputError, match="no report to put together"):
        adherence_table([])
    path = tmp_path / "a.json"
    for text, reason in (
        ("{", "a.json cannot be read as a report"),
        ("[1]", "a.json is no report of medlord check"),
        (json.dumps(report(0.9, structures=[])), "a.json is the check of a CT without masks"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=reason):
            read_check_reports([path])
    path.write_text(json.dumps(report(0.9)))
    assert read_check_reports([path]) == [json.loads(json.dumps(report(0.9)))]
