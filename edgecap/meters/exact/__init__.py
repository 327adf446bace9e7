"""The exact probability of a text under a model of tokens, whatever its tokenization.

search   sums over the covers of a byte string, and bounds what it leaves out
texts    the beginnings of documents, and their code lengths
"""
