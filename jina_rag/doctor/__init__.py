"""Checks of an installation: `examination.examine` compares model outputs with the published code."""
