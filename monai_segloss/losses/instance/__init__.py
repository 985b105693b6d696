"""Losses that count each connected component of a class by itself."""
