"""The exact probability of a text under a model of tokens, whatever its tokenization.

search   sum over the covers of a byte string, with a bound on what was not searched
texts    the beginnings of documents, and their code lengths
"""
