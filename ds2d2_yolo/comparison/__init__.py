"""Trains one student by several methods with several seeds, and compares the results.

Trains through `training`. Does not know tables, pictures or pages.
"""
