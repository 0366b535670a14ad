"""What a Dask server shows over HTTP: who may look, at which pages, the page and metrics of daskpki, and `/health`."""
