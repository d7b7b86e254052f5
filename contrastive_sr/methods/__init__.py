"""One module per paper: its losses, samples, embedding and weights put together, for any framework."""

from contrastive_sr.methods.base import Method as Method
from contrastive_sr.methods.base import Step as Step
from contrastive_sr.methods.compared import Compared as Compared
from contrastive_sr.methods.compared import Comparison as Comparison
from contrastive_sr.methods.cria_cl import CriaCL as CriaCL
from contrastive_sr.methods.criterion_term import CriterionTerm as CriterionTerm
from contrastive_sr.methods.crl_sr import CRLSR as CRLSR
from contrastive_sr.methods.dasr import DASR as DASR
from contrastive_sr.methods.dasr import DegradationContrast as DegradationContrast
from contrastive_sr.methods.dasr import TrueKernel as TrueKernel
from contrastive_sr.methods.engine import Methods as Methods
from contrastive_sr.methods.mcl import MCL as MCL
from contrastive_sr.methods.mpf import MPF as MPF
from contrastive_sr.methods.nce import SRNCE as SRNCE
from contrastive_sr.methods.nce import BidirectionalNCE as BidirectionalNCE
from contrastive_sr.methods.nce import InfoNCE as InfoNCE
from contrastive_sr.methods.pcl import PCL as PCL
from contrastive_sr.methods.registry import METHODS as METHODS
from contrastive_sr.methods.registry import build_methods as build_methods
from contrastive_sr.methods.registry import register_method as register_method
from contrastive_sr.methods.regularization import ContrastiveRegularization as ContrastiveRegularization
from contrastive_sr.methods.weighting import TermWeight as TermWeight
