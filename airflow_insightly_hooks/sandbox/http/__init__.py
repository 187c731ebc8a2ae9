"""The sandbox's paths, pages and limits."""
