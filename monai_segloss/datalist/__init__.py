"""Read a data set folder into the items that MONAI's transforms load, without MONAI and without opening an image."""

from monai_segloss.datalist.cases import Datalist, case_name, list_images, output_name, read
from monai_segloss.datalist.labels import Labels

__all__ = ["Datalist", "Labels", "case_name", "list_images", "output_name", "read"]
