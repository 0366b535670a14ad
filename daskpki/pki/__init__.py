"""X.509 without I/O: profiles, issuing, validation, CRLs and the trust document. No files, clock or network."""
