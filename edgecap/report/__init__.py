"""Values in, something readable out. Nothing here measures, decides or prints.

tables   a record and a comparison as tables for the terminal
data     the same as plain values for `--json`, with the medians computed
"""
