"""The trace: everything measured in one HDF5 file, whole after a crash, readable while it is written."""

from probes.trace.layout import Field, TraceError
from probes.trace.records import Records
from probes.trace.set import TraceSet
from probes.trace.trace import Trace

__all__ = ["Field", "Records", "Trace", "TraceError", "TraceSet"]
