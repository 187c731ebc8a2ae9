"""The records that a sandbox begins with."""
