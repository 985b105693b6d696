"""A wheel with compiled kernels, where ``SEGLOSS_WHEEL_KERNELS=1`` asks for it; decision 10 says why it is no default.

Compiled is what the losses ask for in float32 with the arguments of their examples.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ASKED = "SEGLOSS_WHEEL_KERNELS"
"""Environment: 1 for a wheel with kernels."""


class Kernels(BuildHookInterface):
    """Compiles the kernels into the wheel and gives it the tag of its platform."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or os.environ.get(ASKED, "0") in ("", "0"):
            return
        sys.path.insert(0, self.root)
        try:
            from monai_segloss.kernels import native, shipped

            processors = shipped.PROCESSORS.get(platform.machine()) if sys.platform == "linux" else None
            if processors is None:
                self.app.abort(f"{ASKED}: wheels with kernels are for Linux on {' or '.join(shipped.PROCESSORS)}.")
            if native.compiler() is None:
                self.app.abort(f"{ASKED}: no C++ compiler was found; {native.COMPILER} names one.")
            sources = asked_for()
        except ImportError as error:
            self.app.abort(
                f"{ASKED}: the kernels follow from the losses, which need their packages ({error}): build with "
                "--no-isolation where monai-segloss[skeleton,topology] can be imported."
            )
        self.folder = TemporaryDirectory()
        self.app.display_info(f"{len(sources)} kernels for {processors.name} by {native.compiler()}")

        def compile_one(source: str, level: str) -> None:
            library = Path(self.folder.name) / shipped.name(source, level)
            native.compile_to(library, source, [*native.flags(level, processors.flags), "-Wl,-s"])

        try:
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                list(pool.map(compile_one, *zip(*sources, strict=True)))
        except native.ERRORS as error:
            self.app.abort(f"{ASKED}: {native.compiler()} failed: {native.reason(error)}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        build_data["force_include"][self.folder.name] = "monai_segloss/kernels/compiled"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


def asked_for() -> list[tuple[str, str]]:
    """Source and level of each kernel that a loss wants, for labels and for channels, softmax and sigmoid."""
    import monai_segloss.losses  # noqa: F401  (fills the registry)
    from monai_segloss.core.registry import LOSSES
    from monai_segloss.kernels import native, native_neighbors
    from monai_segloss.testing import cases, harness

    found: dict[tuple[str, str], None] = {}
    with (
        patch.object(native, "load", lambda source, level="-O2": found.setdefault((source, level))),
        warnings.catch_warnings(action="ignore"),
    ):
        native_neighbors()
        for info in LOSSES.values():
            case = cases.get("labels_3d" if "3-D" in info.support else "labels_2d", info.size)
            case = case.with_input(case.input.float())
            for activation, read in (("softmax", "labels"), ("sigmoid", "regions")):
                for labels, target in ((True, case.target), (False, case.onehot().float())):
                    if read in info.support:
                        form = replace(case, activation=activation, labels=labels, target=target)
                        harness.gradient(harness.make(info, form), form)
    return list(found)
