"""Tools that write pages and cards."""
