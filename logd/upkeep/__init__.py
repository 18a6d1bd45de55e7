"""What is done to a trail as a whole, or to what is stored in it: copies, keys, retention, erasure.

A row may use its own modules and those of the rows below it:

    asked for       asking, restoring, rekeying, backup
    in steps        worker, pruning, forgetting
    looked at       outbox_survey
    taken out       removal, subjects, stored_times
    copied          offline, copying
    written down    elsewhere, jobs
"""
