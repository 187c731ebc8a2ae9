"""Reads Insightly's own webhooks: which record has changed, and which changes were announced. Private."""
