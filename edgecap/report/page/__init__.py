"""Build HTML and Markdown reports. Values in, pages out."""
