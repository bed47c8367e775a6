"""Imported once by the process that training and export are forked from: NeMo and Megatron take 20 seconds of CPU.

Nothing is computed here: the children inherit modules, no state.
"""

from sdrrl_nemo.common.quiet import quiet_third_parties
from sdrrl_nemo.compat.start import prepare

quiet_third_parties()
prepare()  # before anything of Megatron or NeMo is imported

import sdrrl_nemo.model.export  # noqa: E402
import sdrrl_nemo.train.trainer  # noqa: E402, F401
