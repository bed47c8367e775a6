"""Where data comes from when it is not in the repository: pinned packages, fetched into a cache without root."""
