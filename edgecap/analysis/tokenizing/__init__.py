"""Study what tokenizers make of text: counts by domain, premiums by language, speed. No model runs.

loading      a tokenizer by name, with its hash
text_counts  characters, words and scripts of a text
usage        bytes, words and characters per token, vocabulary used, by domain
speed        bytes encoded per second
parallel     one text in many languages
premium      tokens of a language over those of English
cost         FLOPs, seconds and joules of those tokens on a measured machine
study        tokenizers side by side
"""
