"""Losses of size and shape."""
