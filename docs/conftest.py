"""Runs the python blocks of the documentation."""

import pytest
from sybil import Sybil
from sybil.integration.pytest import SybilItem
from sybil.parsers.markdown import PythonCodeBlockParser

pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser()], patterns=["*.md"]).pytest()
DONE = pytest.StashKey[int]()
"""Of a page: the line of the last block that ran in this process."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Run the blocks of the page before one that is run by itself, or whose first ones another process had."""
    if isinstance(item, SybilItem):
        document, line = item.example.document, item.example.line
        for block in document.examples():
            if item.parent.stash.get(DONE, 0) < block.line < line:
                block.evaluate()
        item.parent.stash[DONE] = line
