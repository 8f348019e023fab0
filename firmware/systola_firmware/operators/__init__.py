"""The operators, a family a module: what a model file's operators become, and what the engine does for them.

``registry`` lists all families, ``family`` says what belongs to one, ``lower`` calls it. To add an operator:
``docs/extending/operator.md``.
"""
