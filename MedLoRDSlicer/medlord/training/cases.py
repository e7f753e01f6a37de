"""Training cases: a CT and its condition masks on the model's grid, one small file each.

`prepare_phantoms` makes them from seeds, `prepare_files` from an engineer's own CT and masks. Training only
ever reads cases, so both kinds of data take one road. A case file is a NumPy archive without pickles:
`image` int16 HU [i, j, k], `masks` (conditions, packed bits), `attributes` and `conditions` as JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..conditions import Conditions
from ..errors import InputError
from ..progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from ..volume_files import load_volume, write_atomically
from ..volumes import AIR_HU, Grid, Volume, require_ct, resample_volume
from .data_settings import files_of


@dataclass
class Case:
    """One training case on the model's grid: HU and masks [i, j, k], attributes such as the contrast phase."""

    image_hu: np.ndarray
    masks: np.ndarray
    conditions: list[str]
    attributes: dict[str, str]


def to_network(hu: np.ndarray, window_hu: tuple[float, float]) -> np.ndarray:
    """HU -> network intensity float32: `window_hu` (low, high) becomes [-1, 1], what lies outside is clipped."""
    low, high = window_hu
    return (np.clip(hu, low, high).astype(np.float32) - (low + high) / 2) / ((high - low) / 2)


def save_case(path: Path, volume: Volume, conditions: Conditions, attributes: dict[str, str]) -> None:
    """Write one case file; HU are rounded to int16, none is clipped below that range."""
    limits = np.iinfo(np.int16)
    masks = np.stack([np.packbits(mask) for mask in conditions.masks.values()])
    write_atomically(
        path,
        lambda temporary: _write_archive(
            temporary,
            image=np.clip(np.rint(volume.array), limits.min, limits.max).astype(np.int16),
            masks=masks,
            conditions=np.array(json.dumps(conditions.names)),
            attributes=np.array(json.dumps(attributes)),
        ),
    )


def _write_archive(path: Path, **arrays: np.ndarray) -> None:
    with path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def load_case(path: Path) -> Case:
    """Read what `save_case` wrote."""
    with np.load(path, allow_pickle=False) as archive:
        image = archive["image"]
        names = json.loads(str(archive["conditions"]))
        packed = archive["masks"]
        attributes = json.loads(str(archive["attributes"]))
    masks = np.unpackbits(packed, axis=1, count=image.size).reshape(len(names), *image.shape).astype(bool)
    return Case(image, masks, names, attributes)


def list_cases(folder: Path) -> list[Path]:
    """The case files of `folder` in order; raises `InputError` when there is none."""
    cases = sorted(folder.glob("*.npz"))
    if not cases:
        raise InputError(f"There is no prepared case (*.npz) in {folder}; run the preparation first.")
    return cases


def prepare_phantoms(
    folder: Path,
    seeds: Sequence[int],
    grid: Grid,
    conditions: Sequence[str],
    *,
    truncated_share: float = 0.0,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> None:
    """Make one case per seed from the thorax phantom; existing files stay, so a killed preparation goes on.

    A `truncated_share` of the cases loses slices at the ends (air in the CT, empty masks), as a scan that covers
    less than the grid; all cases are shifted by up to 20 mm, since users' segmentations are not centred alike.
    """
    from ..phantom import make_phantom

    folder.mkdir(parents=True, exist_ok=True)
    clock = PhaseClock("prepare", len(seeds), progress)
    for number, seed in enumerate(seeds, start=1):
        raise_if_cancelled(cancel, f"preparation of case {number} of {len(seeds)}")
        path = folder / f"phantom_{seed:06d}.npz"
        if not path.exists():
            draw = np.random.default_rng([seed, 77])
            shift = draw.uniform(-1, 1, 3) * (12.0, 12.0, 20.0)
            phantom = make_phantom(seed, _moved(grid, shift))
            masks = {name: phantom.conditions[name] for name in conditions}
            case = Conditions(phantom.volume.grid, masks)
            if draw.random() < truncated_share:
                _truncate(phantom.volume, case, draw)
            save_case(path, phantom.volume, case, {"contrast_phase": phantom.parameters.contrast_phase})
        clock.report(number)


def _truncate(volume: Volume, conditions: Conditions, draw: np.random.Generator) -> None:
    """Empty the slices beyond a shorter scan range (in place)."""
    # The axis that runs from the feet to the head, first or last in some orientations.
    axis = int(np.argmax(np.abs(volume.grid.affine[2, :3])))
    depth = volume.grid.shape[axis]
    low, high = draw.integers(0, depth // 4 + 1, 2)
    outside = np.ones(depth, dtype=bool)
    outside[low : depth - high] = False
    np.moveaxis(volume.array, axis, 0)[outside] = AIR_HU
    for mask in conditions.masks.values():
        np.moveaxis(mask, axis, 0)[outside] = False


def prepare_files(
    folder: Path,
    cases: Sequence[dict],
    grid: Grid,
    conditions: Sequence[str],
    *,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
    place: Callable[[Volume], Grid] | None = None,
) -> None:
    """Make cases from files: each entry {"ct": FILE, "conditions": {name: FILE}, "attributes": {...}}.

    CT and masks are resampled to the model's spacing on a grid centred on the CT (or what `place` answers);
    conditions that an entry lacks become empty masks. Raises `InputError` for unknown names, files that are no CT and,
    before the first case is made, files that do not exist.
    """
    missing = [path for entry in cases for path in files_of(entry) if not path.is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} files of the cases do not exist, the first is {missing[0]}; correct the paths, which are "
            "relative to where this command was started."
        )
    folder.mkdir(parents=True, exist_ok=True)
    clock = PhaseClock("prepare", len(cases), progress)
    for number, entry in enumerate(cases, start=1):
        raise_if_cancelled(cancel, f"preparation of case {number} of {len(cases)}")
        path = folder / f"case_{number:06d}.npz"
        if not path.exists():
            given = entry.get("conditions") or {}
            unknown = set(given) - set(conditions)
            if unknown:
                raise InputError(
                    f"Case {number} has unknown conditions {sorted(unknown)}; known are {list(conditions)}."
                )
            volume = load_volume(entry["ct"])
            require_ct(volume, f"The CT of case {number}")
            target = place(volume) if place else _moved(grid, volume.grid.center_ras_mm)
            masks = {name: np.zeros(grid.shape, dtype=bool) for name in conditions}
            if given:
                masks.update(Conditions.load(given).resampled(target).masks)
            image = resample_volume(volume, target)
            save_case(path, image, Conditions(target, masks), dict(entry.get("attributes") or {}))
        clock.report(number)


def _moved(grid: Grid, center_ras_mm: np.ndarray) -> Grid:
    """`grid` with its middle at `center_ras_mm`; shape, spacing and directions stay."""
    affine = grid.affine.copy()
    affine[:3, 3] += np.asarray(center_ras_mm) - grid.center_ras_mm
    return Grid(grid.shape, affine)
