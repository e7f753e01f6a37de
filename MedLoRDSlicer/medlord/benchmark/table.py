"""The tables of `medlord bench speed` and `medlord bench layout` in Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from .timing import BASELINE

_GIB = 2**30
_MISSING = "not measured"


def speed_table(report: dict) -> str:
    """Markdown of what `speed.run_speed` returns."""
    lines = [_introduction(report), ""]
    for name, measured in report["configurations"].items():
        lines += [f"### {name[:1].upper()}{name[1:]} ({measured['size']})", ""]
        lines += ["| Measure | Variant | Value | To the baseline |", "|---|---|---|---|"]
        lines += [*_step_rows(measured), *_once_rows(measured), *_run_rows(measured)]
        lines += [
            *_preview_rows(measured),
            *_peak_rows(measured),
            *_bound_rows(measured, report["matrix_rate"]),
            "",
        ]
    return "\n".join([*lines, *_predicted(report["predictions"])])


def layout_table(report: dict) -> str:
    """Markdown of what `layout.run_layout` returns."""
    lines = [
        _machine(report["machine"]),
        "Ratio: time to that of the same part and precision as it is run by default (contiguous, eager, sdpa); below 1 "
        "is faster.",
        "",
        "| Configuration | Part | Precision | Variant | Time | Ratio |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        cells = row["configuration"], row["part"], row["precision"], row["variant"]
        if "failed" in row:
            lines.append(_row(*cells, _MISSING, row["failed"]))
        else:
            lines.append(_row(*cells, _seconds(row["seconds"]), _ratio(row)))
    return "\n".join(lines)


def _introduction(report: dict) -> str:
    size = report["settings"]["size"]
    text = [_machine(report["machine"])]
    if size == "reduced":
        text.append(
            "Reduced configurations, for a computer without a GPU: smaller volume and narrower networks than the "
            "published ones."
        )
    text.append(
        "Baseline: the same networks, float32, masks embedded in every step, one distance matrix, untiled, 300 steps "
        "in sequence. Times are medians, ratios medians of pairs measured in turns, their range in brackets."
    )
    return "\n".join(text)


def _machine(machine: dict) -> str:
    device = machine["device"]
    where = machine["processor"] if device == "CPU" else f"{device}, {machine['processor']}"
    load = f"load {machine['load'][0]:.1f} when it began"
    return f"{where}, {machine['threads']} threads, torch {machine['versions']['torch']}, {load}."


def _step_rows(measured: dict) -> Iterable[str]:
    for variant, numbers in measured["step"].items():
        yield _row("Denoising step with control", variant, _time(numbers), _ratio(numbers))
    for name, numbers in measured["other_denoisers"].items():
        yield _row(f"Denoiser `{name}` alone", numbers["precision"], _time(numbers), "–")


def _once_rows(measured: dict) -> Iterable[str]:
    for variant, numbers in measured["embedding"].items():
        yield _row("Embedding of the masks, once per run", variant, _time(numbers), "–")
    for variant, numbers in measured["decode"].items():
        if variant == "tiles":
            continue
        named = variant if variant == BASELINE else f"{variant}, {_tiles(measured['decode']['tiles'])}"
        yield _row("Decoding", named, _time(numbers), _ratio(numbers))


def _run_rows(measured: dict) -> Iterable[str]:
    runs = measured["runs"]
    for name, run in runs.items():
        value = _time(run)
        if run.get("computed"):
            value += " (computed from its parts, not run)"
        elif "phases" in run:
            value += f" ({', '.join(f'{phase} {_seconds(s)}' for phase, s in run['phases'].items())})"
        faster = f"{run['ratio']:.3f} ({1 / run['ratio']:.1f} times faster)" if "ratio" in run else "–"
        yield _row("Whole synthesis", name, value, faster)
    for name, run in runs.items():
        if name.startswith(("unipc", "fast")) and "ratio_to_ddpm" in run:
            faster = f"{1 / run['ratio_to_ddpm']:.1f} times faster"
            yield _row("Whole synthesis, to the engine's own ddpm-300 float32", name, faster, "–")
    for name, run in runs.items():
        if "peak_bytes" in run:
            value = f"{run['peak_bytes'] / _GIB:.2f} GiB (CUDA: the run; CPU: this whole process)"
            yield _row("Peak memory, whole synthesis", name, value, "–")
    for name, run in runs.items():
        energy = run.get("energy_kwh")
        value = "cannot be read" if energy is None else f"{energy * 1000:.2f} Wh"
        yield _row("Energy of the device", name, value, "–")


def _preview_rows(measured: dict) -> Iterable[str]:
    preview = measured["preview"]
    details = (
        f"{preview['per_run']} of {_seconds(preview['seconds'])}, fit {_seconds(preview['fit_seconds'])}"
    )
    if "share_first_run" in preview:
        value = (
            f"{preview['share_first_run']:.1%} of the run, {preview['share_later_runs']:.1%} of later ones"
        )
        yield _row(f"Previews ({details})", "unipc-25", value, "–")


def _peak_rows(measured: dict) -> Iterable[str]:
    for name, peak in measured["peaks"].items():
        if "failed" in peak:
            yield _row("Peak memory", name, peak["failed"], "–")
            continue
        value = f"{peak['took_bytes'] / _GIB:.2f} GiB (with what was there before: {peak['peak_bytes'] / _GIB:.2f} GiB)"
        tiles = f", {_tiles(peak['tiles'])}" if "tiles" in peak else ""
        reference = "decode untiled" if "decode" in name else "baseline step"
        against = f"{peak['ratio']:.2f} of {reference}" if "ratio" in peak else "–"
        yield _row("Peak memory", f"{name}{tiles}", value, against)


def _bound_rows(measured: dict, rates: dict[str, float]) -> Iterable[str]:
    """How much of the device's rate in a large matrix product the steps and the decoding reach."""
    operations = measured["operations"]
    per_step = operations["denoiser"] + operations["control"]
    for variant, numbers in measured["step"].items():
        precision = variant.removeprefix("baseline ")
        needed = per_step + (operations["embedding"] if variant == BASELINE else 0.0)
        yield _bound_row("step", variant, needed, rates[precision], numbers)
    for variant, numbers in measured["decode"].items():
        if variant != "tiles":
            yield _bound_row("decoding (untiled)", variant, operations["decode"], rates["float32"], numbers)


def _bound_row(part: str, variant: str, needed: float, rate: float, numbers: dict) -> str:
    value = numbers.get("failed") or (
        f"{needed / rate / numbers['seconds']:.0%} ({needed / 1e12:.2f} TFLOP at {rate / 1e12:.2f} TFLOP/s)"
    )
    return _row(f"Share of the arithmetic bound, {part}", variant, value, "–")


def _predicted(predictions: list[dict]) -> list[str]:
    """What the memory planner says of the published sizes; predictions, not measurements."""
    lines = ["### Published size, as the memory planner predicts it", ""]
    lines += [
        "Predictions, not measurements: float16 on a GPU with so much free, weights not yet loaded.",
        "",
    ]
    lines += ["| Configuration | Free | Needed | Fits | Tiles of the decoding |", "|---|---|---|---|---|"]
    for row in predictions:
        free, needed = (f"{row[name] / 10**9:.1f} GB" for name in ("free_bytes", "needed"))
        fits = "yes (prediction)" if row["fits"] else "no (prediction)"
        lines.append(
            _row(row["configuration"], free, needed, fits, _tiles({"tile": row["decode_tile"], **row}))
        )
    return lines


def _tiles(way: dict) -> str:
    return f"{'slabs' if way['in_slabs'] else 'tiles'} of {' x '.join(map(str, way['tile']))} latent voxels"


def _time(numbers: dict) -> str:
    return numbers.get("failed") or _seconds(numbers["seconds"])


def _ratio(numbers: dict) -> str:
    if "ratio" not in numbers:
        return "–"
    low, high = numbers["ratio_range"]
    return f"{numbers['ratio']:.2f} ({low:.2f} to {high:.2f})"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
