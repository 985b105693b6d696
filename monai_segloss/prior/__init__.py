"""Priors on labels: networks, the patches that they are trained on, and their training."""
