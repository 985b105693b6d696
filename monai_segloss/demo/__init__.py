"""The embedded data set and the run that takes one loss through nnU-Net from raw volumes to a report."""
