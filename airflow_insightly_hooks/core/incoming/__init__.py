"""What Insightly's own webhooks tell: which record has changed, and which changes were announced. Private."""
