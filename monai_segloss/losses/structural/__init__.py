"""Losses of neighborhoods: what a window of voxels says."""
