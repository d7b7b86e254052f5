"""Thin adapters to the training frameworks; each framework is imported only by its own subpackage."""
