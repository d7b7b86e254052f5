"""`contrastive-sr schema`: what editors check option files by."""

from __future__ import annotations

import json


def schema() -> str:
    """The JSON schema of `methods:` and `degradation:`: of an option file, and of the `model` of an MMagic config."""
    from contrastive_sr import __version__
    from contrastive_sr.methods import reference

    keys = {"methods": reference.schema_of_methods(), "degradation": reference.schema_of_degradation()}
    content = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": f"contrastive-sr {__version__}: methods and degradation of a training",
        "type": "object",
        "properties": {**keys, "model": {"type": "object", "properties": keys}},
        "definitions": reference.definitions(),
    }
    return json.dumps(content, indent=2)
