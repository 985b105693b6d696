"""Weighted sums of losses."""
