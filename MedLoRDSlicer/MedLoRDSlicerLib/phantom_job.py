"""A phantom on its way into the scene: painted by another process, added when it is ready."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medlord import exchange
from medlord.conditions import Conditions
from medlord.errors import CancelledError, EngineError, MedlordError
from medlord.processes import find_python, kill_tree, start_process, worker_environment
from medlord.volumes import Grid, Volume

from .installation import engine_environment
from .run import CANCELLED, DROPPED, FAILED, FINISHED, RUNNING

_WAIT_S = 0.02


class PhantomJob:
    """Paints a phantom in a subprocess and hands its CT and masks to `deliver`, which adds nodes and returns them.

    state   "running", "finished", "failed" (see `error`), "cancelled", or "dropped": the scene was closed meanwhile
    nodes   what `deliver` returned, once finished

    Call `poll` from a timer until `done`. `grid` is where the phantom is drawn (its middle is the origin of world
    space), `structures` names its masks, `overrides` are parameters of the phantom. `python` runs it (default: the
    running one; numpy and scipy are all it needs).
    """

    def __init__(
        self,
        scene,
        seed: int,
        grid: Grid,
        structures: Sequence[str],
        deliver: Callable[[Volume, Conditions], Any],
        *,
        python: str | None = None,
        **overrides: Any,
    ):
        self.state = RUNNING
        self.error: MedlordError | None = None
        self.nodes: Any = None
        self._scene, self._deliver = scene, deliver
        program = find_python(python)
        self._folder = Path(tempfile.mkdtemp(prefix="medlord-phantom-"))
        request = self._folder / "request.json"
        exchange.write_json(
            request,
            {
                "seed": seed,
                "grid": grid.to_dict(),
                "structures": list(structures),
                "overrides": overrides,
                "folder": str(self._folder),
            },
        )
        command = [program, "-m", "MedLoRDSlicerLib.phantom_process", str(request)]
        base = os.environ if python is None else engine_environment()
        environment = worker_environment(base, program)
        self._process: subprocess.Popen = start_process(command, environment, str(self._folder))
        self._observation = scene.AddObserver(scene.StartCloseEvent, self._on_scene_closed)

    @property
    def done(self) -> bool:
        """True when nothing more will happen."""
        return self.state != RUNNING

    def poll(self) -> None:
        """Look whether the phantom is ready, without waiting; then it is added to the scene."""
        if self.done or self._process.poll() is None:
            return
        try:
            if self._process.returncode != 0:
                raise EngineError(
                    f"The phantom could not be made ({_last_line(self._process)}); report it with this text."
                )
            volume = exchange.read_volume(self._folder / "volume.npz")
            conditions = exchange.read_conditions(self._folder / "conditions.npz")
            self.nodes = self._deliver(volume, conditions)
        except MedlordError as error:
            self._end(FAILED, error)
        except BaseException as error:
            self._end(FAILED, EngineError(f"The phantom could not be put into the scene: {error!r}."))
            raise
        else:
            self._end(FINISHED, None)

    def cancel(self) -> None:
        """Stop it; nothing is added to the scene."""
        if not self.done:
            self._end(CANCELLED, CancelledError("The phantom was cancelled; nothing was added to the scene."))

    def wait(self, idle: Callable[[], None] | None = None):
        """Wait for the end and return the nodes; `idle` is called about 50 times a second. Raises its error."""
        try:
            while not self.done:
                self.poll()
                if idle is not None:
                    idle()
                if not self.done:
                    time.sleep(_WAIT_S)
        finally:
            self.cancel()
        if self.error is not None:
            raise self.error
        return self.nodes

    def _on_scene_closed(self, caller=None, event=None) -> None:
        if not self.done:
            self._end(
                DROPPED, CancelledError("The scene was closed before the phantom was ready; it was dropped.")
            )

    def _end(self, state: str, error: MedlordError | None) -> None:
        self.state, self.error = state, error
        self._scene.RemoveObserver(self._observation)
        if self._process.poll() is None:
            kill_tree(self._process)
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _last_line(process: subprocess.Popen) -> str:
    """The last thing that a process wrote to its log, or how it ended."""
    lines = process.stderr.read().decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else f"exit status {process.returncode}"
