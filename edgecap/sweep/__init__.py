"""Measure many cells, one record each, on this machine or on a fleet."""
