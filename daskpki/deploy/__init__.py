"""`daskpki deploy`: from settings to the steps that make, change and remove a cluster on Google Cloud.

`settings` says what is wanted, `blueprint` what that takes as resources, `observing` what is there, `plan` the steps
between the two; `rendering_*` show them, `carrying_out` does them. Only the last and `gcloud` touch the world.
"""
