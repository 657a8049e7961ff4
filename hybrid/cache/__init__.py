"""Where the routed experts live: device memory, RAM and a file, one record in one place.

The same tokens come out whatever lives where; what changes is the time they take.
"""
