"""Read a data set folder into the items that MONAI's transforms load, without MONAI and without opening an image."""

from monai_segloss.datalist.cases import (
    ENDINGS,
    Datalist,
    file_names,
    list_images,
    read,
    read_description,
    training_items,
    unlabeled_items,
)
from monai_segloss.datalist.labels import Labels, numbers_by_name
from monai_segloss.datalist.names import case_name, output_name

__all__ = [
    "ENDINGS",
    "Datalist",
    "Labels",
    "case_name",
    "file_names",
    "list_images",
    "numbers_by_name",
    "output_name",
    "read",
    "read_description",
    "training_items",
    "unlabeled_items",
]
