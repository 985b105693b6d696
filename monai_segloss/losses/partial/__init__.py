"""Losses for data of which not all classes are labeled."""
