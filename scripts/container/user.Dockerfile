# An image of your own: two lines make it boot itself.
FROM daskdev/dask:2026.3.0-py3.12
RUN pip install --no-cache-dir daskpki==0.1.0
ENTRYPOINT ["daskpki-entrypoint"]
