"""Makes `python -m contrastive_sr` the same as `contrastive-sr`."""

from contrastive_sr.cli import main

main()
