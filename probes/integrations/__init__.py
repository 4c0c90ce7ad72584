"""Callbacks of other people's trainers, each a few lines over `Monitor`.

`probes.integrations.lightning` and `probes.integrations.transformers` hold a `MonitorCallback` each and need those
packages (extra `integrations`); `training` is what they share, `data` the samples that they measure on.
"""
