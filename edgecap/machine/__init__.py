"""Describe this machine: hardware, system noise, and what measurements it supports."""
