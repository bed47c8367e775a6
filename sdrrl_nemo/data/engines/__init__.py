"""Engines the stages call, each registered by name and chosen in YAML; one folder a role, one file or folder an engine.

Importing this package registers every engine; their heavy packages are imported when one is first used. A new engine is
a file in its role's folder, which registers a class under a name, and a line in that folder's ``__init__.py``.
"""

from sdrrl_nemo.data.engines import corpora, dictionaries, generate, language_id, quality, translate

__all__ = ["corpora", "dictionaries", "generate", "language_id", "quality", "translate"]
