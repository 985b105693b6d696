"""The one exception of the demo."""


class DemoError(Exception):
    """What went wrong, as one sentence for the user."""
