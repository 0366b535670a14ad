"""The boot shim: settings → fetch → check → descriptors → exec Dask."""
