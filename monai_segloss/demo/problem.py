"""What can go wrong with the programs of nnU-Net."""


class DemoError(Exception):
    """What went wrong, as one sentence for the user."""


class DivergedError(DemoError):
    """A training ended because its loss or its network was no longer finite."""


class DiskFullError(DemoError):
    """A program could not write."""


class KilledError(DemoError):
    """A program was ended from outside."""
