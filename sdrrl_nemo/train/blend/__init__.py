"""Several packed sets in one run (``data.blend``): which sets, how often each is drawn, and what that does to Eq. 6."""
