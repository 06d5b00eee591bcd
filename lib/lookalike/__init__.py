"""Visual search for product catalogs, built on Spark and published for services that have neither Spark nor torch."""

__version__ = "0.1.0"

FORMAT_VERSION = 2
"""Format of the published files and tables. A reader refuses a root with a higher one."""
