"""What differs between versions of NeMo, megatron-core, lightning, transformers, torch and numpy, in one place.

``versions`` says which versions are served, ``registry`` what each patch is for; every assignment to a module or class
of another project is made in this package, after an assertion that what it replaces looks as expected.
"""
