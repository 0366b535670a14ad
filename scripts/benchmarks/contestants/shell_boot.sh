#!/bin/sh
# The usual recipe: the PEM texts arrive in the environment, go to files, and Dask (the arguments) reads them.
set -eu
umask 077
directory=$(mktemp -d)
printf '%s' "$TLS_CA" >"$directory/ca.pem"
printf '%s' "$TLS_CERT" >"$directory/cert.pem"
printf '%s' "$TLS_KEY" >"$directory/key.pem"
exec "$@" --protocol tls --tls-ca-file "$directory/ca.pem" --tls-cert "$directory/cert.pem" \
  --tls-key "$directory/key.pem"
