"""Hypothesis for the core: examples have no time limit of their own, since the machine may be busy."""

from hypothesis import settings

settings.register_profile("core", deadline=None, print_blob=True)
settings.load_profile("core")
