"""Slicer stays usable: what a run with the real worker and the bundled model takes of the main thread."""

from __future__ import annotations

import time
from collections.abc import Callable

from panel_building import PATIENCE_S, process_events
from support.fake_worker import fake_engine

LONGEST_S = 0.05


class MainThread:
    """Measures how long the event loop was kept, turn by turn.

    Processor time of this thread, since wall time says more about what else the machine does; what is slow for other
    reasons (disk, other processes) is kept out of the panel by its design and shows in `longest_wall_s`.
    """

    def __init__(self):
        self.longest_s = self.longest_wall_s = 0.0
        self.turns = 0

    def do(self, action: Callable[[], object]) -> None:
        """Measure one turn."""
        wall, own = time.perf_counter(), time.thread_time()
        action()
        self.longest_s = max(self.longest_s, time.thread_time() - own)
        self.longest_wall_s = max(self.longest_wall_s, time.perf_counter() - wall)
        self.turns += 1

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Process events until something happens."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            self.do(process_events)
            time.sleep(0.002)


def longest_turn(opened, steps: int) -> MainThread:
    """Make two CTs of the sample from the panel; how long the event loop was kept from the click on."""
    panel, ui = opened.panel, opened.ui
    ui.sampleButton.click()
    MainThread().wait_until(lambda: not panel.inputs.busy)
    opened.settle()
    ui.stepsSpinBox.value, ui.samplesSpinBox.value = steps, 2
    process_events()

    main = MainThread()
    previews = []
    main.do(ui.runButton.click)
    main.wait_until(lambda: previews.append(ui.previewLabel.visible) or not panel.queue.busy)

    assert [entry.state for entry in panel.queue.entries] == ["finished", "finished"]
    assert any(previews), "the live preview was shown"
    print(
        f"longest turn {1000 * main.longest_s:.1f} ms of {main.turns}; wall {1000 * main.longest_wall_s:.1f} ms"
    )
    return main


def test_the_panel_never_keeps_the_main_thread(scene, open_panel):
    """Masks and volumes as large as the bundled model's, without the time that the model needs."""
    engine = fake_engine("good", pause_s=0.1)
    try:
        assert longest_turn(open_panel("thorax-phantom", engine), steps=4).longest_s < LONGEST_S
    finally:
        engine.close()


def test_a_run_of_the_bundled_model_never_keeps_the_main_thread(scene, open_panel):
    assert longest_turn(open_panel("thorax-phantom"), steps=4).longest_s < LONGEST_S
