"""Models that stay in memory between runs: a worker's, or those of one command that makes several volumes."""

from __future__ import annotations

import gc
import sys
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..memory.planner import stored_bytes
from .bundle import ModelBundle, load_bundle

if TYPE_CHECKING:
    import torch

# Two models at most: a person compares a model with another one; more would fill the device for nothing.
_KEPT_MODELS = 2


@dataclass(frozen=True)
class _Place:
    """A bundle's folder and the device that its networks are on."""

    folder: str
    device: str


class LoadedModels:
    """Keeps the models that runs loaded, the least recently used one first to go.

    A model is given out only while its files are those that were loaded. `loads` counts how often one was loaded. Not
    for several threads at once.
    """

    def __init__(self):
        self.loads = 0
        self._kept: OrderedDict[_Place, tuple[tuple, ModelBundle]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def places(self) -> list[tuple[Path, str]]:
        """(folder, device) of every model, the least recently used one first."""
        return [(Path(place.folder), place.device) for place in self._kept]

    def get(self, folder: Path, device: torch.device) -> ModelBundle | None:
        """The model of the bundle `folder` on `device`, None when it is not here or its files were replaced."""
        place = _Place(str(folder), str(device))
        fingerprint, bundle = self._kept.get(place, (None, None))
        if bundle is None or fingerprint != _fingerprint(folder):
            return None
        self._kept.move_to_end(place)
        return bundle

    def make_room(self, folder: Path, device: torch.device) -> None:
        """Free what the loading of this model will replace: itself with other files, the oldest of too many."""
        self.forget(folder, device)
        while len(self._kept) >= _KEPT_MODELS:
            self._kept.popitem(last=False)
        release_memory()

    def forget(self, folder: Path, device: torch.device) -> None:
        """Free this model, whose files were replaced."""
        self._kept.pop(_Place(str(folder), str(device)), None)

    def load(self, folder: Path, device: torch.device) -> ModelBundle:
        """Load the model of the bundle `folder` and keep it; raises what `load_bundle` raises."""
        self.make_room(folder, device)
        fingerprint = _fingerprint(folder)
        bundle = load_bundle(folder, device)
        self.loads += 1
        self._kept[_Place(str(folder), str(device))] = (fingerprint, bundle)
        return bundle

    def bytes_beside(self, folder: Path, device: torch.device) -> int:
        """Bytes on `device` of all models but this one: what `free_beside` would give back."""
        bundles = [self._kept[place][1] for place in self._beside(folder, device)]
        networks = [network for bundle in bundles for network in bundle.networks.values()]
        return sum(map(stored_bytes, networks))

    def free_beside(self, folder: Path, device: torch.device) -> int:
        """Free all models on `device` but this one; returns how many there were."""
        others = self._beside(folder, device)
        for place in others:
            del self._kept[place]
        release_memory()
        return len(others)

    def clear(self) -> int:
        """Free all models; returns how many there were."""
        count = len(self._kept)
        self._kept.clear()
        release_memory()
        return count

    def _beside(self, folder: Path, device: torch.device) -> list[_Place]:
        return [place for place in self._kept if place.device == str(device) and place.folder != str(folder)]


def release_memory() -> None:
    """Give freed memory back to the device."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _fingerprint(folder: Path) -> tuple:
    """What changes when the files of a model are replaced, so that the old one never answers for the new."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json", ".pt"))
    found = [(path.relative_to(folder), path.stat()) for path in files]
    # The time of the last change of the entry as well: copying and unpacking often keep the time of the content.
    return tuple((path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for path, stat in found)
