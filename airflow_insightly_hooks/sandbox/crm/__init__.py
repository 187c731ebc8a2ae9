"""The account that the sandbox plays: its records, searches, clock and history."""
