"""The vocabulary: its codes, how segments are recognised, and how conditions are put together."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlord.conditions import Conditions
from medlord.errors import EngineError, InputError
from medlord.phantom import labels
from medlord.resources import resource_folder
from medlord.vocabulary import Term, assemble, load_vocabulary, match, normalized, read_vocabulary
from medlord.volumes import Grid

VOCABULARY = load_vocabulary()
LEFT, RIGHT, BOTH = "SCT^7771000^Left", "SCT^24028007^Right", "SCT^51440002^Right and left"
LUNG_LOBES = [
    "lung_upper_lobe_left",
    "lung_lower_lobe_left",
    "lung_upper_lobe_right",
    "lung_middle_lobe_right",
    "lung_lower_lobe_right",
]
MODEL = list(labels.CONDITIONS)


def tag(type_triplet: str, modifier: str = "^^", region: str = "^^", region_modifier: str = "^^") -> str:
    """A `TerminologyEntry` tag as 3D Slicer writes it."""
    category = "SCT^123037004^Anatomical Structure"
    return "~".join(["Some list", category, type_triplet, modifier, "Anatomic list", region, region_modifier])


def verhoeff(digits: str) -> bool:
    """The check of SNOMED CT identifiers: Verhoeff's dihedral scheme (SNOMED CT Technical Implementation Guide)."""

    def multiply(a: int, b: int) -> int:
        first, second = a // 5, b // 5
        rotation = (a + (b if first == 0 else -b)) % 5
        return rotation + 5 * (first ^ second)

    permutation, check = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4], 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit)
        for _ in range(position % 8):
            value = permutation[value]
        check = multiply(check, value)
    return check == 0


def conditions_of(*names: str) -> Conditions:
    """One voxel per name, at its own place on one line."""
    grid = Grid.centered((len(names) + 1, 1, 1), (1, 1, 1))
    masks = {name: np.arange(len(names) + 1)[:, None, None] == n for n, name in enumerate(names)}
    return Conditions(grid, masks)


def test_all_codes_are_snomed_identifiers():
    assert verhoeff("39607008") and not verhoeff("39607009") and not verhoeff("39670008")
    codes = {
        triplet
        for structure in VOCABULARY.structures.values()
        for term in structure.terms
        for triplet in (term.category, term.type, term.modifier, term.region, term.region_modifier)
        if triplet
    }
    assert len(codes) > 100
    assert {scheme for scheme, _, _ in codes} == {"SCT"}
    assert [code for _, code, _ in codes if not verhoeff(code)] == []
    meanings: dict[str, set[str]] = {}
    for _, code, meaning in codes:
        meanings.setdefault(code, set()).add(meaning)
    assert {code: texts for code, texts in meanings.items() if len(texts) > 1} == {}


def test_every_class_of_totalsegmentator_is_known(shared):
    with (shared / "data" / "ct" / "ts_labels_total.csv").open(encoding="utf-8") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    assert len(names) == 117
    assert [name for name in names if name not in VOCABULARY or VOCABULARY[name].terminology is None] == []


def test_every_structure_of_the_phantom_is_known():
    assert [name for name in (*labels.NAMES, *labels.FLAGS, *MODEL) if name not in VOCABULARY] == []
    for name, parts in labels.AGGREGATES.items():
        assert set(parts) <= set(VOCABULARY.parts_below(name))


def test_colours_and_displays():
    for structure in VOCABULARY.structures.values():
        assert structure.display and len(structure.color) == 3
        assert all(isinstance(value, int) and 0 <= value <= 255 for value in structure.color)


def test_structures_are_recognised_by_their_own_tags_ids_names_and_aliases():
    for name, structure in VOCABULARY.structures.items():
        assert match(segment_id=name).structure == match(name=name).structure == name
        assert match(name=name.upper().replace("_", " ")).structure == name
        for alias in (structure.display, *structure.aliases):
            assert match(name=alias).structure == name
        for term in structure.terms:
            assert Term.parse(term.tag()) == term
            # Intrapulmonary arteries and veins share the code of the vessel: there the name decides.
            assert match(term.tag(), name=name).structure == name


@pytest.mark.parametrize(
    ("terminology", "structure"),
    [
        (tag("SCT^39607008^Lung"), "lung"),
        (tag("SCT^39607008^Lung", BOTH), "lung"),
        (tag("SCT^39607008^Lung", LEFT), "lung_left"),
        (tag("SCT^39607008^Lung", RIGHT), "lung_right"),
        (tag("SCT^45653009^Upper lobe of lung", LEFT), "lung_upper_lobe_left"),
        (tag("SCT^45653009^Upper lobe of lung"), None),
        (tag("SCT^82471001^Left atrium"), "heart_atrium_left"),
        (tag("SCT^59652004^Atrium", LEFT), "heart_atrium_left"),
        (tag("SCT^15825003^Aorta", LEFT), None),
        (tag("SCT^113197003^Rib", "^^", "SCT^51185008^Thorax"), "ribs"),
        (tag("SCT^41699000^Effusion", "^^", "SCT^91381003^Pleural cavity"), "pleural_effusion"),
        (tag("SCT^41699000^Effusion"), None),
        (tag("SCT^367643001^Cyst", "^^", "SCT^64033007^Kidney", LEFT), "kidney_cyst_left"),
        (tag("SCT^39607008^Lung", "^^", "SCT^51185008^Thorax", LEFT), None),
        (tag("SCT^85756007^Tissue"), None),
        (tag("DCM^39607008^Lung"), None),
        ("Some list~SCT^1^A", None),
        ("~~~~~~", None),
        ("", None),
    ],
)
def test_terminology_codes(terminology, structure):
    found = match(terminology, "Segment_7", "mine")
    assert (found.structure if found else None) == structure
    assert found is None or found.how == "terminology"


def test_order_is_terminology_then_id_then_name_then_alias():
    liver = VOCABULARY["liver"].terminology
    assert match(liver, "spleen", "aorta").how == "terminology"
    assert match(liver, "spleen", "aorta").structure == "liver"
    assert match(None, "spleen", "aorta") == match(segment_id="spleen")
    assert match(None, "Segment_1", "aorta").how == "name"
    assert match(None, "Segment_1", "LV") == match(name="left ventricle")
    assert match(None, "LV", "Segment_1").how == "alias"
    assert match(liver, None, "Foie (edited)").structure == "liver"


def test_a_code_that_leaves_a_choice_gives_way_to_a_name_that_agrees_and_says_more():
    lung = VOCABULARY["lung"].terminology
    assert match(lung, "Segment_1", "left lung").structure == "lung_left"
    assert match(lung, "Segment_1", "right kidney").structure == "lung"
    arteries = VOCABULARY["pulmonary_artery"].terminology
    assert match(arteries, "lung_arteries", None).structure == "lung_arteries"
    assert match(arteries, "Segment_1", "vessel").structure == "pulmonary_artery"


@pytest.mark.parametrize(
    "name",
    ["Left", "right", "L", "Segment_1", "Segment 1", "", "  ", "atrium", "ventricle", "upper lobe", "vena cava",
     "tumor", "artery", "lung (edited)", "lungs and heart", "not lung", "rib left 1 1", "1", "?", "PV"],
)  # fmt: skip
def test_ambiguous_names_are_nobodys(name):
    assert match(None, name, name) is None


@pytest.mark.parametrize(
    ("name", "structure"),
    [("Lungs", "lung"), ("LV", "heart_ventricle_left"), ("rv", "heart_ventricle_right"),
     ("Aorta asc", "aorta_ascending"), ("pulmonary nodule", "lung_nodules"),
     ("LeftLung", "lung_left"), ("lung-left", "lung_left"), ("Lung L", "lung_left"), ("Linke Lunge", "lung_left"),
     ("poumon droit", "lung_right"), ("KÖRPER", "body"), ("Wirbelsäule", "vertebrae"), ("RUL", "lung_upper_lobe_right"),
     ("left 3rd", None), ("rib L3", "rib_left_3"), ("BWK12", "vertebrae_T12"), ("SVC", "superior_vena_cava"),
     ("EXTERNAL", "body"), ("kidneys", "kidney"), ("Myokard", "heart_myocardium")],
)  # fmt: skip
def test_what_people_write(name, structure):
    found = match(name=name)
    assert (found.structure if found else None) == structure


def test_names_of_a_model_win_over_aliases():
    assert match(name="Nodule", wanted=["nodule"]).structure == "nodule"
    assert match(name="My Lesion", wanted=["my_lesion"]).how == "name"


@given(st.text())
def test_normalised_names_are_stable(text):
    once = normalized(text)
    assert normalized(once) == once
    assert normalized(f" {text}_") == once


@given(st.text(), st.text(), st.text())
def test_nothing_from_outside_breaks_the_matching(terminology, segment_id, name):
    match(terminology, segment_id, name)


def test_five_lobes_make_the_lung():
    given_ = conditions_of(*LUNG_LOBES)
    built, unused, missing = assemble(given_, ["body", "lung"])
    assert built.names == ["lung"] and unused == [] and missing == ["body"]
    assert built["lung"].sum() == 5
    assert VOCABULARY.plan(given_.names, ["lung"]).incomplete == {}


def test_missing_lobes_are_said():
    plan = VOCABULARY.plan(["Left lung", "RUL"], ["lung"])
    assert plan.sources == {"lung": ("Left lung", "RUL")}
    assert plan.incomplete == {"lung": ("lung_middle_lobe_right", "lung_lower_lobe_right")}
    assert VOCABULARY.plan(["lung_left"], ["lung"]).incomplete == {"lung": ("lung_right",)}


def test_bones_need_not_be_complete():
    plan = VOCABULARY.plan(["rib_left_3", "vertebrae_T4", "costal_cartilages", "scapula_left"], ["bone"])
    assert plan.sources == {"bone": ("rib_left_3", "vertebrae_T4", "scapula_left")}
    assert plan.unused == ["costal_cartilages"] and plan.incomplete == {}


def test_a_whole_wins_over_its_parts_and_a_part_serves_twice():
    plan = VOCABULARY.plan(["lung", *LUNG_LOBES], ["lung", "lung_upper_lobe_left"])
    assert plan.sources == {"lung": ("lung",), "lung_upper_lobe_left": ("lung_upper_lobe_left",)}
    assert plan.unused == LUNG_LOBES[1:]
    both = assemble(conditions_of(*LUNG_LOBES), ["lung_left", "lung", "lung_lower_lobe_left"])[0]
    assert {name: int(mask.sum()) for name, mask in both.masks.items()} == {
        "lung_left": 2,
        "lung": 5,
        "lung_lower_lobe_left": 1,
    }


def test_names_of_one_structure_are_united_in_the_models_order():
    built, unused, missing = assemble(conditions_of("Aorta", "aorta asc", "spleen", "BODY"), MODEL)
    assert built.names == ["body", "aorta"] and unused == ["aorta asc", "spleen"]
    assert missing == [name for name in MODEL if name not in ("body", "aorta")]
    two = assemble(conditions_of("nodule", "pulmonary nodules"), ["lung_nodules"])[0]
    assert two["lung_nodules"].sum() == 2


def test_a_phantom_makes_all_conditions_of_the_bundled_model():
    plan = VOCABULARY.plan([*labels.NAMES, *labels.FLAGS], MODEL)
    assert plan.missing == [] and plan.incomplete == {}
    assert set(plan.sources["bone"]) == set(labels.BONES) and set(plan.sources["lung"]) == set(labels.LOBES)


def test_a_models_own_words_find_structures_of_the_vocabulary():
    assert VOCABULARY.plan(LUNG_LOBES, ["lungs"]).sources == {"lungs": tuple(LUNG_LOBES)}
    assert VOCABULARY.plan(["thing"], ["thing", "other"]).missing == ["other"]


def test_nothing_that_matches_is_an_error_in_words():
    with pytest.raises(InputError, match="given were Segment_1, Left; the model takes body, lung") as error:
        assemble(conditions_of("Segment_1", "Left"), ["body", "lung"])
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="given were nothing"):
        assemble(Conditions(Grid.centered((1, 1, 1), (1, 1, 1)), {}), ["body"])


def entry(name: str, **fields) -> dict:
    """A minimal entry of a vocabulary file."""
    return {"name": name, "display": name.capitalize(), "color": [1, 2, 3], **fields}


@pytest.mark.parametrize(
    ("structures", "reason"),
    [
        ([entry("a"), entry("a")], "'a' twice"),
        ([entry("a", aliases=["x"]), entry("b", aliases=["X "])], "both 'a' and 'b'"),
        ([entry("a", aliases=["B"]), entry("b")], "name of another"),
        ([entry("a", parts=["b"]), entry("b", parts=["a"])], "a > b > a"),
        ([entry("a", parts=["c"])], "a > c"),
        ([{"name": "a"}], "damaged"),
    ],
)
def test_a_vocabulary_that_contradicts_itself_is_refused(tmp_path, structures, reason):
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps({"structures": structures}), encoding="utf-8")
    with pytest.raises(EngineError, match=reason):
        read_vocabulary(path)


def test_the_shipped_file_is_read_once():
    assert load_vocabulary() is VOCABULARY
    assert (resource_folder() / "vocabulary.json").stat().st_size < 200_000
