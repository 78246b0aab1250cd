"""The command line as a shell meets it."""

import os
import subprocess
import sys

from tests.conftest import ENV, ROOT


def test_a_reader_that_has_gone_ends_a_command_without_a_word():
    read, write = os.pipe()
    os.close(read)  # as `| head -1` does when it has seen enough
    words = [sys.executable, "-m", "lockstep", "deps"]
    env = {**ENV, "PYTHONUNBUFFERED": ""}  # Python's own way: all goes out at the end
    with os.fdopen(write) as pipe:
        done = subprocess.run(words, cwd=ROOT, env=env, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
