"""Writes docs/configuration.md from the classes: `python docs/write_configuration.py`. A test compares."""

from __future__ import annotations

from pathlib import Path

from contrastive_sr.methods.reference import page

PAGE = Path(__file__).with_name("configuration.md")
HEAD = """\
# Configuration reference

Every key of `methods:` and `degradation:` with its default. They are the same in a BasicSR option file and in the
`model` of an MMagic config; all other keys there are the host's. What is called none here is `null` in YAML and `None`
in Python. What a method does is on its paper's page: [papers and losses](README.md).

This page is written from the docstrings by `python docs/write_configuration.py`.

## In an editor

```bash
contrastive-sr schema > contrastive-sr.schema.json
```

prints a JSON schema (draft 7) of the same keys. An editor with a YAML language server, such as VS Code with the
extension *YAML*, then completes keys, explains them, and marks typos as you type. Put this above the first
line of an option file:

```yaml
# yaml-language-server: $schema=contrastive-sr.schema.json
```

The tag of the line `plugin:` is BasicSR's; so that the editor accepts it, add to its settings
`"yaml.customTags": ["tag:yaml.org,2002:python/name:contrastive_sr.hosts.basicsr.plugin.__version__"]`. MMagic's configs
are Python, which editors do not check by a schema; written as YAML or JSON they can be. A class of your own is in
the schema with `--import FILE`, as for `contrastive-sr train`. Bounds of numbers are not in the schema: `contrastive-sr
train` checks them before it starts.

"""


def text() -> str:
    """The whole page."""
    return HEAD + page()


if __name__ == "__main__":
    PAGE.write_text(text())
