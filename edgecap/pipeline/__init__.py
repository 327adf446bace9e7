"""Run the commands that need a model: profile, export, compress, doctor.

    profile        a request becomes a record: read this first
    prepare        find the model, inspect it and the runtime, refuse what cannot be done
    run_context    what all stages of a run share
    artifacts      graphs from the folder, from the cache, or built now
    cells          measure a cell; `scoring` its bits, `timing` the latency of all cells
    judging        scores, roofline and cautions of a cell
    record_draft   the record while it grows, saved after each change
    worker         one step in a child process

`export_folder`, `compress`, `exact_bytes`, `peaks` and `doctor` serve the commands of those names.
"""
