"""The boot shim: settings, fetch, verify, memory files, exec of Dask."""
