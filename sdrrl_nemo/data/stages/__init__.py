"""One file per step of the paper's section 3.2; tools/preprocess_sdrrl.py has them in order."""
