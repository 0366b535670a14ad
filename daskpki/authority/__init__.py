"""The certificate authority of one cluster: issue, renew, revoke, publish, rotate. `ca` is its facade."""
