"""Measure on a fleet of devices, over Dask's scheduler and workers.

certificates     certificate authority of the fleet, and the bundle of a device (cryptography)
network          safe addresses, TLS, and the configuration of dask (dask, distributed)
reachability     check that a scheduler answers and accepts us
scheduler        run the scheduler (distributed)

messages         messages between client and device, as JSON
manifest         files that may travel as a model

connection       connection of the client: devices, and one request at a time to each (distributed)
requirements     requirements of a task, and whether a device meets them
task_queue       tasks that wait for a device
bundles          models and texts as they travel
scored_parts     parts of texts that are scored already
conversation     exchange with one device about one task
validation       check that a result is what was requested
dispatch         assign the cells of a sweep to devices

device           device side: execute orders, one at a time
dask_plugin      the device as seen by its dask worker (distributed)
dask_worker      join a scheduler as a dask worker
"""
