"""One module per paper: its losses, samples, embedding and schedule put together, for any framework."""

from contrastive_sr.methods.base import Method, SRLosses, Term
from contrastive_sr.methods.collection import METHODS, MethodList, build_methods, register_method
from contrastive_sr.methods.compared import Compared, Comparison
from contrastive_sr.methods.cria_cl import CriaCL
from contrastive_sr.methods.crl_sr import CRLSR
from contrastive_sr.methods.dasr import DASR, DegradationContrast, TrueKernel
from contrastive_sr.methods.mpf import MPF
from contrastive_sr.methods.nce import SRNCE, BidirectionalNCE, InfoNCE
from contrastive_sr.methods.pcl import PCL
from contrastive_sr.methods.regularization import ContrastiveRegularization
from contrastive_sr.methods.weighting import TermWeight

__all__ = [
    "CRLSR",
    "DASR",
    "METHODS",
    "MPF",
    "PCL",
    "SRNCE",
    "BidirectionalNCE",
    "Compared",
    "Comparison",
    "ContrastiveRegularization",
    "CriaCL",
    "DegradationContrast",
    "InfoNCE",
    "Method",
    "MethodList",
    "SRLosses",
    "Term",
    "TermWeight",
    "TrueKernel",
    "build_methods",
    "register_method",
]
