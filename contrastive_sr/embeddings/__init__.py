"""What turns an image into feature maps."""

from contrastive_sr.embeddings.base import EMBEDDINGS as EMBEDDINGS
from contrastive_sr.embeddings.base import Embedding as Embedding
from contrastive_sr.embeddings.base import TrainableEmbedding as TrainableEmbedding
from contrastive_sr.embeddings.base import frozen as frozen
from contrastive_sr.embeddings.base import register_embedding as register_embedding
from contrastive_sr.embeddings.base import training_mode as training_mode
from contrastive_sr.embeddings.degradation import DegradationEncoder as DegradationEncoder
from contrastive_sr.embeddings.discriminator import FourierDiscriminator as FourierDiscriminator
from contrastive_sr.embeddings.discriminator import HaarDiscriminator as HaarDiscriminator
from contrastive_sr.embeddings.discriminator import RGBDiscriminator as RGBDiscriminator
from contrastive_sr.embeddings.discriminator import StationaryHaarDiscriminator as StationaryHaarDiscriminator
from contrastive_sr.embeddings.fixed import FixedEmbedding as FixedEmbedding
from contrastive_sr.embeddings.head import MLPHead as MLPHead
from contrastive_sr.embeddings.sn_resnet import SNResNet18 as SNResNet18
from contrastive_sr.embeddings.timm_features import TimmFeatures as TimmFeatures
from contrastive_sr.embeddings.vgg import VGGFeatures as VGGFeatures
from contrastive_sr.embeddings.weights import load_weights as load_weights
