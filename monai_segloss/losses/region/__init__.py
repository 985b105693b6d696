"""Losses of overlap: functions of sums over a class."""
