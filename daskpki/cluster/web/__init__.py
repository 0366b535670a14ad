"""Access to a Dask server's HTTP pages, daskpki's page and metrics, and `/health`."""
