"""The plugin for BasicSR. One line in an option file loads it:

``plugin: !!python/name:contrastive_sr.hosts.basicsr.plugin.__version__``
"""
