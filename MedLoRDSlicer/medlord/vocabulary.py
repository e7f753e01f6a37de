"""Names of structures: what a segment is, and which structures a condition of a model can be built from.

The data is `Resources/vocabulary.json`: TotalSegmentator class names where one exists, SNOMED CT codes as
3D Slicer writes them, what people and other programs call the same thing, and which structures are unions of
others.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from .conditions import Conditions
from .errors import EngineError, InputError
from .resources import resource_folder

Triplet = tuple[str, str, str]
TermKey = tuple[str, str, str, str]

SEGMENTATION_CONTEXT = "Segmentation category and type - DICOM master list"
REGION_CONTEXT = "Anatomic codes - DICOM master list"


@dataclass(frozen=True)
class Term:
    """A coded meaning in the fields of Slicer's terminology tag; triplets are (scheme, code, meaning)."""

    category: Triplet
    type: Triplet
    modifier: Triplet | None = None
    region: Triplet | None = None
    region_modifier: Triplet | None = None

    @property
    def key(self) -> TermKey:
        """What terms of one meaning share: codes of type, modifier, region, region modifier ("" for none)."""
        return tuple(
            f"{triplet[0]}^{triplet[1]}" if triplet else ""
            for triplet in (self.type, self.modifier, self.region, self.region_modifier)
        )

    def tag(self) -> str:
        """The seven fields of Slicer's `TerminologyEntry` tag, joined by `~`, triplets by `^`."""
        written = ["^".join(t) if t else "^^" for t in (self.category, self.type, self.modifier)]
        regions = ["^".join(t) if t else "^^" for t in (self.region, self.region_modifier)]
        return "~".join([SEGMENTATION_CONTEXT, *written, REGION_CONTEXT, *regions])

    @classmethod
    def parse(cls, tag: str) -> Term | None:
        """Read a tag (context~category~type~modifier~context~region~region modifier); None without a type."""
        fields = (tag.split("~") + [""] * 7)[:7]
        category, kind, modifier, region, region_modifier = (_triplet(fields[n]) for n in (1, 2, 3, 5, 6))
        if kind is None:
            return None
        return cls(category or ("", "", ""), kind, modifier, region, region_modifier)


def _triplet(text: str) -> Triplet | None:
    parts = [part.strip() for part in text.split("^")]
    if len(parts) < 2 or not parts[0] or not parts[1]:
        return None
    return parts[0].upper(), parts[1], parts[2] if len(parts) > 2 else ""


@dataclass(frozen=True)
class Structure:
    """One structure: `terms` (the first is written, all are understood), RGB `color` 0..255, `parts`."""

    name: str
    display: str
    color: tuple[int, int, int]
    terms: tuple[Term, ...] = ()
    aliases: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    parts_may_be_absent: bool = False

    @property
    def terminology(self) -> str | None:
        """Slicer's `TerminologyEntry` tag of this structure, None where no confirmed code exists."""
        return self.terms[0].tag() if self.terms else None

    @property
    def snomed(self) -> Triplet | None:
        """(scheme, code, meaning) of the type alone, without side or region."""
        return self.terms[0].type if self.terms else None


@dataclass(frozen=True)
class Match:
    """The structure that a segment is, and what told it: "terminology", "id", "name" or "alias"."""

    structure: str
    how: str


@dataclass(frozen=True)
class Plan:
    """How conditions can be made from what is there.

    `sources`: condition -> the given names it is the union of; `unused`: given names that serve nothing;
    `missing`: conditions without any source; `incomplete`: condition -> structures that usually belong to it
    and are not there.
    """

    sources: dict[str, tuple[str, ...]]
    unused: list[str]
    missing: list[str]
    incomplete: dict[str, tuple[str, ...]] = field(default_factory=dict)


def normalized(text: str) -> str:
    """The form in which names are compared: no case, accents, spaces, hyphens, underscores, dots.

    Digits stay apart ("rib 1 1" is not "rib 11").
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    words = "".join(c if c.isalnum() else " " for c in plain).split()
    joined = ""
    for word in words:
        joined += (" " if joined and joined[-1].isdigit() and word[0].isdigit() else "") + word
    return joined


class Vocabulary:
    """All structures by name, and the rules by which segments are recognised and conditions assembled."""

    def __init__(self, structures: Iterable[Structure]):
        self.structures: dict[str, Structure] = {}
        self._by_name: dict[str, str] = {}
        self._by_alias: dict[str, str] = {}
        self._by_term: dict[TermKey, list[str]] = {}
        for structure in structures:
            if structure.name in self.structures:
                raise EngineError(f"The vocabulary names '{structure.name}' twice; keep one entry.")
            self.structures[structure.name] = structure
        for structure in self.structures.values():
            self._add(self._by_name, structure.name, structure.name)
            for term in structure.terms:
                self._by_term.setdefault(term.key, []).append(structure.name)
        for structure in self.structures.values():
            for alias in (structure.display, *structure.aliases):
                if self._by_name.get(normalized(alias), structure.name) != structure.name:
                    raise EngineError(
                        f"The alias '{alias}' of '{structure.name}' is the name of another structure."
                    )
                self._add(self._by_alias, alias, structure.name)
        for name in self.structures:
            self._check_parts(name, ())

    @staticmethod
    def _add(table: dict[str, str], text: str, name: str) -> None:
        other = table.setdefault(normalized(text), name)
        if other != name:
            raise EngineError(
                f"The vocabulary calls both '{other}' and '{name}' by '{text}'; keep it for one."
            )

    def _check_parts(self, name: str, above: tuple[str, ...]) -> None:
        if name not in self.structures or name in above:
            raise EngineError(
                f"The vocabulary's parts are unknown or a circle at {' > '.join((*above, name))}."
            )
        for part in self.structures[name].parts:
            self._check_parts(part, (*above, name))

    def __getitem__(self, name: str) -> Structure:
        return self.structures[name]

    def __contains__(self, name: object) -> bool:
        return name in self.structures

    def match(
        self,
        terminology: str | None = None,
        segment_id: str | None = None,
        name: str | None = None,
        wanted: Sequence[str] = (),
    ) -> Match | None:
        """Which structure a segment is, or None when nothing tells for certain.

        Asked in this order: `terminology` (Slicer's `TerminologyEntry` tag, code with modifier and region),
        `segment_id`, exact `name`, alias table. `wanted` adds names that only a model knows. A code without a
        side ("upper lobe of lung") or a name such as "Left" is nobody's. Where the code leaves a choice
        (lung) and id or name say which part of it (lung_left), the part is taken: both agree and one says
        more.
        """
        texts = self._match_text(segment_id, name, wanted)
        candidates = self._candidates(terminology)
        if not candidates:
            return texts
        if texts and (texts.structure in candidates or texts.structure in self.parts_below(candidates[0])):
            return texts if texts.structure != candidates[0] else Match(candidates[0], "terminology")
        return Match(candidates[0], "terminology")

    def _candidates(self, terminology: str | None) -> list[str]:
        term = Term.parse(terminology) if terminology else None
        if term is None:
            return []
        found = self._by_term.get(term.key)
        if not found and term.region and not term.region_modifier:
            # "Rib" in the region "Thorax" is a rib; what its region names (a cyst) has no entry without one.
            found = self._by_term.get((*term.key[:2], "", ""))
        return found or []

    def _match_text(self, segment_id: str | None, name: str | None, wanted: Sequence[str]) -> Match | None:
        own = {normalized(text): text for text in wanted}
        for text, how in ((segment_id, "id"), (name, "name")):
            key = normalized(text or "")
            if key and (key in own or key in self._by_name):
                return Match(own.get(key) or self._by_name[key], how)
        for text in (name, segment_id):
            key = normalized(text or "")
            if key in self._by_alias:
                return Match(self._by_alias[key], "alias")
        return None

    def parts_below(self, name: str) -> list[str]:
        """Names of all parts of a structure, of its parts, and so on; empty for an unknown name."""
        below = []
        for part in self.structures[name].parts if name in self.structures else ():
            below += [part, *self.parts_below(part)]
        return below

    def plan(self, given: Sequence[str], wanted: Sequence[str]) -> Plan:
        """Say which of the `given` names make which of the `wanted` conditions.

        A condition is the structure of that name where it was given, else the union of its parts
        (recursively). A structure may serve several conditions. Given names are recognised as `match` does by
        name.
        """
        available: dict[str, list[str]] = {}
        for text in given:
            match = self.match(name=text, wanted=wanted)
            if match:
                available.setdefault(match.structure, []).append(text)
        sources, missing, incomplete = {}, [], {}
        for condition in wanted:
            found, absent = self._find(condition, available)
            if found:
                sources[condition] = tuple(dict.fromkeys(text for name in found for text in available[name]))
            else:
                missing.append(condition)
            if found and absent:
                incomplete[condition] = tuple(absent)
        used = {text for texts in sources.values() for text in texts}
        return Plan(sources, [text for text in given if text not in used], missing, incomplete)

    def _find(self, name: str, available: Mapping[str, list[str]]) -> tuple[list[str], list[str]]:
        """(given structures that make `name`, structures that would belong to it and are not given)."""
        if name in available:
            return [name], []
        if name not in self.structures:
            alias = self._by_alias.get(normalized(name))
            return self._find(alias, available) if alias else ([], [name])
        structure = self.structures[name]
        found, absent = [], []
        for part in structure.parts:
            found_here, absent_here = self._find(part, available)
            found += found_here
            if not found_here and not structure.parts_may_be_absent:
                absent.append(part)
            elif found_here:
                absent += absent_here
        return found, absent

    def assemble(
        self, conditions: Conditions, wanted: Sequence[str]
    ) -> tuple[Conditions, list[str], list[str]]:
        """Build the conditions of a model from what is there, by the rules of `plan`.

        Returns (conditions in the order of `wanted`, given names that were not used, conditions missing).
        Missing conditions are left out. Raises `InputError` when nothing that was given serves any condition.
        """
        plan = self.plan(conditions.names, wanted)
        if not plan.sources:
            given = ", ".join(conditions.names) or "nothing"
            raise InputError(
                f"No segment matches a condition of the model: given were {given}; the model takes "
                f"{', '.join(wanted)}. Rename one of them, or in Slicer set its terminology."
            )
        masks = {
            condition: np.logical_or.reduce([conditions[text] for text in texts])
            for condition, texts in plan.sources.items()
        }
        return Conditions(conditions.grid, masks), plan.unused, plan.missing


def _term(data: Mapping[str, Sequence[str]]) -> Term:
    return Term(**{key: tuple(triplet) for key, triplet in data.items()})


def read_vocabulary(path: Path) -> Vocabulary:
    """Read a vocabulary file; raises `EngineError` when it is damaged or contradicts itself."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["structures"]
        structures = [
            Structure(
                name=entry["name"],
                display=entry["display"],
                color=tuple(entry["color"]),
                terms=tuple(_term(term) for term in entry.get("terminology", ())),
                aliases=tuple(entry.get("aliases", ())),
                parts=tuple(entry.get("parts", ())),
                parts_may_be_absent=entry.get("parts_may_be_absent", False),
            )
            for entry in entries
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(f"{path.name} is damaged ({error!r}); install MedLoRDSlicer again.") from error
    return Vocabulary(structures)


@lru_cache(maxsize=1)
def load_vocabulary() -> Vocabulary:
    """The shipped vocabulary (read once)."""
    return read_vocabulary(resource_folder() / "vocabulary.json")


def match(
    terminology: str | None = None,
    segment_id: str | None = None,
    name: str | None = None,
    wanted: Sequence[str] = (),
) -> Match | None:
    """`Vocabulary.match` of the shipped vocabulary."""
    return load_vocabulary().match(terminology, segment_id, name, wanted)


def assemble(conditions: Conditions, wanted: Sequence[str]) -> tuple[Conditions, list[str], list[str]]:
    """`Vocabulary.assemble` of the shipped vocabulary."""
    return load_vocabulary().assemble(conditions, wanted)
