"""Who may read which of a cluster's secrets: `targets` says what a grant covers, `judging` what is too wide or narrow.

Both are pure; `granting` reads and changes the policies of a store on Secret Manager, `carrying` repeats them where a
cluster was copied to. A local store has none.
"""
