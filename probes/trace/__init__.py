"""The trace: everything measured in one HDF5 file, whole after a crash, readable while it is written.

One run:    `trace` (Trace: create, open, resume, declare, record), `records` (the rows of one group), `columns` (array
            fields as plain columns) and `frames` (columns as xarray and pandas objects).
Many runs:  `set` (TraceSet: select and group), `runs` (a run of a set, and one group's rows over all runs), `configs`.
The file:   `layout` (what is where in it, Field, the header), `reader`, `state` (live, closed or crashed).
Writing:    `table` (rows checked, and kept until the next flush), `writer` (flushes them), `build` (a new file beside
            the old one), `lock` (one writer at a time), `disk` (room, and a clean end when there is none).
"""

from probes.trace.layout import Field, TraceError
from probes.trace.records import Records
from probes.trace.runs import Run, SetRecords
from probes.trace.set import Group, TraceSet
from probes.trace.trace import Trace

__all__ = ["Field", "Group", "Records", "Run", "SetRecords", "Trace", "TraceError", "TraceSet"]
