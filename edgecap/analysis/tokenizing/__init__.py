"""What a tokenizer makes of text: counts by domain, premiums by language, speed. Nothing runs a model here.

opening    a tokenizer by name, with its hash
writing    characters, words and scripts of a text
usage      bytes, words and characters a token, vocabulary used, by domain
speed      bytes encoded a second
parallel   one text in many languages
premium    tokens of a language over those of English, and what they cost on a machine that was measured
"""
