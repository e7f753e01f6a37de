"""The Markdown table of `medlord bench quality`: medians over the phantoms, the worst, the ceiling, what is asked."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

ASKED_DICE = {"body": 0.98, "lung": 0.96, "bone": 0.75, "blood_pool": 0.80}
ASKED_HU = 30.0
ASKED_PSNR_DB = 34.0


def markdown_table(report: dict) -> str:
    """Markdown of what `quality.run_quality` returns."""
    settings, cases = report["settings"], list(report["cases"].values())
    last = settings["start"] + len(cases) - 1
    steps = "default" if settings["steps"] is None else settings["steps"]
    lines = [
        f"{len(cases)} held-out phantoms (seeds {settings['start']} to {last}, {settings['phase']} phase), model "
        f"`{settings['model']}`, sampler `{settings['sampler']}`, {steps} steps, noise seed {settings['noise_seed']}.",
        "Dice: segmenter `hu-rules` on the synthetic CT against the mask that was given. Ceiling: the same segmenter",
        "on the phantom's own CT against the same mask.",
        "",
        "| Measure | Median | Worst | Ceiling (median) | Asked |",
        "|---|---|---|---|---|",
    ]
    if cases:
        lines += [*_dice_rows(cases), *_hu_rows(cases), *_other_rows(cases)]
    return "\n".join(lines)


def _dice_rows(cases: list[dict]) -> Iterable[str]:
    for name, asked in ASKED_DICE.items():
        values = [case["dice"][name] for case in cases if name in case["dice"]]
        if values:
            ceiling = np.median(
                [case["ceiling_dice"][name] for case in cases if name in case["ceiling_dice"]]
            )
            yield _row(f"Dice {_spoken(name)}", f"{np.median(values):.3f}", f"{min(values):.3f}", f"{ceiling:.3f}",
                       f"≥ {asked:.2f}")  # fmt: skip


def _hu_rows(cases: list[dict]) -> Iterable[str]:
    names = dict.fromkeys(
        name for case in cases for name in case["mean_hu"] if name in case["phantom_mean_hu"]
    )
    for name in names:
        pairs = [(c["mean_hu"][name], c["phantom_mean_hu"][name]) for c in cases if name in c["mean_hu"]]
        off = [abs(found - phantom) for found, phantom in pairs]
        label = f"Mean HU {_spoken(name)}, off the phantom's ({np.median([p for _, p in pairs]):.0f} HU)"
        yield _row(label, f"{np.median(off):.1f}", f"{max(off):.1f}", "0", f"≤ {ASKED_HU:.0f}")


def _other_rows(cases: list[dict]) -> Iterable[str]:
    psnr = [case["autoencoder_psnr_db"] for case in cases]
    yield _row("Autoencoder PSNR, dB (range 2000 HU)", f"{np.median(psnr):.1f}", f"{min(psnr):.1f}", "–",
               f"≥ {ASKED_PSNR_DB:.0f}")  # fmt: skip
    repeated = [case["two_noises"] for case in cases if "two_noises" in case]
    for name in ASKED_DICE:
        values = [pair["anatomy_dice"][name] for pair in repeated]
        if values:
            yield _row(f"Two noises, one mask: Dice {_spoken(name)} of both", f"{np.median(values):.3f}",
                       f"{min(values):.3f}", "1", "same anatomy")  # fmt: skip
    values = [
        pair["lung_detail_correlation"] for pair in repeated if pair["lung_detail_correlation"] is not None
    ]
    if values:
        yield _row("Two noises, one mask: correlation of fine detail in the lung", f"{np.median(values):.2f}",
                   f"{max(values):.2f}", "–", "other texture")  # fmt: skip
    others = [case["dice_with_other_mask"] for case in cases if "dice_with_other_mask" in case]
    for name in ("lung", "bone"):
        values = [pair[name] for pair in others]
        if values:
            yield _row(f"One noise, two masks: Dice {_spoken(name)} of both", f"{np.median(values):.3f}",
                       f"{max(values):.3f}", "–", "other anatomy")  # fmt: skip
    seconds = [case["seconds"]["total"] - case["seconds"].get("load", 0.0) for case in cases]
    yield _row("Synthesis, s", f"{np.median(seconds):.1f}", f"{max(seconds):.1f}", "–", "–")
    memory = [case["peak_memory_bytes"] / 2**30 for case in cases]
    yield _row("Peak memory, GiB", f"{np.median(memory):.2f}", f"{max(memory):.2f}", "–", "–")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _spoken(name: str) -> str:
    return name.replace("_", " ")
