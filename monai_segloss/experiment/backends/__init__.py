"""What trains the runs of a comparison: nnU-Net, or the bundle of this package."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from monai_segloss.demo.problem import DemoError

if TYPE_CHECKING:
    from monai_segloss.demo.dataset import RawDataset
    from monai_segloss.experiment.arms import Arm
    from monai_segloss.experiment.comparison import Comparison
    from monai_segloss.experiment.matrix import Matrix
    from monai_segloss.experiment.running import Task


class Backend(ABC):
    """One kind of training, in which nothing but the loss differs between runs of a seed and fold."""

    NAME: ClassVar[str]
    """On the command line, and the extra that installs it."""
    PACKAGES: ClassVar[tuple[str, ...]]
    """That it needs."""
    DEMO: ClassVar[Mapping[str, Any]]
    """What `--demo` sets unless other options say otherwise: so short a training needs a high rate."""

    @property
    @abstractmethod
    def task(self) -> type[Task]:
        """A run."""

    @abstractmethod
    def names(self, matrix: Matrix, arm: Arm, seed: int, epochs: int, iterations: int) -> tuple[str, str]:
        """Names of the trainer and the configuration of a run."""

    @abstractmethod
    def configuration(self, matrix: Matrix) -> str:
        """What all runs share, for the tables."""

    @abstractmethod
    def refuse(self, matrix: Matrix, source: RawDataset | None) -> None:
        """Refuse what it does not have.

        Raises:
            DemoError: one sentence that names the option.
        """

    @abstractmethod
    def plan(self, comparison: Comparison) -> None:
        """Write what the runs begin with; what is done is not done again.

        Raises:
            DemoError: one sentence.
        """

    def refuse_missing_packages(self) -> None:
        """Refuse to begin without its packages."""
        missing = [name for name in self.PACKAGES if find_spec(name) is None]
        if missing:
            raise DemoError(
                f"--backend {self.NAME} needs {', '.join(missing)}: pip install 'monai-segloss[{self.NAME}]'"
            )


def backend(name: str) -> Backend:
    """The backend of a name."""
    from monai_segloss.experiment.backends.bundle import BundleBackend
    from monai_segloss.experiment.backends.nnunet import NNUNetBackend

    known: dict[str, type[Backend]] = {each.NAME: each for each in (NNUNetBackend, BundleBackend)}
    return known[name]()
