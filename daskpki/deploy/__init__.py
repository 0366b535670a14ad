"""`daskpki deploy`: from settings to the steps that make, change and remove a cluster on Google Cloud.

`settings` checks what is wanted, and `blueprint` says which parts, grants, firewall rules and containers (`cloud_init`)
that means. `iam` and `compute` make resources of these, `observe` reads what is there, `plan` compares the two, `apply`
carries the steps out, `export` and `terraform` write them for others. Only `gcloud`, `observe` and `apply` touch the
world.
"""
