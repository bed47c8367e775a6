"""One file for each thing measured; importing this package registers them all."""

from sdrrl_nemo.eval.suites import alignment as alignment
from sdrrl_nemo.eval.suites import belebele as belebele
from sdrrl_nemo.eval.suites import flores as flores
from sdrrl_nemo.eval.suites import further as further
from sdrrl_nemo.eval.suites import held_out_loss as held_out_loss
from sdrrl_nemo.eval.suites import held_out_translation as held_out_translation
from sdrrl_nemo.eval.suites import mkqa as mkqa
from sdrrl_nemo.eval.suites import off_target as off_target
from sdrrl_nemo.eval.suites import xlsum as xlsum
