"""`daskpki deploy`: from settings to the steps that make, change and remove a cluster on Google Cloud.

`settings` checks the options, and `blueprint` turns them into parts, grants, firewall rules and containers
(`cloud_init`). `iam` and `compute` make resources of these, `observe` reads the existing ones, `plan` compares the two,
`apply` carries the steps out, `export` and `terraform` write them for others. Only `gcloud`, `observe` and `apply`
touch the world.
"""
