"""Python files of the user's own, named on the command line."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from contrastive_sr._checks import describe_error
from contrastive_sr.errors import ConfigError, ContrastiveSRError


def import_files(files: Sequence[Path]) -> None:
    """Run Python files, in their order, as modules with the files' names.

    Raises:
        ConfigError: a file is missing or fails, or a module of its name is there already.
    """
    for named in files:
        file = named.absolute()
        if file.suffix != ".py" or not file.is_file():
            raise ConfigError(f"--import: expected an existing Python file (.py), got {named}.")
        if file.stem in sys.modules:
            raise ConfigError(f"--import: there is a module {file.stem} already. Give {named} another name.")
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[file.stem] = module
        try:
            spec.loader.exec_module(module)
        except ContrastiveSRError:
            raise
        except (Exception, SystemExit) as error:  # a user's file can fail in any way
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
            where = f", line {lines[-1]}" if lines else ""
            raise ConfigError(f"--import: {named}{where}: {describe_error(error)}.") from error
