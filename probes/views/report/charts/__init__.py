"""Charts: the interactive figures of a report, a file for each picture in `probes.views.pictures`.

A function `x_charts` in the module of the picture `x_figure`, of the same columns and settings, returns a list of
`Chart`. What both show is computed once, beside the picture.
"""
