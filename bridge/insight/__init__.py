"""Looking into networks: what their units like best, and what they look at."""
