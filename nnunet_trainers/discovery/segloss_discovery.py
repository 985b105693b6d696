"""The one file nnU-Net finds in the folder of ``nnUNet_extTrainer``.

nnU-Net imports it as a top-level module, asks for a trainer by name and forgets the module again; so the classes live
in the package, where every process finds the same ones.
"""

from nnunet_trainers import trainers


def __getattr__(name: str) -> type:
    return trainers.find(name)
