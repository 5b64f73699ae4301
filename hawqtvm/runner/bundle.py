"""What a bundle holds: ``bundle.json``, blobs, and the cubins that it names."""

from __future__ import annotations

import json
import zipfile

DESCRIPTION, BLOBS = "bundle.json", "blobs/"


class Bundle:
    """The archive at ``path``.  ``about``: its description; :mod:`hawqtvm.bundle.pack` says what is in it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._zip = zipfile.ZipFile(path)
        self.about = json.loads(self._zip.read(DESCRIPTION))

    @property
    def workloads(self) -> list[dict]:
        return self.about["workloads"]

    def blob(self, name: str) -> bytes:
        return self._zip.read(BLOBS + name)
