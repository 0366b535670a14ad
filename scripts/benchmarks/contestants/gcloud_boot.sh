#!/bin/sh
# The usual start-up script: each secret by gcloud into a file on tmpfs, then the program.
set -eu
project=$1 directory=$2
shift 2
umask 077
for secret in daskpki_default_trust daskpki_default_worker_worker; do
  gcloud secrets versions access latest --project="$project" --secret="$secret" >"$directory/$secret"
done
exec "$@"
