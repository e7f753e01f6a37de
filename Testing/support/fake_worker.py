"""An engine process without torch: it speaks the protocol and behaves as a test asks, well or badly.

The test's side is `fake_engine(behaviour)`. The process's side is this file run as a program:
`python fake_worker.py BEHAVIOUR --folder DIR ...`. Behaviours:

    good            every kind of message, pictures, then a valid result (HU of 0 in the body, -1000 outside)
    out-of-memory   an error of that code in mid-run
    crash           the process kills itself in mid-run
    crash-once      the same at its first run, good when a new process is started (a file beside the folder tells)
    hang            neither works nor answers a cancel, ends on SIGTERM
    deaf            the same, and ignores SIGTERM too
    garbage         bytes that are no UTF-8, lines that are no JSON and messages of no known kind between good ones
    half-line       half a message, then the end
    wrong-result    reports success but the file of the volume is damaged
    no-torch        cannot start
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

STEPS = 4


def fake_engine(behaviour: str, *, pause_s: float = 0.0, **options):
    """A `MedLoRDSlicerLib.engine.Engine` whose worker is this file; `options` are those of `EngineClient`."""
    from medlord.client import EngineClient
    from medlord.processes import start_process
    from MedLoRDSlicerLib.engine import Engine

    def factory(arguments, environment, folder):
        command = [sys.executable, str(Path(__file__).resolve()), behaviour, f"--pause={pause_s}"]
        return start_process([*command, *arguments[3:]], dict(environment), folder)

    return Engine(lambda: EngineClient(process_factory=factory, start_timeout_s=900.0, **options))


class FakeWorker:
    """Answers requests until its stdin closes."""

    def __init__(self, behaviour: str, folder: Path, pause_s: float):
        self.behaviour, self.folder, self.pause_s = behaviour, folder, pause_s
        self.cancelled: set[str] = set()
        self.waiting: list[dict] = []
        self.wake = threading.Condition()

    def send(self, kind: str, message_id, **body) -> None:
        """Write one message."""
        self.write(json.dumps({"type": kind, "id": message_id, **body}).encode() + b"\n")

    def write(self, data: bytes) -> None:
        """Write bytes as they are."""
        os.write(1, data)

    def read(self) -> None:
        """Take requests; a cancel is noted at once."""
        for line in sys.stdin.buffer:
            request = json.loads(line)
            with self.wake:
                if request["verb"] == "cancel":
                    self.cancelled.add(request["arguments"]["job"])
                    self.send("result", request["id"], value={"found": True})
                else:
                    self.waiting.append(request)
                self.wake.notify()
        os._exit(0)

    def run(self) -> None:
        """Begin, then work on one request after the other."""
        if self.behaviour == "no-torch":
            self.send(
                "error",
                None,
                code="engine",
                message="This Python cannot load torch.",
                hint="",
                log=[],
                fatal=True,
            )
            os._exit(1)
        if self.behaviour == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        threading.Thread(target=self.read, daemon=True).start()
        self.send(
            "ready", None, protocol=1, pid=os.getpid(), python=sys.executable, versions={}, device="cpu"
        )
        while True:
            with self.wake:
                while not self.waiting:
                    self.wake.wait()
                request = self.waiting.pop(0)
            self.answer(request)

    def answer(self, request: dict) -> None:
        """Work on one request as the behaviour says."""
        if request["verb"] == "describe":
            device = {"name": "cpu", "kind": "processor", "free_bytes": 3 * 10**9, "total_bytes": 8 * 10**9}
            self.send("result", request["id"], value={"device": "cpu", "devices": [device], "versions": {}})
            return
        if request["verb"] == "estimate":
            self.send("result", request["id"], value=self.estimate(request["arguments"]))
            return
        print("fake engine: run begins, ünïcödé 顎", file=sys.stderr, flush=True)
        if self.behaviour == "garbage":
            self.write(b'\xff\xfe\x00 no text\n{"type": "progress"}\n[1, 2\nWarning: a library printed\n\n')
        for step in range(STEPS + 1):
            if request["id"] in self.cancelled:
                self.send("error", request["id"], code="cancelled", message="Cancelled.", hint="", log=[])
                return
            self.progress(request, step)
            time.sleep(self.pause_s)
            if step == 1 and self.misbehave(request):
                return
        lacking = self.lacking(request["arguments"])
        if lacking:
            self.send("error", request["id"], code="weights", message=lacking, hint="", log=[])
            return
        make = self.check_result if request["verb"] == "check" else self.result
        self.send("result", request["id"], value=make(request["arguments"]))

    def lacking(self, arguments: dict) -> str:
        """What TotalSegmentator would lack for a check, in the engine's own words; "" for nothing."""
        from medlord.evaluation.total_segmentator.process import LICENCE_HELP, LICENSED_TASKS

        name, _, task = str(arguments.get("segmenter")).partition(":")
        if name != "totalsegmentator":
            return ""
        if task in LICENSED_TASKS and not arguments.get("license_key"):
            return f"The task {task} cannot run: {LICENCE_HELP}."
        if arguments.get("download") or arguments.get("weights"):
            return ""
        return "The weights are not here: agree to 250 MB, Apache-2.0, with --download-weights."

    def estimate(self, arguments: dict) -> dict:
        """More with control than without; too much on a graphics card."""
        needed = 2 * 10**9 if arguments["control_scale"] else 10**9
        message = "The run needs 2.0 GB and 0 MB are free." if "cuda" in arguments["device"] else ""
        found = {"needed_bytes": needed, "free_bytes": 3 * 10**9, "loaded": False, "message": message}
        return {"device": "cpu", **found}

    def progress(self, request: dict, step: int) -> None:
        """One event; every step of denoising has a picture."""
        import numpy as np

        from medlord.exchange import write_preview

        phase = "denoise" if step else "load"
        picture = None
        if step:
            picture = Path(request["arguments"]["folder"]) / f"preview-{step:04d}.npy"
            rows = np.linspace(0, 255, 48).astype(np.uint8)
            write_preview(picture, np.roll(np.tile(rows, (32, 1)), step * 8, axis=1))
        total = STEPS if step else 1
        self.send(
            "progress", request["id"], phase=phase, step=step, total=total, elapsed_s=0.1 * step,
            eta_s=0.1 * (total - step), message="", preview=None if picture is None else str(picture),
        )  # fmt: skip

    def misbehave(self, request: dict) -> bool:
        """Do what is wrong with this worker; True when the request gets no more answers."""
        if self.behaviour == "out-of-memory":
            self.send(
                "error", request["id"], code="not-enough-memory", log=["allocating 40 GB"], hint="",
                message="The run needs 40.0 GB, the device has 8.0 GB free; choose another device.",
            )  # fmt: skip
            return True
        marker = self.folder.parent / "fake-worker-crashed"
        if self.behaviour == "crash" or (self.behaviour == "crash-once" and not marker.exists()):
            marker.touch()
            print("Segmentation fault in libfake.so", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if self.behaviour == "half-line":
            self.write(b'{"type": "result", "id": "1", "val')
            os._exit(0)
        while self.behaviour in ("hang", "deaf"):
            time.sleep(60)
        return False

    def result(self, arguments: dict) -> dict:
        """Write the files of a result on the grid of the masks, and say where they are."""
        import numpy as np

        from medlord.exchange import read_conditions, write_conditions, write_volume
        from medlord.recipe import Recipe, pack_conditions
        from medlord.volumes import Volume

        folder = Path(arguments["folder"])
        conditions = read_conditions(folder / "conditions.npz")
        recipe = Recipe(
            model=Path(arguments["model"]).name, model_version="1", weights_sha256={"models/a": "0"},
            conditions=pack_conditions(conditions), attributes=arguments.get("attributes") or {},
            seed=arguments.get("seed", 0), sampler=arguments.get("sampler", "sde-dpm-solver++"), steps=STEPS,
            control_scale=float(arguments.get("control_scale", 1.0)), guidance=1.0,
            grid=conditions.grid.to_dict(), precision="float32",
        )  # fmt: skip
        body = next(iter(conditions.masks.values()))
        hu = np.where(body, recipe.seed % 100, -1000).astype(np.int16)
        volume, masks = folder / "result-volume.npz", folder / "result-conditions.npz"
        write_volume(volume, Volume(hu, conditions.grid, recipe.to_dict()))
        write_conditions(masks, conditions)
        if self.behaviour == "wrong-result":
            volume.write_bytes(volume.read_bytes()[:100])
        timings = {"load": 0.1, "condition": 0.1, "denoise": 0.4, "decode": 0.1, "total": 0.7}
        return {
            "volume": str(volume), "conditions": str(masks), "timings_s": timings, "peak_memory_bytes": 2**20,
            "energy_kwh": None, "warnings": ["A warning of the engine."], "reused_model": False,
        }  # fmt: skip

    def check_result(self, arguments: dict) -> dict:
        """A scorecard that finds the body and misses the lung, in the form of `Scorecard.to_dict`."""
        from medlord.conditions import Conditions
        from medlord.exchange import read_volume, write_conditions, write_json

        folder = Path(arguments["folder"])
        volume = read_volume(folder / "volume.npz")
        middle = [float(value) for value in volume.grid.center_ras_mm]
        findings = [
            {"level": "amber", "topic": "image", "structure": None, "reason": "Noise is 0.0 HU."},
            {"level": "red", "topic": "adherence", "structure": "lung", "reason": "lung is missing."},
        ]
        row = {"hd95_mm": None, "surface_dice": 0.0, "found_ml": 0.0, "median_hu": 1.0}
        report = {
            "segmenter": arguments.get("segmenter") or "labelmap",
            "structures": [
                {**row, "name": "body", "dice": 0.99, "drawn_ml": 900.0, "hd95_mm": 2.0},
                {**row, "name": "lung", "dice": 0.0, "drawn_ml": 300.0},
            ],
            "notice": "Adherence is not clinical validity.",
            "contrast_phase": None,
            "verdict": {
                "level": "red",
                "meaning": "do not use it",
                "scope": "Compared with what was drawn: body, lung.",
                "findings": findings,
            },
            "regions": {"extent_mm": [1.0, 1.0, 1.0], "structures": {}},
            "hu": [],
            "reference": {"name": "made up", "count": 4, "population": "", "comparable_field_of_view": True},
        }
        if arguments.get("reference") == "none":
            report["reference"] = None
        distributions = {"body": {"value": 0.5, "percentile": 62.5, "reference": [0.3, 0.4, 0.45, 0.6]}}
        scorecard, found = folder / "scorecard.json", folder / "found.npz"
        write_json(scorecard, {
            "report": report, "positions_ras_mm": {"lung": [middle[0] + 10, middle[1], middle[2] - 20]},
            "measure": "rvr", "distributions": distributions if report["reference"] else {},
        })  # fmt: skip
        write_conditions(found, Conditions(volume.grid, {"body": volume.array > -500}))
        return {"scorecard": str(scorecard), "found": str(found)}


def main() -> None:
    """Be a worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("behaviour")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--folder", type=Path)
    options, _rest = parser.parse_known_args()
    FakeWorker(options.behaviour, options.folder, options.pause).run()


if __name__ == "__main__":
    main()
