"""Losses of centerlines and of topology."""
