"""Comparison of losses: matched runs, measures per case, statistics, report.  The parts meet in tables only."""
