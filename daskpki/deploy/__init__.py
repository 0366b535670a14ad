"""`daskpki deploy`: from settings to the steps that make, change and remove a cluster on Google Cloud.

`settings` checks what is wanted, `blueprint` turns it into resources (`iam`, `compute`, `cloud_init` say how each is
made), `observe` reads what is there, `plan` compares the two, `apply` carries the steps out, `export` and `terraform`
write them for others. Only `gcloud`, `observe` and `apply` touch the world.
"""
