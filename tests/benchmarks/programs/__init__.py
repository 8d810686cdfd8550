"""Floors and drivers that are run as programs of their own. They import nothing of this package."""
