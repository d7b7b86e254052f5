"""The SR networks that the papers introduce: ``sr = net(lr)``, like any other."""

from contrastive_sr.networks.criteria_branches import CriteriaBranches as CriteriaBranches
from contrastive_sr.networks.crl_sr import CRLSR as CRLSR
from contrastive_sr.networks.crl_sr import ImageDecoder as ImageDecoder
from contrastive_sr.networks.crl_sr import ImageEncoder as ImageEncoder
from contrastive_sr.networks.dasr import DASR as DASR
from contrastive_sr.networks.mpf_net import MPFNet as MPFNet
from contrastive_sr.networks.registry import NETWORKS as NETWORKS
from contrastive_sr.networks.registry import register_network as register_network
