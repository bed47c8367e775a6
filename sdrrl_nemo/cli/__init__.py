"""The one command ``sdrrl``: every tool and the recipe as its subcommands."""
