"""What torch's CPU allocator hands out while something runs."""

from __future__ import annotations

import json

import torch


def allocated(run, precision: str, trace) -> int:
    """Peak of torch's CPU allocator, oneDNN's buffers included, while `run` works."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        with (
            torch.inference_mode(),
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"),
        ):
            run()
    profiler.export_chrome_trace(str(trace))
    events = [event for event in json.loads(trace.read_text())["traceEvents"] if event["name"] == "[memory]"]
    events = [event["args"] for event in sorted(events, key=lambda event: event["args"]["Ev Idx"])]
    before = events[0]["Total Allocated"] - events[0]["Bytes"]
    return max(event["Total Allocated"] for event in events) - before
