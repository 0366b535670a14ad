"""CA keys in Google Cloud KMS, which sign without ever leaving it (`gcpkms://` URIs; extra `kms`).

Whoever opens the CA needs `roles/cloudkms.signerVerifier` on the key: it covers signing and reading the public half.
"""
