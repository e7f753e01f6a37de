"""Green, amber, red, and the reason in words.

Red: the volume is not what was asked for, or no CT of a person; do not use it. Amber: unusual, look at it. Green: this
check found nothing. Where a reference CT gives the segmenter's own ceiling, the Dice is judged against that; else
against fixed limits, which are conventions, not statistics. None of this is clinical validity.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from .adherence import NOT_IN_SEGMENTATION, Adherence, StructureAdherence
from .image_quality import AXES, ImageQuality
from .plausibility import TissueHu
from .reference import ReferenceDistribution
from .reference_check import Placed, RegionCheck, UnusualCount
from .sides import Sides
from .volume_measures import SCAN_TITLES
from .wording import counted, in_ml, spoken_first, three_digits, told_apart

GREEN, AMBER, RED = "green", "amber", "red"
LEVELS = (GREEN, AMBER, RED)

# Dice: amber below the first, red below the second.
DICE_LIMITS = {"body": (0.97, 0.92), "lung": (0.92, 0.80), "bone": (0.70, 0.45), "airways": (0.7, 0.3)}
OTHER_DICE_LIMITS = (0.75, 0.5)
# How far below the segmenter's own ceiling. A ceiling below the second limit above says nothing about the synthesis.
CEILING_LIMITS = (0.08, 0.25)
# Where the middle of a structure may lie off the drawn one, mm.
OFFSET_LIMITS_MM = (5.0, 10.0)
# Structures whose middle is well defined in any field of view.
LOCATED = ("lung", "bone", "body")
# ... provided that found and drawn volume differ by no more than this share.
LOCATED_VOLUME_SHARE = 0.3
# The HU rules are made for volumes with this much lung at least.
CHEST_LUNG_ML = 300.0
SIDE_DICE_LIMIT = 0.6
MIRROR_GAIN_LIMIT = 0.03
# A mirror image that fits badly too is no sign of swapped sides.
MIRROR_FIT_LIMIT = 0.7
# HU outside the published range: red from here on; spread as a multiple of the largest expected.
OFF_RANGE_RED_HU = 50.0
# What lies far outside a reference of narrow HU is red only if it is off by so much.
FAR_OFF_HU = 100.0
SPREAD_LIMITS = (1.0, 2.0)
AIR_LIMITS_HU = (30.0, 75.0)
SATURATION_LIMITS = (0.01, 0.1)
NOISE_LIMITS_HU = (1.0, 100.0)
EDGE_WIDTH_LIMITS_VOXELS = (2.8, 3.6)
# A width below this is sharp, however many small voxels it spans.
EDGE_WIDTH_SHARP_MM = 5.0
INCOHERENCE_LIMITS = (0.8, 0.9)
SEAM_LIMITS = (5.0, 7.0)
# Fewer values than this have no central 95 %: of 20, one lies outside. Guideline EP28-A3c of the Clinical and
# Laboratory Standards Institute (2010) asks for 120.
SMALLEST_REFERENCE = 20
_TOPICS = ("image", "sides", "adherence", "HU", "reference")


@dataclass(frozen=True)
class Finding:
    """One thing that a check has to say: `level`, `topic`, the structure (None: the whole volume), a sentence."""

    level: str
    topic: str
    structure: str | None
    reason: str

    def to_dict(self) -> dict:
        """JSON form."""
        return asdict(self)


def worst_level(findings: Iterable[Finding]) -> str:
    """The level of the whole: that of the worst finding, green when there is none."""
    return max((finding.level for finding in findings), key=LEVELS.index, default=GREEN)


def sorted_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Worst first, then by topic."""
    return sorted(findings, key=lambda f: (-LEVELS.index(f.level), _TOPICS.index(f.topic)))


def judge_adherence(adherence: Adherence) -> list[Finding]:
    """Findings on overlap and place of every structure that the segmenter looked for."""
    findings = []
    for row in adherence.structures:
        if row.note == NOT_IN_SEGMENTATION:
            drawn = f"{spoken_first(row.name)} was drawn ({in_ml(row.drawn_ml)})"
            words = f"{drawn}, but the segmentation of the CT has none."
            findings.append(Finding(AMBER, "adherence", row.name, words))
        if row.dice is None:
            continue
        level, limit = _dice_level(row)
        if level:
            words = _dice_words(row, limit, adherence.segmenter)
            findings.append(Finding(level, "adherence", row.name, words))
        findings += _low_ceiling(row, adherence.segmenter)
        if row.offset_mm is not None and row.name in LOCATED and _about_as_large(row):
            findings += _offset(row)
    compared = [row.dice for row in adherence.structures if row.dice is not None]
    if compared and min(compared) == 1.0:
        words = (
            f"What {adherence.segmenter} gives equals the drawn masks voxel by voxel: one was made from the other, so "
            "that they agree says nothing about the CT."
        )
        findings.append(Finding(AMBER, "adherence", None, words))
    if not compared:
        words = (
            f"The segmenter {adherence.segmenter} finds none of the drawn structures on its own, so whether the volume "
            "holds them was judged by HU alone."
        )
        findings.append(Finding(AMBER, "adherence", None, words))
    return findings


def _dice_level(row: StructureAdherence) -> tuple[str | None, float]:
    """The level of a Dice, None for a good one, and the limit that it lies below."""
    if row.ceiling_dice is not None:
        amber, red = (row.ceiling_dice - limit for limit in CEILING_LIMITS)
    else:
        amber, red = DICE_LIMITS.get(row.name, OTHER_DICE_LIMITS)
    if row.dice < red:
        return RED, red
    return (AMBER if row.dice < amber else None), amber


def _low_ceiling(row: StructureAdherence, segmenter: str) -> list[Finding]:
    """Where the segmenter fails on the real CT too, keeping up with it is no achievement."""
    if row.ceiling_dice is None or row.ceiling_dice >= DICE_LIMITS.get(row.name, OTHER_DICE_LIMITS)[1]:
        return []
    words = (
        f"{spoken_first(row.name)}: on the real CT {segmenter} reaches a Dice of only {row.ceiling_dice:.2f}, so the "
        "masks do not belong to that CT, or it does not find this structure; the Dice says little."
    )
    return [Finding(AMBER, "adherence", row.name, words)]


def _dice_words(row: StructureAdherence, limit: float, segmenter: str) -> str:
    if not row.found_ml:
        return f"{spoken_first(row.name)} was drawn ({in_ml(row.drawn_ml)}) but {segmenter} finds none of it."
    dice, below = told_apart(row.dice, limit, decimals=2)
    words = f"{spoken_first(row.name)} overlaps with the drawn mask by a Dice of only {dice} (limit {below})"
    if row.ceiling_dice is not None:
        words += f", where the real CT reaches {row.ceiling_dice:.2f}"
    return f"{words}: {in_ml(row.found_ml)} were found, {in_ml(row.drawn_ml)} drawn."


def _about_as_large(row: StructureAdherence) -> bool:
    """Whether the middle of what was found says where the structure lies: not if half of it is missing."""
    return abs(row.found_ml - row.drawn_ml) <= LOCATED_VOLUME_SHARE * row.drawn_ml


def _offset(row: StructureAdherence) -> list[Finding]:
    parts = []
    for value, (ahead, back) in zip(
        row.offset_mm,
        (("right", "left"), ("forward", "backward"), ("up", "down")),
    ):
        if abs(value) >= OFFSET_LIMITS_MM[0]:
            parts.append(f"{abs(value):.0f} mm {ahead if value > 0 else back}")
    if not parts:
        return []
    level = RED if max(map(abs, row.offset_mm)) >= OFFSET_LIMITS_MM[1] else AMBER
    return [
        Finding(
            level,
            "adherence",
            row.name,
            f"{spoken_first(row.name)} lies off the drawn mask: {', '.join(parts)}.",
        )
    ]


def outside_the_chest(findings: Iterable[Finding], lung_ml: float) -> list[Finding]:
    """The `findings` of the HU rules where there is next to no lung, drawn or found: they are made for the chest.

    The rules tell bone from contrast by the lungs around it. Elsewhere they miss much of it in a good CT, which is no
    reason for red.
    """
    findings = list(findings)
    if lung_ml >= CHEST_LUNG_ML:
        return findings
    words = (
        f"There are {lung_ml:.0f} ml of lung, and hu-rules is made for chest CT: elsewhere it misses much bone and "
        "blood, so these two are not held against the CT. Use another segmenter."
    )
    return [
        Finding(AMBER, f.topic, f.structure, f.reason)
        if f.topic in ("adherence", "sides") and f.structure in ("bone", "blood_pool")
        else f
        for f in findings
    ] + [Finding(AMBER, "adherence", None, words)]


def judge_sides(sides: Sides) -> list[Finding]:
    """Findings on left and right."""
    findings = []
    if sides.mirror_gain > MIRROR_GAIN_LIMIT and sides.mirror_fit > MIRROR_FIT_LIMIT:
        words = (
            "Left and right seem swapped: the mirror image fits the drawn masks better (mean Dice higher by "
            f"{sides.mirror_gain:.2f})."
        )
        findings.append(Finding(RED, "sides", None, words))
    for name in sides.left:
        for side, value, other in (
            ("left", sides.left[name], sides.right[name]),
            ("right", sides.right[name], sides.left[name]),
        ):
            if value < SIDE_DICE_LIMIT and other - value > 0.2:
                words = (
                    f"{spoken_first(name)} on the {side} side hardly agrees with the drawn mask (Dice {value:.2f}; "
                    f"the other side {other:.2f})."
                )
                findings.append(Finding(RED, "sides", name, words))
    return findings


def judge_tissues(rows: Iterable[TissueHu]) -> list[Finding]:
    """Findings on the HU of every structure that has a published range."""
    findings = []
    for row in rows:
        if row.expected is None:
            continue
        expected, place = row.expected, "where it was drawn" if row.where == "drawn" else "where it was found"
        if row.off_hu:
            # Bright blood that nobody drew was found by its HU: it may be bone, and says nothing about the contrast.
            by_its_hu = row.where == "found" and row.name == "blood_pool"
            level = RED if abs(row.off_hu) >= OFF_RANGE_RED_HU and not by_its_hu else AMBER
            median, low, high = told_apart(row.median_hu, expected.low_hu, expected.high_hu)
            words = (
                f"{spoken_first(row.name)} has a median of {median} HU {place}; {expected.tissue} lies between "
                f"{low} and {high} HU ({expected.source})."
            )
            findings.append(Finding(level, "HU", row.name, words))
        elif row.excess_spread > SPREAD_LIMITS[0]:
            level = RED if row.excess_spread > SPREAD_LIMITS[1] else AMBER
            spread, most = told_apart(row.spread_hu, expected.spread_hu)
            words = (
                f"{spoken_first(row.name)} is uneven: HU spread by {spread} {place}, at most {most} are usual for "
                f"{expected.tissue}."
            )
            findings.append(Finding(level, "HU", row.name, words))
    return findings


def judge_image(quality: ImageQuality) -> list[Finding]:
    """Findings on the picture as a whole."""
    findings = []

    def add(level: str, words: str) -> None:
        findings.append(Finding(level, "image", None, words))

    air = quality.outside_air_hu
    if air is not None and abs(air + 1000) > AIR_LIMITS_HU[0]:
        level = RED if abs(air + 1000) > AIR_LIMITS_HU[1] else AMBER
        add(level, f"Air around the body has {air:.0f} HU instead of -1000: HU are offset or scaled.")
    for share, end in ((quality.saturated_low, "lowest"), (quality.saturated_high, "highest")):
        if share > SATURATION_LIMITS[0]:
            level = RED if share > SATURATION_LIMITS[1] else AMBER
            add(
                level,
                f"{share:.1%} of the body's voxels have the {end} value of the volume: HU were clipped there.",
            )
    noise = quality.noise_hu
    if noise is not None and not NOISE_LIMITS_HU[0] <= noise <= NOISE_LIMITS_HU[1]:
        add(AMBER, f"Noise in soft tissue is {noise:.1f} HU; scanners give some 3 to 60 HU.")
    width = quality.edge_width_voxels
    if (
        width is not None
        and width > EDGE_WIDTH_LIMITS_VOXELS[0]
        and quality.edge_width_mm > EDGE_WIDTH_SHARP_MM
    ):
        level = RED if width > EDGE_WIDTH_LIMITS_VOXELS[1] else AMBER
        words = (
            f"The skin is {quality.edge_width_mm:.1f} mm ({width:.1f} voxels) wide: the volume is blurred."
        )
        add(level, words)
    for axis, incoherence, seam, position in zip(
        AXES, quality.incoherence, quality.seam, quality.seam_position
    ):
        if incoherence is not None and incoherence > INCOHERENCE_LIMITS[0]:
            level = RED if incoherence > INCOHERENCE_LIMITS[1] else AMBER
            add(level, f"Neighbouring slices ({axis}) do not continue each other: they may be out of order.")
        elif seam is not None and seam > SEAM_LIMITS[0]:
            level = RED if seam > SEAM_LIMITS[1] else AMBER
            words = f"A break runs across the volume ({axis}, after slice {position}), {seam:.1f} times what is usual"
            add(level, f"{words} nearby: a seam of tiles or a missing slice.")
    return findings


def judge_reference(
    regions: Iterable[RegionCheck],
    scan: dict[str, Placed | None],
    reference: ReferenceDistribution,
    unusual: UnusualCount | None = None,
) -> list[Finding]:
    """Findings on size and HU of what was found, and on the scan, among the values of a reference.

    `unusual` counts what lies outside: more than chance does is a finding of its own.
    A reference of fewer than `SMALLEST_REFERENCE` volumes can only tell that a structure is missing. In another field
    of view sizes are no reason for red: what lies beyond its border is not missing.
    """
    regions = list(regions)
    against = f"the reference {reference.name} (N = {reference.count})"
    small = reference.count < SMALLEST_REFERENCE
    comparable = all("rvr" in row.measures for row in regions)
    findings = _on_the_reference(reference, against, comparable, unusual)
    for row in regions:
        if row.missing:
            words = _missing_words(row, against)
            findings.append(Finding(AMBER if small or not comparable else RED, "reference", row.name, words))
        elif not small:
            findings += _unusual_measures(row, against, comparable)
    for measure, placed in scan.items():
        if placed is not None and placed.unusual and not small:
            numbers = (placed.value, placed.low, placed.high)
            value, low, high = told_apart(*numbers, decimals=three_digits(*numbers))
            words = (
                f"{SCAN_TITLES.get(measure, spoken_first(measure))} is {value}, outside the central 95 % "
                f"({low} to {high}) of {against}."
            )
            findings.append(Finding(AMBER, "reference", None, words))
    return findings


def _missing_words(row: RegionCheck, against: str) -> str:
    """How much of a structure is left that no volume of the reference lacks."""
    placed = row.measures["ml"]
    if placed.value == 0:
        left = f"is missing: none of it was found, while every volume of {against} has it"
        return f"{spoken_first(row.name)} {left} ({in_ml(placed.median)} in the median)."
    left = f"is almost missing: {in_ml(placed.value)} of it were found, of {in_ml(placed.median)} that {against} has"
    return f"{spoken_first(row.name)} {left} in the median; none of its volumes has so little."


def _on_the_reference(
    reference: ReferenceDistribution, against: str, comparable: bool, unusual: UnusualCount | None
) -> list[Finding]:
    """Findings on the comparison as a whole: too few volumes, another field of view, more than chance does."""
    words = []
    if reference.count < SMALLEST_REFERENCE:
        words.append(
            f"The reference {reference.name} has {counted(reference.count, 'volume')}; fewer than "
            f"{SMALLEST_REFERENCE} do not say what is unusual, so sizes, HU and image were not judged by it."
        )
    if not comparable:
        words.append(
            f"The field of view is not one of {against}: only ml are compared, which what it cuts off changes too."
        )
    if unusual is not None and unusual.here > unusual.own_limit:
        words.append(
            f"In {unusual.here} of {unusual.measures} measures the volume lies outside the central 95 % of {against}; "
            f"95 of 100 of its own volumes do in at most {unusual.own_limit}."
        )
    return [Finding(AMBER, "reference", None, text) for text in words]


def _unusual_measures(row: RegionCheck, against: str, comparable: bool) -> list[Finding]:
    """Findings on a structure that is there. RVR and ml say the same where the field of view is `comparable`."""
    size = "rvr" if comparable else "ml"
    return [
        _unusual(row, measure, row.measures[measure], against)
        for measure in (size, "median_hu", "spread_hu")
        if row.measures.get(measure) is not None and row.measures[measure].unusual
    ]


def _unusual(row: RegionCheck, measure: str, placed: Placed, against: str) -> Finding:
    is_share = measure == "rvr"
    numbers = (placed.value, placed.low, placed.high)
    value, low, high = told_apart(*numbers, decimals=2 if is_share else 0, percent=is_share)
    has = {
        "rvr": f"{value} of the volume",
        "ml": f"{value} ml",
        # The page's table of HU is of the drawn masks.
        "median_hu": f"a median of {value} HU where it was found",
        "spread_hu": f"a spread of {value} HU where it was found",
    }[measure]
    where = "far outside" if placed.far else "outside the central 95 %"
    words = f"{spoken_first(row.name)} has {has}, {where} ({low} to {high}) of {against}"
    words += f": percentile {placed.percentile:.1f}."
    off_hu = 0.0 if measure in ("rvr", "ml") else abs(placed.value - placed.median)
    # A structure that most of the reference lacks, such as contrast in native CT, is a few voxels found by mistake.
    sized = is_share and placed.median > 0
    serious = placed.far and (sized or off_hu > FAR_OFF_HU)
    return Finding(RED if serious else AMBER, "reference", row.name, words)
