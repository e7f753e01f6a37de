"""Looks at the files of volumes that come into the scene: a synthetic one may have been loaded alone."""

from __future__ import annotations

from collections.abc import Callable

from ..file_recipes import adopt_recipe
from .timers import end_timer, make_timer
from .watching import Watch

# A node is added before it is told where its file lies.
_LOOK_AFTER_MS = 200
_KIND = "vtkMRMLScalarVolumeNode"


class FileWatch:
    """Looks at volumes that come into `scene`; `adopted` is called when some of them got their recipe back."""

    def __init__(self, scene, adopted: Callable[[], None]):
        self._scene, self._adopted = scene, adopted
        self._looked_at: set[tuple[str, str]] = set()
        self._soon = make_timer(_LOOK_AFTER_MS, self.look, single_shot=True)
        self._watch = Watch(self._on_added)
        self._watch.on(scene, (scene.NodeAddedEvent,))

    def look(self) -> None:
        """Look at every volume whose file was not looked at yet."""
        present, found = set(), False
        for number in range(self._scene.GetNumberOfNodesByClass(_KIND)):
            node = self._scene.GetNthNodeByClass(number, _KIND)
            storage = node.GetStorageNode()
            key = (node.GetID(), storage.GetFileName() or "" if storage is not None else "")
            present.add(key)
            if key[1] and key not in self._looked_at:
                found = adopt_recipe(node) or found
        self._looked_at = present
        if found:
            self._adopted()

    def cleanup(self) -> None:
        """Follow the scene no longer."""
        self._watch.on(None, ())
        end_timer(self._soon)

    def _on_added(self, caller=None, event=None) -> None:
        self._soon.start()
