"""Losses of boundaries, contours and distances."""
