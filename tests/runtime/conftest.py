"""What the runtime's tests start from: built artifacts, codes, a fresh interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_artifact import SHAPE, build_library, write_manifest


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Function: directory of the artifact with a given factor (3 or 5), not to be changed."""
    root = tmp_path_factory.mktemp("artifacts")

    def get(factor=3):
        directory = root / str(factor)
        if not directory.exists():
            directory.mkdir()
            build_library(directory / "model.so", factor)
            write_manifest(directory)
        return directory

    return get


@pytest.fixture
def artifact(built, tmp_path):
    """An artifact to spoil: a copy of the one with factor 3."""
    directory = tmp_path / "artifact"
    directory.mkdir()
    for file in built().iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    return directory


@pytest.fixture
def codes():
    return np.random.default_rng(1).integers(0, 256, SHAPE, np.uint8)


@pytest.fixture
def python():
    """Function: run a program text in a fresh interpreter with arguments -> its stdout; it must succeed."""

    def run(text, *arguments, prefix=()):
        environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]))
        command = [*prefix, sys.executable, "-c", text, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run
