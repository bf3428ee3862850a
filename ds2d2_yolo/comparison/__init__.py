"""One student, several methods and seeds: planned, trained, recorded, summed up. It trains through `training`.

It does not know how a table, a picture or a page looks.
"""
