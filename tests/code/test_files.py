"""Files are written whole or not at all, and nothing of a writer that was killed stays behind."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from lockstep.files import write_text, writing
from tests.conftest import ROOT

HALF = """
import sys
from pathlib import Path
from lockstep.files import writing
with writing(Path(sys.argv[1])) as beside:
    beside.write_text("ha")
    print("half", flush=True)
    sys.stdin.readline()
    beside.write_text("half and half")
"""


@pytest.fixture
def writer():
    """Return a function that starts a process, which stops in the middle of a file until it is told to go on."""
    started = []

    def start(path):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
        started.append(process := subprocess.Popen([sys.executable, "-c", HALF, str(path)], **pipes))
        assert process.stdout.readline() == "half\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_next_write_to_a_folder_sweeps_what_a_killed_writer_left_and_spares_a_living_one(tmp_path, writer):
    dead, living = writer(tmp_path / "dead.txt"), writer(tmp_path / "living.txt")
    os.kill(dead.pid, signal.SIGKILL)
    dead.wait()
    assert [name.split(".")[1] for name in names(tmp_path)] == ["dead", "living"]
    write_text("another", tmp_path / "another.txt")
    left = [name for name in names(tmp_path) if name.endswith(".part")]
    assert [str(living.pid) in name for name in left] == [True]
    living.communicate("go on\n")
    assert names(tmp_path) == ["another.txt", "living.txt"]
    assert (tmp_path / "living.txt").read_text() == "half and half"


def test_what_writers_elsewhere_left_is_none_of_our_business(tmp_path):
    """Of a process of another machine nobody knows whether it lives, nor of what another program calls so."""
    foreign = [".rows.parquet.elsewhere.999999999.1.part", ".film.mp4.part", "film.mp4.part"]
    for name in foreign:
        (tmp_path / name).write_text("half")
    write_text("ours", tmp_path / "ours.txt")
    assert names(tmp_path) == sorted([*foreign, "ours.txt"])


def test_threads_that_write_one_file_do_not_share_what_lies_beside_it(tmp_path):
    with writing(tmp_path / "a.txt") as mine, ThreadPoolExecutor(1) as pool:
        mine.write_text("mine")
        pool.submit(write_text, "theirs", tmp_path / "a.txt").result()
        assert (tmp_path / "a.txt").read_text() == "theirs"
    assert (tmp_path / "a.txt").read_text() == "mine"
    assert names(tmp_path) == ["a.txt"]
