"""Contrastive learning for image super-resolution: losses, methods, and plugins for BasicSR and MMagic."""

__version__ = "0.1.0"
