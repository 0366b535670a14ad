"""A certificate authority and secrets manager for Dask clusters on Google Cloud."""

__version__ = "0.1.0"
