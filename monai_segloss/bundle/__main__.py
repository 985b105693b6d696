"""``python -m monai_segloss.bundle`` writes the overlay of every registered loss into the default bundle."""

from monai_segloss.bundle.overlays import write_overlays

if __name__ == "__main__":
    print(f"{len(write_overlays())} overlays written")
