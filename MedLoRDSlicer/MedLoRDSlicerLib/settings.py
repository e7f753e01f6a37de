"""What belongs to this computer and not to a scene: kept in the application's settings (QSettings)."""

from __future__ import annotations

from collections.abc import Iterable

from .headless import in_slicer_application

PREFIX = "MedLoRD/"
PYTHON = PREFIX + "EnginePython"
DEVICE = PREFIX + "Device"
MODEL_FOLDER = PREFIX + "ModelFolder"
LICENCES = PREFIX + "AcceptedLicences"
SEGMENTER_WEIGHTS = PREFIX + "TotalSegmentatorWeights"
SEGMENTER_LICENCE_KEY = PREFIX + "TotalSegmentatorLicenceKey"
PENDING_INSTALLATION = PREFIX + "PendingInstallation"
AUTOMATIC_DEVICE = "auto"


def _store():
    """The application's settings; on plain Python without Qt there are none."""
    import qt

    return qt.QSettings()


class MachineSettings:
    """Typed access to the settings. `store` has `value(key, default)` and `setValue(key, value)`.

    QSettings gives a tuple for a list and text for a number that an earlier session wrote, so everything is kept as
    text and converted here.
    """

    def __init__(self, store=None):
        self._given = store

    @property
    def engine_python(self) -> str:
        """Path of the Python that runs the engine; empty for Slicer's own."""
        return self._read(PYTHON)

    @engine_python.setter
    def engine_python(self, path: str) -> None:
        self._write(PYTHON, path)

    @property
    def device(self) -> str:
        """Where the engine computes: "auto", "cpu", "cuda:0", ..."""
        return self._read(DEVICE) or AUTOMATIC_DEVICE

    @device.setter
    def device(self, name: str) -> None:
        self._write(DEVICE, name)

    @property
    def model_folder(self) -> str:
        """A folder with more models beside the bundled and the user's own; empty for none."""
        return self._read(MODEL_FOLDER)

    @model_folder.setter
    def model_folder(self, path: str) -> None:
        self._write(MODEL_FOLDER, path)

    @property
    def accepted_licences(self) -> tuple[str, ...]:
        """What was accepted, as "model licence" each."""
        return tuple(line for line in self._read(LICENCES).split("\n") if line)

    @accepted_licences.setter
    def accepted_licences(self, entries: Iterable[str]) -> None:
        self._write(LICENCES, "\n".join(dict.fromkeys(entries)))

    @property
    def segmenter_weights(self) -> str:
        """A folder with TotalSegmentator's weights; empty for TotalSegmentator's own."""
        return self._read(SEGMENTER_WEIGHTS)

    @segmenter_weights.setter
    def segmenter_weights(self, path: str) -> None:
        self._write(SEGMENTER_WEIGHTS, path)

    @property
    def segmenter_licence_key(self) -> str:
        """The user's own licence key of TotalSegmentator; empty for none. It belongs into no scene and no log."""
        return self._read(SEGMENTER_LICENCE_KEY)

    @segmenter_licence_key.setter
    def segmenter_licence_key(self, key: str) -> None:
        self._write(SEGMENTER_LICENCE_KEY, key)

    @property
    def installation_pending(self) -> bool:
        """True from the begin of an installation to its end, across a restart in between."""
        return self._read(PENDING_INSTALLATION) == "1"

    @installation_pending.setter
    def installation_pending(self, pending: bool) -> None:
        self._write(PENDING_INSTALLATION, "1" if pending else "")

    def _read(self, key: str) -> str:
        return str(self._settings().value(key, "") or "")

    def _write(self, key: str, text: str) -> None:
        self._settings().setValue(key, text or "")

    def _settings(self):
        return self._given if self._given is not None else _store()


class NoSettings:
    """Stands for the settings on plain Python, where nothing is kept."""

    def value(self, key: str, default: str = "") -> str:
        """Always the default."""
        return default

    def setValue(self, key: str, value: str) -> None:
        """Nothing is kept."""


def machine_settings() -> MachineSettings:
    """The settings of this program: the application's in Slicer, none on plain Python."""
    return MachineSettings(None if in_slicer_application() else NoSettings())
