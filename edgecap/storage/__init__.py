"""Read and write what edgecap keeps on disk.

files         paths, atomic writes, hashes
records       read, write and upgrade records
collection    many records at once
cache         entries of the cache; `cache_prune` removes them, `locks` guards them
jsonl_log     finished pieces of long work
content       files by hash, for a fleet
hub           downloads from the Hugging Face Hub
"""
