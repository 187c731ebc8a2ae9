"""Parts that operators share."""
