"""Measuring on a fleet of devices: what is asked here runs there, over Dask's scheduler and workers.

certificates    a certificate authority of the fleet's own, and a device's bundle (cryptography)
network         which addresses are safe, and what dask may do in our processes (dask, distributed)
reaching        whether a scheduler is there and lets us in, and if not, why
scheduler       the meeting point of devices and whoever asks (distributed)

messages        what client and device say to each other, as JSON
freight         what may travel as a model

line            the client's: who is there, and a question to one (distributed)
needs, todo     what a cell needs of a device, and which one it may have next
bundles, parts  models and texts as they travel, and parts of texts that are scored already
talks           one conversation about one cell
checking        is what came what was asked for?
dispatch        the cells of a sweep, each on one device

device          the other side: answers orders, one at a time
slot, joining   the device as a dask worker (distributed)
"""
