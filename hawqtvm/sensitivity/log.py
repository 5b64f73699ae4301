"""Measurements on disk: what a stopped run has measured is there for the next."""

import json
from collections.abc import Callable
from pathlib import Path

from hawqtvm.files import append_lines


class Log:
    """Lines ``{"key", "item", "value"}`` of a file, of which those with this ``key`` count; no file, no memory of them.

    The key stands for all that a value depends on but its item.  A line cut short by a kill counts as not written.
    """

    def __init__(self, path: Path | None, key: str):
        self.path, self.key, self.found = path, key, {}
        if path is not None and path.is_file():
            for line in path.read_text(errors="replace").splitlines():
                try:
                    record = json.loads(line)
                    if record["key"] == key:
                        self.found[record["item"]] = record["value"]
                except (ValueError, KeyError, TypeError):
                    continue

    def get(self, item: str, measure: Callable[[], list]) -> list:
        """The item's value, lists of numbers; measured and written where it is not known."""
        if item not in self.found:
            value = measure()
            if self.path is not None:
                append_lines(self.path, json.dumps({"key": self.key, "item": item, "value": value}) + "\n")
            self.found[item] = value
        return self.found[item]
