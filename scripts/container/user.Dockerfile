# An image of your own: three lines make it boot itself. docs/deploy/container.md says how the wheel gets into dist.
FROM daskdev/dask:2026.3.0-py3.12
COPY dist/*.whl /tmp/
RUN pip install --no-cache-dir /tmp/daskpki-*.whl
ENTRYPOINT ["daskpki-entrypoint"]
