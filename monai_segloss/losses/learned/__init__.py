"""Losses that bring networks of their own: heads, opponents, priors."""
