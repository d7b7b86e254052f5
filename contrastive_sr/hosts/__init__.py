"""Thin adapters to the training frameworks; each framework is imported only by its own subpackage."""

# BasicSR imports torch, numpy and cython while it is built, so they must be there, and be seen by the build.
INSTALL_BASICSR = (
    'pip install torch torchvision "setuptools<81" wheel cython "numpy<2" && '
    'pip install --no-build-isolation "contrastive-sr[basicsr]"'
)
