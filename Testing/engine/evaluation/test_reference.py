"""Reference distributions: file, place of a value, missing structures, comparison of sets, building from real files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medlord.conditions import Conditions
from medlord.errors import CancelledError, InputError
from medlord.evaluation.image_quality import ImageQuality
from medlord.evaluation.reference import (
    collect_reference,
    find_reference,
    load_reference,
    save_reference,
    shipped_references,
)
from medlord.evaluation.reference_build import build_reference, files_matching, read_attributes
from medlord.evaluation.reference_check import (
    check_regions,
    compare_sets,
    count_unusual,
    is_missing,
    near_zero,
    place,
    set_warnings,
)
from medlord.evaluation.segmenters import HuRules
from medlord.evaluation.verdicts import judge_reference
from medlord.evaluation.volume_measures import VolumeMeasures
from medlord.segmentation_files import read_segmentation, write_segmentation
from medlord.volume_files import save_volume
from medlord.volumes import Grid, Volume

EXTENT = (300.0, 300.0, 300.0)
QUALITY = ImageQuality(-1000.0, 0.0, 0.0, 12.0, 4.0, 1.4, (0.5,) * 3, (2.0,) * 3, (1, 1, 1))


def measures(
    ml: float, extent=EXTENT, hu: float | None = -850.0, noise: float | None = 12.0
) -> VolumeMeasures:
    """One volume with a single structure."""
    rvr = ml * 1000 / float(np.prod(extent))
    quality = ImageQuality(**{**QUALITY.__dict__, "noise_hu": noise})
    return VolumeMeasures(
        {"lung": {"rvr": rvr, "ml": ml, "median_hu": hu, "spread_hu": 60.0}}, quality, extent
    )


def reference_of(volumes_ml, **changes):
    options = {"name": "test", "population": "Boxes.", "segmenter": "hu-rules", "segmenter_version": "1"}
    return collect_reference([measures(ml) for ml in volumes_ml], **{**options, **changes})


def test_a_file_holds_every_value_and_says_what_it_is_of(tmp_path):
    phases = ["native", "arterial", "native"]
    made = collect_reference(
        [measures(3000.0), measures(0.0, hu=None), measures(4000.0, noise=None)],
        name="mine", population="Three boxes.", segmenter="hu-rules", segmenter_version="7",
        attributes={"contrast_phase": phases},
    )  # fmt: skip
    path = save_reference(made, tmp_path / "mine.json")
    data = json.loads(path.read_text())
    assert (data["format"], data["version"], data["count"]) == ("medlord-reference", 1, 3)
    assert data["population"] == "Three boxes." and data["segmenter"] == {"name": "hu-rules", "version": "7"}
    assert data["field_of_view"]["extent_mm"] == [list(EXTENT)] * 3
    assert data["structures"]["lung"]["ml"] == [3000.0, 0.0, 4000.0]
    assert data["structures"]["lung"]["median_hu"] == [-850.0, None, -850.0]
    assert set(data["structures"]["lung"]) <= set(data["measures"])
    again = load_reference(path)
    assert again.to_dict() == made.to_dict()
    assert again.values("lung", "median_hu").tolist() == [-850.0, -850.0]
    assert again.scan_values("noise_hu").tolist() == [12.0, 12.0]
    assert again.values("heart", "ml").size == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("no json", "no JSON"),
        ("[]", "is no reference distribution"),
        ('{"format": "medlord-check"}', "is no reference distribution"),
        (
            '{"format": "medlord-reference", "version": 9}',
            "has version 9 of the format; this program reads 1",
        ),
        ('{"format": "medlord-reference", "version": 1}', "is damaged .KeyError"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, reason):
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(InputError, match=reason) as caught:
        load_reference(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_list_that_is_too_short_is_damage(tmp_path):
    path = save_reference(reference_of([3000, 3100, 3200]), tmp_path / "r.json")
    data = json.loads(path.read_text())
    data["structures"]["lung"]["ml"].pop()
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="damaged .*a list has 2 values for 3 volumes"):
        load_reference(path)


@pytest.mark.parametrize("place", [("structures", "lung", "ml"), ("field_of_view", "extent_mm", 0)])
def test_values_that_are_not_finite_are_damage(tmp_path, place):
    """JSON readers take NaN, and among NaN nothing is ever unusual."""
    data = reference_of([3000.0, 3100.0]).to_dict()
    data[place[0]][place[1]][place[2]][0] = float("nan")
    path = tmp_path / "r.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="damaged .*a value is not finite"):
        load_reference(path)


def test_references_of_another_segmenter_are_refused(tmp_path):
    path = save_reference(reference_of([3000, 3100], segmenter="totalsegmentator"), tmp_path / "r.json")
    with pytest.raises(InputError, match="made with the segmenter totalsegmentator, the check uses hu-rules"):
        find_reference(path, "hu-rules")
    with pytest.raises(InputError, match="no reference 'huge' for the segmenter hu-rules; shipped are"):
        find_reference("huge", "hu-rules")


def test_the_shipped_reference_is_of_200_phantoms():
    assert ("thorax-phantom", "hu-rules") in shipped_references()
    shipped = find_reference("thorax-phantom", "hu-rules")
    assert shipped.count == 200 and shipped.segmenter_version == HuRules.version
    assert set(shipped.structures) == set(HuRules.structures)
    assert set(shipped.attributes["contrast_phase"]) == {"native", "arterial", "venous"}
    assert 1500 < np.median(shipped.values("lung", "ml")) < 7000
    assert "phantoms" in shipped.population and "No patients" in shipped.population
    arterial = shipped.subgroup({"contrast_phase": "arterial"})
    assert 40 < arterial.count < 120 and np.median(arterial.values("blood_pool", "ml")) > 200


def test_percentiles_and_limits():
    values = np.arange(1.0, 101.0)
    middle = place(50.0, values)
    assert middle.percentile == pytest.approx(49.5) and middle.median == 50.5 and not middle.unusual
    assert (middle.low, middle.high) == (pytest.approx(3.475), pytest.approx(97.525))
    assert place(2.0, values).unusual and not place(2.0, values).far
    # Quartiles 25.75 and 75.25: far out from 75.25 + 3 * 49.5 on.
    assert not place(223.0, values).far and place(224.0, values).far
    # Where most values are alike, none that the reference has itself is far outside.
    mostly_none = np.array([0.0] * 60 + [2.0, 5.0])
    assert place(4.0, mostly_none).unusual and not place(4.0, mostly_none).far and place(6.0, mostly_none).far
    assert place(None, values) is None and place(1.0, np.array([])) is None


def test_missing_is_near_zero_where_the_reference_never_is():
    always = np.array([3000.0, 4000.0, 5000.0])
    assert is_missing(0.0, always) and is_missing(200.0, always) and not is_missing(201.0, always)
    sometimes = np.array([0.0, 4000.0, 5000.0])
    assert not is_missing(0.0, sometimes)
    assert near_zero(sometimes, sometimes).tolist() == [True, False, False]
    assert not is_missing(0.0, np.array([])), "nothing to compare with"


def test_the_rvr_is_compared_only_where_the_field_of_view_is():
    reference = reference_of(np.linspace(3000, 5000, 41))
    for extent, comparable in ((EXTENT, True), ((300.0, 300.0, 150.0), False)):
        one = measures(4000.0, extent)
        (row,) = check_regions(one.structures, one.extent_mm, reference)
        assert ("rvr" in row.measures) == comparable == reference.comparable_field_of_view(extent)
        assert row.measures["ml"].percentile == pytest.approx(50.0) and not row.missing
    (row,) = check_regions(measures(10.0, hu=None).structures, EXTENT, reference)
    assert row.missing and row.measures["ml"].far and row.measures["median_hu"] is None


def judged(count: int, one: VolumeMeasures) -> list[tuple[str, str]]:
    """(level, reason) of a volume with one lung against `count` lungs of 3 to 5 l."""
    reference = reference_of(np.linspace(3000, 5000, count))
    regions = check_regions(one.structures, one.extent_mm, reference)
    scan = {"outside_air_hu": place(-1100.0, np.linspace(-1010, -990, count))}
    return [(finding.level, finding.reason) for finding in judge_reference(regions, scan, reference)]


def test_a_few_volumes_are_no_reference_for_what_is_unusual():
    """Of three volumes nearly every good one lies outside; that was red."""
    ((level, reason),) = judged(3, measures(5500.0))
    assert level == "amber" and "has 3 volumes; fewer than 20" in reason
    assert [found[0] for found in judged(3, measures(0.0, hu=None))] == ["amber", "amber"], "missing, perhaps"
    many = judged(20, measures(9000.0))
    assert many[0][0] == "red" and "Lung has 33.33% of the volume, far outside" in many[0][1]
    assert many[1] == (
        "amber",
        "Air around the body (HU) is -1100, outside the central 95 % (-1010 to -990) of the reference test (N = 20).",
    )


def test_a_few_ml_are_almost_missing_and_findings_say_where_hu_were_taken():
    """A few ml were called missing, and value and limit of a finding could look alike."""
    told = judged(40, measures(9.0))[0]
    assert (
        told[0] == "red"
        and "almost missing: 9 ml of it were found, of 4000 ml that the reference test" in told[1]
    )
    assert "is missing: none of it was found" in judged(40, measures(0.0, hu=None))[0][1]
    reasons = " ".join(reason for _, reason in judged(40, measures(4000.0, hu=-850.3)))
    assert "Lung has a median of -850.3 HU where it was found" in reasons and "(-850.0 to -850.0)" in reasons


def test_a_structure_that_most_of_the_reference_lacks_is_no_reason_for_red():
    """A few bright voxels in a native CT were: there is none in most of the reference."""
    reference = reference_of(np.array([0.0] * 30 + [2.0, 3.0]))
    one = measures(9.0)
    found = judge_reference(check_regions(one.structures, one.extent_mm, reference), {}, reference)
    assert {finding.level for finding in found} == {"amber"} and "far outside" in found[0].reason


def test_how_many_measures_are_unusual_is_counted_by_chance_too():
    sizes, noises = np.linspace(3000, 5000, 40), np.roll(np.linspace(10, 14, 40), 7)
    measured = [measures(sizes[number], noise=noises[number]) for number in range(40)]
    reference = collect_reference(
        measured, name="test", population="Boxes.", segmenter="hu-rules", segmenter_version="1"
    )
    one = measures(9000.0, noise=12.0)
    regions = check_regions(one.structures, one.extent_mm, reference)
    scan = {name: place(value, reference.scan_values(name)) for name, value in one.scan.items()}
    found = count_unusual(regions, scan, reference)
    # RVR, median and spread of HU, and nine measures of the scan. Of the 40 volumes the smallest and the largest lie
    # outside in size, two others in noise.
    assert (found.here, found.measures, found.own_limit) == (1, 12, 1)
    assert found.own_share == pytest.approx(4 / 40)
    assert [f.structure for f in judge_reference(regions, scan, reference, found)] == ["lung"]
    one = measures(9000.0, hu=-700.0, noise=20.0)
    regions = check_regions(one.structures, one.extent_mm, reference)
    scan = {name: place(value, reference.scan_values(name)) for name, value in one.scan.items()}
    told = judge_reference(regions, scan, reference, count_unusual(regions, scan, reference))
    assert "In 3 of 12 measures the volume lies outside" in told[0].reason


def test_sizes_in_another_field_of_view_are_no_reason_for_red():
    half = (300.0, 300.0, 150.0)
    for one, words in (
        (measures(9000.0, half), "9000 ml, far outside"),
        (measures(0.0, half, None), "missing"),
    ):
        found = judged(40, one)
        assert {level for level, _ in found} == {"amber"}
        assert "The field of view is not one of the reference test" in found[0][1] and words in found[1][1]


def test_subgroups_are_taken_where_they_are_large_enough():
    phases = ["native"] * 25 + ["arterial"] * 10
    reference = reference_of(np.arange(35.0) + 1000, attributes={"contrast_phase": phases})
    native = reference.subgroup({"contrast_phase": "native"})
    assert native.count == 25 and native.values("lung", "ml").max() == 1024
    assert "the 25 with contrast phase native" in native.population
    assert native.subgroup({"contrast_phase": "native"}) is native
    assert reference.subgroup({"contrast_phase": "arterial"}).count == 35, "ten are too few"
    assert reference.subgroup({"sex": "male"}) is reference and reference.subgroup({}) is reference


def test_sets_are_compared_by_known_formulas():
    ours, theirs = np.array([1000.0, 2000.0, 3000.0, 0.0]), np.array([1500.0, 2500.0, 3500.0, 4500.0])
    rows = {row.measure: row for row in compare_sets(reference_of(ours), reference_of(theirs))}
    row = rows["ml"]
    assert (row.count, row.reference_count) == (4, 4)
    # Equal numbers: the mean distance of sorted values. KS: the largest gap of the two step functions.
    assert row.wasserstein == pytest.approx(np.mean(np.abs(np.sort(ours) - np.sort(theirs))))
    assert row.ks_statistic == pytest.approx(0.5) and 0 < row.ks_p_value < 1
    assert row.variance_ratio == pytest.approx(np.var(ours) / np.var(theirs))
    assert row.missing_share == 0.25 and row.reference_missing_share == 0.0
    assert rows["rvr"].wasserstein == pytest.approx(row.wasserstein * 1000 / np.prod(EXTENT))
    assert rows["median_hu"].variance_ratio is None, "the reference does not vary"


def test_what_makes_a_comparison_of_sets_say_less_is_told():
    reference = reference_of(np.linspace(3000, 5000, 30))
    assert set_warnings(reference, reference) == []
    small = collect_reference(
        [measures(3000.0, (300.0, 300.0, 200.0))] * 4,
        name="set", population="Boxes.", segmenter="hu-rules", segmenter_version="2",
    )  # fmt: skip
    told = set_warnings(small, reference)
    assert len(told) == 3
    assert "300 x 300 x 200 mm in set, 300 x 300 x 300 mm in test" in told[0]
    assert "version 2 of hu-rules, test with 1" in told[1] and "With 4 volumes" in told[2]


def test_volumes_with_other_structures_do_not_mix():
    other = measures(3000.0)
    other.structures["heart"] = other.structures["lung"]
    with pytest.raises(InputError, match="Volume 2 was segmented into lung, heart, the first one into lung"):
        collect_reference(
            [measures(1.0), other], name="x", population="x", segmenter="x", segmenter_version="x"
        )
    with pytest.raises(InputError, match="'sex' has 1 values for 2 volumes"):
        reference_of([1.0, 2.0], attributes={"sex": ["male"]})


@pytest.fixture
def population(tmp_path):
    """Three boxes in air as CT, with segmentations and a table of attributes."""
    grid = Grid.centered((24, 20, 16), (10.0, 10.0, 10.0))
    for number in range(3):
        body, lung = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
        body[3:21, 3:17] = True
        lung[6:10, 6 : 12 + number, 4:12] = True
        array = np.where(lung, -850, np.where(body, 40, -1000)).astype(np.int16)
        save_volume(Volume(array, grid), tmp_path / f"ct{number}.nii.gz")
        write_segmentation(tmp_path / f"found{number}.seg.nrrd", grid, {"body": body, "lung": lung})
    (tmp_path / "table.csv").write_text(
        "file,contrast_phase\nct2.nii.gz,venous\nct0.nii.gz,native\nct1.nii.gz,arterial\n"
    )
    return tmp_path


def test_building_from_files_with_segmentations_that_exist(population):
    files = files_matching(str(population / "ct*.nii.gz"), "CT")
    attributes = read_attributes(population / "table.csv", files)
    assert attributes == {"contrast_phase": ["native", "arterial", "venous"]}
    events = []
    made = build_reference(
        files,
        None,
        name="boxes",
        population="Boxes.",
        segmentations=files_matching(str(population / "found*.seg.nrrd"), "segmentation"),
        attributes=attributes,
        progress=events.append,
    )
    assert made.values("lung", "ml").tolist() == pytest.approx([4 * (6 + n) * 8 for n in range(3)])
    assert made.values("lung", "rvr").tolist() == pytest.approx(
        [4 * (6 + n) * 8 / (24 * 20 * 16) for n in range(3)]
    )
    assert made.values("lung", "median_hu").tolist() == [-850.0] * 3
    assert made.segmenter == "labelmap" and made.extents_mm == [(240.0, 200.0, 160.0)] * 3
    assert [event.step for event in events] == [1, 2, 3]


def test_what_was_measured_is_kept_when_a_build_is_stopped(population):
    class Tissue:
        name, version, structures, asked = "tissue", "1", ("body",), 0

        def segment(self, volume, structures, progress=None, cancel=None):
            self.asked += 1
            return Conditions(volume.grid, {"body": volume.array > -500})

    segmenter, events = Tissue(), []
    files = files_matching(str(population / "ct*.nii.gz"), "CT")
    options = {"name": "x", "population": "x", "work": population / "x.work"}
    with pytest.raises(CancelledError, match="ct2.nii.gz .3 of 3"):
        build_reference(files, segmenter, progress=events.append, cancel=lambda: len(events) == 2, **options)
    made = build_reference(files, segmenter, **options)
    assert segmenter.asked == 3 and made.count == 3
    assert not [path for path in options["work"].iterdir() if "ct" in path.name.split(".")[0]]


def test_segmentations_that_belong_to_no_ct_are_refused(population):
    files = files_matching(str(population / "ct*.nii.gz"), "CT")
    found = files_matching(str(population / "found*.seg.nrrd"), "segmentation")
    body = read_segmentation(found[1]).conditions(["body"]).conditions
    options = {"name": "x", "population": "x", "segmentations": found}
    write_segmentation(found[1], body.grid, {"body": body["body"]})
    with pytest.raises(InputError, match="found1.seg.nrrd .*do not name the same structures .lung"):
        build_reference(files, None, **options)
    elsewhere = Grid.centered(body.grid.shape, (10.0, 10.0, 10.0), (900.0, 0.0, 0.0))
    write_segmentation(found[1], elsewhere, {"body": body["body"], "lung": body["body"]})
    with pytest.raises(InputError, match="ct1.nii.gz, found1.seg.nrrd: No voxel of the segmentation"):
        build_reference(files, None, **options)


def test_what_cannot_be_built_is_said_before_anything_is_written(population):
    files = files_matching(str(population / "ct*.nii.gz"), "CT")
    options = {"name": "x", "population": "x"}
    with pytest.raises(InputError, match="No CT matches .*none"):
        files_matching(str(population / "none*.nii.gz"), "CT")
    with pytest.raises(InputError, match="is a folder; give a pattern of its files"):
        files_matching(str(population), "CT")
    with pytest.raises(InputError, match="There are 3 CT and 1 segmentations"):
        build_reference(files, None, segmentations=[population / "found0.seg.nrrd"], **options)
    with pytest.raises(InputError, match="either a segmenter or segmentations"):
        build_reference(files, None, **options)
    with pytest.raises(CancelledError, match="ct0.nii.gz .1 of 3"):
        build_reference(files, HuRules(), cancel=lambda: True, **options)
    (population / "table.csv").write_text("file,contrast_phase\nct0.nii.gz,native\n")
    with pytest.raises(InputError, match="no row for ct1.nii.gz .2 of 3"):
        read_attributes(population / "table.csv", files)
    grid = Grid.centered((4, 4, 4), (1.0, 1.0, 1.0))
    save_volume(Volume(np.zeros(grid.shape, np.int16), grid), population / "ct1.nii.gz")
    with pytest.raises(InputError, match="ct1.nii.gz has values from 0 to 0"):
        build_reference(files[1:], HuRules(), **options)
