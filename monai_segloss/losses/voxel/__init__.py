"""Losses that average over voxels."""
