"""Render records, comparisons and recommendations. Nothing here measures, decides or prints.

terminal      tables and notes for the terminal; comparisons also as Markdown and JUnit
page          one HTML page per report, and the same as Markdown
board         the leaderboard over many records; `server` serves it on this machine
cells         cells under names that are safe to show; `metric_text` formats their metrics
data, rows    plain values for `--json`, and flat rows for CSV
format        text tables and wrapped notes
"""
