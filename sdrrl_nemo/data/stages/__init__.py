"""One file per step of the paper's section 3.2; sdrrl_nemo/data/preprocess.py has them in order."""
