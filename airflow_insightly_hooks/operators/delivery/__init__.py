"""The work of a deliver task: one try, its threads, its ledger, what came of it."""
