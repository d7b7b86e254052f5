"""What turns an image into feature maps."""

from contrastive_sr.embeddings.base import Embedding, TrainableEmbedding, frozen, training_mode
from contrastive_sr.embeddings.degradation import DegradationEncoder
from contrastive_sr.embeddings.discriminator import FourierDiscriminator, HaarDiscriminator, RGBDiscriminator
from contrastive_sr.embeddings.head import MLPHead
from contrastive_sr.embeddings.sn_resnet import SNResNet18
from contrastive_sr.embeddings.vgg import VGGFeatures
from contrastive_sr.embeddings.weights import load_weights

EMBEDDINGS: dict[str, type[Embedding]] = {
    cls.__name__: cls for cls in (HaarDiscriminator, FourierDiscriminator, RGBDiscriminator, SNResNet18, VGGFeatures)
}

__all__ = [
    "EMBEDDINGS",
    "DegradationEncoder",
    "Embedding",
    "FourierDiscriminator",
    "HaarDiscriminator",
    "MLPHead",
    "RGBDiscriminator",
    "SNResNet18",
    "TrainableEmbedding",
    "VGGFeatures",
    "frozen",
    "load_weights",
    "training_mode",
]
