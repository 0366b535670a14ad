"""Pure X.509: profiles, issuing, validation, CRLs and the trust document; no files, clock or network."""
