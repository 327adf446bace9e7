"""Read and write what edgecap keeps on disk: records, the cache, locks, logs, downloads."""
