"""Checks of an installation: `examination.examine` compares model outputs with outputs of the published code."""
