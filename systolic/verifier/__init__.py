"""Compare the engine with the reference and name the first mismatch."""

from systolic.verifier.check import ModelCheck as ModelCheck
from systolic.verifier.check import verify as verify
from systolic.verifier.mismatch import Mismatch as Mismatch
from systolic.verifier.mismatch import NodeVerdict as NodeVerdict
from systolic.verifier.mismatch import NotChecked as NotChecked
from systolic.verifier.mismatch import Rounding as Rounding
from systolic.verifier.mismatch import VerificationError as VerificationError
from systolic.verifier.mismatch import VerificationReport as VerificationReport
