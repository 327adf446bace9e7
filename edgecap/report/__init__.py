"""Values in, something readable out. Nothing here measures, decides or prints.

tables      a record as tables for the terminal; comparing, comparisons, also as Markdown and JUnit
data        the same as plain values for `--json`, with the medians computed
"""
