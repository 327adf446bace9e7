"""Measuring on a fleet of devices: what is asked here runs there, over Dask's scheduler and workers.

certificates    a certificate authority of the fleet's own, and a device's bundle (cryptography)
network         which addresses are safe, and what dask may do in our processes (dask, distributed)
scheduler       the meeting point of devices and whoever asks (distributed)
"""
