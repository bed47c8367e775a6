"""Small helpers every other room uses: errors, atomic files, seeds, configuration, registries."""
