"""A reader's process is killed at 100 random moments: what was confirmed is there, once, and the reader goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support.simulated_review import write_study

import medlord
from medlord.review.answers import read_answers, read_history, status

KILLS = 100

# Forks a reader, lets it answer, kills it: 100 times from one light process, since starting Python anew each time
# would take most of the test. Every line a reader prints stands for an answer it was told is stored.
READERS = """
import os, random, select, signal, sys, time
from medlord.review.answer_database import ReaderAnswers
from medlord.review.study import load_study

folder, kills = sys.argv[1], int(sys.argv[2])
moments = random.Random(20)
grades = dict.fromkeys(("realism", "anatomy", "consistency", "image_quality", "diagnostic_quality", "interest"), 2)

def read(write):
    with ReaderAnswers(load_study(folder), "Anna") as store:
        while reading := store.next_reading():
            verdict = "real" if reading.position % 2 else "synthetic"
            draft = store.record(reading, {"comment": f"draft of {reading.item}"}, 1.0)
            values = {"real_or_synthetic": verdict, "confidence": 1 + reading.position % 5, **grades}
            number = store.record(reading, values, 1.0, confirmed=True)
            os.write(write, f"{number} {reading.position} {reading.item} {verdict}\\n".encode())

for kill in range(kills):
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(ours)
        code = 1
        try:
            read(theirs)
            code = 0
        finally:
            os._exit(code)
    os.close(theirs)
    if kill % 4:  # most while it answers, some while it opens or makes the database
        select.select([ours], [], [], 60)
    time.sleep(moments.random() * 0.02)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit(f"reader {kill} failed by itself")
    told = os.read(ours, 1 << 20).decode()
    os.close(ours)
    print(f"killed {int(os.WIFSIGNALED(status))}")
    print(told, end="")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes, which this system has not")
def test_no_confirmed_answer_is_lost_or_doubled(tmp_path):
    study, _ = write_study(tmp_path, per_source=300)
    environment = {**os.environ, "PYTHONPATH": str(Path(medlord.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", READERS, str(study.folder), str(KILLS)],
        env=environment, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines.count("killed 1") == KILLS  # each died by the signal, none had finished
    told = [line.split() for line in lines if not line.startswith("killed")]
    assert len(told) >= KILLS / 2

    answers = {
        (a.position, a.item): a.value for a in read_answers(study) if a.question == "real_or_synthetic"
    }
    for _, position, item, verdict in told:
        assert answers[int(position), item] == verdict
    # A reader may die between the disk and telling: at most one such answer for each kill.
    assert len(told) <= len(answers) <= len(told) + KILLS
    numbers = [number for number, *_ in told]
    assert len(set(numbers)) == len(numbers) and len({position for _, position, *_ in told}) == len(told)

    # Whole forms or nothing, one confirmed form per reading, and the order without a gap.
    confirmed = Counter((a.position, a.question) for a in read_history(study) if a.question != "comment")
    assert set(confirmed.values()) == {1}
    by_position = Counter(position for position, _ in confirmed)
    assert set(by_position.values()) == {8}
    assert sorted(by_position) == list(range(1, len(by_position) + 1))
    assert [entry.confirmed for entry in status(study)] == [len(by_position)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="sends SIGKILL, which this system has not")
def test_the_command_line_killed_in_a_batch_goes_on(tmp_path):
    study, _ = write_study(tmp_path, per_source=60)
    grades = dict.fromkeys(
        ("realism", "anatomy", "consistency", "image_quality", "diagnostic_quality", "interest"), 2
    )
    line = (
        json.dumps({"values": {"real_or_synthetic": "real", "confidence": 3, **grades}, "visible_s": 2})
        + "\n"
    )
    command = [
        sys.executable,
        "-m",
        "medlord.cli",
        "review",
        "answer",
        str(study.folder),
        "--reader",
        "B",
        "--batch",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(medlord.__file__).parents[1])}
    told: list[int] = []
    for _ in range(2):
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        process.stdin.write(line * 20)
        process.stdin.flush()
        told += [json.loads(process.stdout.readline())["position"] for _ in range(15)]
        process.kill()
        rest, _ = process.communicate()
        told += [json.loads(row)["position"] for row in rest.splitlines() if row.endswith("}")]
    answers = {answer.position for answer in read_answers(study)}
    assert len(set(told)) == len(told) and set(told) <= answers
    assert sorted(answers) == list(range(1, len(answers) + 1)) and len(answers) <= len(told) + 2
