"""The one file nnU-Net finds in the folder of ``nnUNet_extTrainer``.

nnU-Net imports it as a top-level module, asks for a trainer by name and forgets the module again; so the classes live
in the package, where every process finds the same ones.
"""

from nnunet_trainers import searches_more_folders, trainers
from nnunet_trainers.naming import TrainerNameError


def __getattr__(name: str) -> type:
    try:
        return trainers.find(name)
    except TrainerNameError as advice:
        if not searches_more_folders():
            raise
        # The name may be right for a folder after ours; where it is not, nnU-Net ends with a message of its own.
        print(f"  {advice}")
    except AttributeError:
        if near := trainers.near(name):
            print(f"  No loss of segloss has the trainer {name!r}; did you mean {' or '.join(map(repr, near))}?")
    raise AttributeError(name)
